"""The network's own integer rules (ml/aggregate/) behind the baselines' method, so that one replay runs them all.

    x <- x + 2^grid_step_log2 * rule(u_i / 2^update_step_log2)

Updates must lie on the grid already: a rule that rounded here would be judged on other tensors than the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ml.adapter import Update
from ml.aggregate import aggregate
from ml.baselines import Baseline, Given, State, Tensors, flatten, move
from ml.canonical import Array
from ml.spec import UPDATE_LIMIT, AdapterSpec


@dataclass(frozen=True)
class GridRule(Baseline):
    spec: AdapterSpec
    rule: str = "mean_norm_clip"
    """A name of `ml.aggregate.list_rules`, with or without mixing before it."""
    norm_cap: int = 0

    def advance(self, state: State, given: Given) -> State:
        on_grid = {root: to_grid(update, self.spec) for root, update in given.updates.items()}
        delta = aggregate(self.rule, on_grid, self.spec, norm_cap=self.norm_cap).delta
        return move(state, flatten(delta) * 2.0**self.spec.grid_step_log2)


def to_grid(update: Tensors, spec: AdapterSpec) -> Update:
    """int8 steps of an update in real values. Raises ValueError for one that is off the grid or beyond +-127 steps."""
    steps = {module: np.asarray(values, np.float64) / 2.0**spec.update_step_log2 for module, values in update.items()}
    for module, values in steps.items():
        if not (np.isfinite(values) & (values == np.rint(values)) & (np.abs(values) <= UPDATE_LIMIT)).all():
            raise ValueError(f"{module} is not on the grid of 2^{spec.update_step_log2} within +-{UPDATE_LIMIT} steps")
    return {module: values.astype(np.int8) for module, values in sorted(steps.items())}


def from_grid(update: Mapping[str, Array], spec: AdapterSpec) -> dict[str, Array]:
    """float64 real values of an int8 update, exact: what every baseline takes."""
    return {module: np.asarray(values, np.float64) * 2.0**spec.update_step_log2 for module, values in update.items()}
