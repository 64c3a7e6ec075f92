"""Baselines: what others do with a round's updates, in floats without grid, for tables alone and never for the chain.

Each sibling file is one baseline, a frozen dataclass of its options with a method `advance`. All of them take the same
updates and give the next state, so that the tensors of one round can be replayed under each:

    baseline = make_baseline("fedadam", server_rate=0.01)
    state = start(global_adapter)
    state = baseline.step(state, updates)        # once a round

`grid_rule` puts the network's own integer rules behind the same method. FedProx also changes training: it takes
`ml.constraints.Pull` in the trainer.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np

from ml.canonical import Array

Tensors = Mapping[str, Array]
"""Module path -> floats (out_features, rank): B, or a change of B, in real values and not in steps."""


@dataclass(frozen=True)
class State:
    """Between two rounds."""

    model: dict[str, Array]
    """The global adapter, float64."""
    memory: dict[str, dict[str, Array]] = field(default_factory=dict)
    """What a server optimizer keeps, by its name in the paper: `m`, `v`."""
    round: int = 0
    """Steps done."""


@dataclass(frozen=True)
class Given:
    """What a round brings."""

    updates: Mapping[str, Tensors]
    """By root, in any order."""
    weights: Mapping[str, float] | None = None
    """By root, for those that average: numbers of examples; None: equal."""
    trusted: Tensors | None = None
    """The server's own update, for those that need one."""


class Baseline(ABC):
    """One way from a round's updates to the next global adapter."""

    def step(
        self,
        state: State,
        updates: Mapping[str, Tensors],
        *,
        weights: Mapping[str, float] | None = None,
        trusted: Tensors | None = None,
    ) -> State:
        """The next state; nothing given (`Given`) is changed. Raises ValueError for no updates."""
        return self.advance(state, Given(updates, weights, trusted))

    @abstractmethod
    def advance(self, state: State, given: Given) -> State:
        """As `step`: what a baseline's file defines."""


def list_baselines() -> tuple[str, ...]:
    """Names of the baselines, sorted: every sibling module."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def make_baseline(name: str, **options: Any) -> Baseline:
    """The baseline of that name with these options. Raises ValueError with the known names."""
    if name not in list_baselines():
        raise ValueError(f"unknown baseline {name!r}; known: {', '.join(list_baselines())}")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    baseline: Baseline = getattr(import_module(f"{__name__}.{name}"), class_name)(**options)
    return baseline


def start(model: Tensors) -> State:
    """The state before the first round: a copy of the global adapter in float64."""
    return State({module: np.array(values, np.float64) for module, values in sorted(model.items())})


def stack(updates: Mapping[str, Tensors]) -> Array:
    """float64 (n, values): one flat row per update in the order of roots, modules in the order of their paths."""
    if not updates:
        raise ValueError("nothing to aggregate: no update")
    return np.stack([flatten(updates[root]) for root in sorted(updates)])


def flatten(tensors: Tensors) -> Array:
    return np.concatenate([np.asarray(tensors[module], np.float64).ravel() for module in sorted(tensors)])


def unflatten(values: Array, like: Tensors) -> dict[str, Array]:
    """The inverse of `flatten`, with the shapes of `like`."""
    result, at = {}, 0
    for module in sorted(like):
        size = like[module].size
        result[module] = values[at : at + size].reshape(like[module].shape)
        at += size
    assert at == values.size
    return result


def move(state: State, change: Array, memory: dict[str, dict[str, Array]] | None = None) -> State:
    """The state after a flat change of the model, one round later."""
    model = unflatten(flatten(state.model) + change, state.model)
    return State(model, state.memory if memory is None else memory, state.round + 1)


def average(updates: Mapping[str, Tensors], weights: Mapping[str, float] | None = None) -> Array:
    """The flat mean update (values,). Raises ValueError for no updates, or weights negative or all zero."""
    rows = stack(updates)
    given = np.array([1.0 if weights is None else weights[root] for root in sorted(updates)])
    if not given.sum() > 0 or given.min() < 0:
        raise ValueError(f"weights must not be negative, and not all zero: {given.tolist()}")
    mean: Array = given / given.sum() @ rows
    return mean
