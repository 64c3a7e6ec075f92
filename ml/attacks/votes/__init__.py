"""Attacks on ballots: a judge's honest figures in, what it says out. Integers only; each sibling file is one.

`vote(context, *, options)` gives the figures of the ballot, or None where the judge does not reveal its sealed vote.
Adapters go by root and domains by whatever names them, so the lab uses these on the chain's own structs.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules

from ml.figures import PPM, Change

Root = Hashable
Figures = Mapping[Root, Mapping[Hashable, Change]]
"""By adapter and domain: relative change of the loss and its standard error, in ppm."""
SURE_SE_PPM = 1_000
"""The standard error that a liar claims: small against any tolerance, so that its figure counts."""


@dataclass(frozen=True)
class VoteContext:
    """What a malicious judge knows when it votes."""

    honest: Figures
    """What it measured, or would have: the adapters and domains on which it owes figures."""
    friends: frozenset[Root] = frozenset()
    """Adapters of its accomplices."""
    shared: Figures | None = None
    """The ballot of another judge, had outside the chain before sealing; None where nobody gives it one."""
    revealed: Sequence[Figures] = field(default_factory=tuple)
    """Ballots that others have opened by now."""
    tolerance_ppm: int = 20_000
    outlier_distance_ppm: int = 30_000
    """The task's; a figure farther from the median of its peers costs its judge (docs/protocol.md, judges)."""
    seed: int = 0


def list_votes() -> tuple[str, ...]:
    """Names of the attacks on ballots, sorted: every sibling module."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def cast_vote(name: str, context: VoteContext, **options: int | str) -> Figures | None:
    """The named attack's ballot. Raises ValueError for an unknown attack or option, with the known ones."""
    if name not in list_votes():
        raise ValueError(f"unknown attack on votes {name!r}; known: {', '.join(list_votes())}")
    known = list_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"attack {name} has no option {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    ballot: Figures | None = import_module(f"{__name__}.{name}").vote(context, **options)
    return ballot


def list_options(name: str) -> dict[str, int | str]:
    """The options of the named attack with their defaults."""
    parameters = signature(import_module(f"{__name__}.{name}").vote).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


def move(change: Change, by_ppm: int) -> Change:
    """The same figure with another change; a loss cannot fall by more than all of it."""
    return Change(max(-PPM, change.change_ppm + by_ppm), change.se_ppm)
