"""LoRA modes: which factors a round trains, and how the trained ones become the next global adapter.

Each sibling file is one mode: `get_trained(round)` names the factors, `merge(before, after, ...)` combines what the
trainers ended with. The network runs `shared_a`, in integers (`ml/aggregate/`); here it stands in floats beside the
others, for the lab and the table of errors against mean(BA). Why the others are not on the chain: decision 30.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol

from ml.products import Pair, Pairs

FACTORS = ("a", "b")


class Mode(Protocol):
    """What a mode's module offers."""

    def get_trained(self, round: int) -> tuple[str, ...]:
        """The factors that trainers move in this round, counted from 0: of "a" and "b"."""
        ...

    def merge(self, before: Pairs, after: Mapping[str, Pairs], round: int) -> dict[str, Pair]:
        """The next global adapter, from each trainer's factors by root. Raises ValueError for none."""
        ...


def list_modes() -> tuple[str, ...]:
    """Names of the modes, sorted: every sibling module but `training`."""
    return tuple(sorted({module.name for module in iter_modules(__path__)} - {"training"}))


def get_mode(name: str) -> Mode:
    """The mode of that name. Raises ValueError with the known names."""
    if name not in list_modes():
        raise ValueError(f"unknown LoRA mode {name!r}; known: {', '.join(list_modes())}")
    mode: Mode = import_module(f"{__name__}.{name}")
    return mode


def mean_factors(after: Mapping[str, Pairs]) -> dict[str, Pair]:
    """Mean of the Bs and mean of the As, by module. Raises ValueError for none."""
    if not after:
        raise ValueError("nothing to average: no adapter")
    ordered = [after[root] for root in sorted(after)]
    return {
        module: Pair(
            sum(pairs[module].b for pairs in ordered) / len(ordered),
            sum(pairs[module].a for pairs in ordered) / len(ordered),
        )
        for module in sorted(ordered[0])
    }
