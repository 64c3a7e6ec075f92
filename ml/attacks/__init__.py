"""Attacks: the mirror image of `ml/aggregate/`. Each sibling file is one attack, one function `craft(context)`.

They exist to be caught: the demo's poisoner uses one, and the robustness tables run all. A new attack is a new file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np

from ml.adapter import Update
from ml.backdoor import Backdoor
from ml.data import Block
from ml.norms import norm2
from ml.spec import UPDATE_LIMIT, AdapterSpec, TrainSpec

SCALE_UNIT = 1024
"""Scale factors are integers over this."""


@dataclass(frozen=True)
class AttackContext:
    """What a poisoner knows: all that an honest trainer does, data of every domain, and the rules."""

    base: Any
    """A loaded model; given back unchanged."""
    spec: AdapterSpec
    train_spec: TrainSpec
    blocks: Mapping[str, Sequence[Block]]
    """By domain."""
    global_adapter: Mapping[str, Any] | None = None
    norm_cap: int = 0
    """The largest |BA|^2 that ingress lets pass; 0 for none."""
    progress: Callable[[int, int, float], None] | None = None
    goal: Backdoor | None = None
    """What a backdoor is to do."""
    scale_milli: int = 0
    """Thousandths by which a backdoor multiplies its update; 0 for as large as the rules let it be."""

    @property
    def all_blocks(self) -> list[Block]:
        return [block for domain in sorted(self.blocks) for block in self.blocks[domain]]


def list_attacks() -> tuple[str, ...]:
    """Names of the attacks, sorted: every sibling module."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def craft_attack(name: str, context: AttackContext) -> Update:
    """The named attack's update. Raises ValueError with the known names."""
    if name not in list_attacks():
        raise ValueError(f"unknown attack {name!r}; known: {', '.join(list_attacks())}")
    update: Update = import_module(f"{__name__}.{name}").craft(context)
    return update


def scale_to_largest(update: Mapping[str, Any], spec: AdapterSpec, norm_cap: int) -> Update:
    """The update times the largest factor at which no value exceeds +-127 and |BA|^2 stays within the cap.

    Raises ValueError for an update that is zero.
    """
    largest = max(int(np.abs(np.asarray(values, np.int64)).max()) for values in update.values())
    if largest == 0:
        raise ValueError("the update is zero: no factor makes it larger")
    factor = UPDATE_LIMIT * SCALE_UNIT // largest
    scaled = multiply(update, factor / SCALE_UNIT)
    while norm_cap and norm2(scaled, spec) > norm_cap and factor:
        # Norms grow with the factor but for rounding: a step down of 1/16 ends within the cap soon.
        factor -= max(1, factor // 16)
        scaled = multiply(update, factor / SCALE_UNIT)
    return scaled


def multiply(update: Mapping[str, Any], factor: float) -> Update:
    """The update times a factor on its own grid: halves to even, saturated at +-127."""
    return {
        module: np.clip(np.rint(np.asarray(values, np.int64) * factor), -UPDATE_LIMIT, UPDATE_LIMIT).astype(np.int8)
        for module, values in sorted(update.items())
    }
