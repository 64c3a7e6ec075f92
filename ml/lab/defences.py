"""The arms of a comparison: what becomes of a round's updates under each defence, and how many attackers it withstands.

Baselines of others run in floats without grid (ml/baselines/), the network's rules on its integers (ml/aggregate/), and
the committee's arms through the ledger.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml.adapter import GlobalAdapter, Update, zero_global
from ml.aggregate import add_to_global, aggregate
from ml.baselines import State, make_baseline, start
from ml.baselines.grid_rule import from_grid
from ml.canonical import Array
from ml.lab import Json
from ml.lab.learners import to_factors
from ml.spec import AdapterSpec

COMMITTEE_ARMS = ("flock", "loss_only")
"""Beginnings of the names of arms that a committee decides."""
TUNED = ("fedadam", "fedyogi")
"""Their server rate has no natural value: it is tuned on a seed without attack."""
FLOATS = ("fedavg", "fedprox", "fedadam", "fedyogi", "fltrust", "flame_like")
RULES = {
    "norm_clip": "mean_norm_clip",
    "median": "coordinate_median",
    **{
        name: name for name in ("trimmed_mean", "krum", "multi_krum", "bulyan", "geometric_median", "centered_clipping")
    },
}
CONTROLS = ("base", "clean", "oracle")
"""Nothing trained; the plain mean without attackers; the network's rule with the attackers removed."""
FLOCK, PAPER, LIARS, LOSS_ONLY = "flock", "flock_paper", "flock_liars", "loss_only"
WITHOUT = "flock_without_"
"""Begins the names of arms that lack one screen, or the judgement of the candidate."""
CANDIDATE = "candidate"


def list_arms(names: Sequence[str], screens: Sequence[str]) -> list[str]:
    """The wanted arms, `flock_without_each` being one for every screen and one for the candidate's judgement."""
    arms = []
    for name in names:
        if name == f"{WITHOUT}each":
            arms += [f"{WITHOUT}{screen}" for screen in (*screens, CANDIDATE)]
        else:
            arms.append(name)
    return [*CONTROLS, *arms]


def count_tolerated(arm: str, trainers: int) -> int | None:
    """The most attackers among `trainers` for which the rule's source claims anything; None for no such claim.

    Beyond it a cell of the table is marked: the rule is not refuted there.
    """
    minority = (trainers - 1) // 2
    bounds = {
        "trimmed_mean": trainers // 5,
        "krum": max(0, (trainers - 3) // 2),
        "multi_krum": max(0, (trainers - 3) // 2),
        "bulyan": max(0, (trainers - 3) // 4),
        **dict.fromkeys(("median", "geometric_median", "centered_clipping", "flame_like"), minority),
        **dict.fromkeys(("fedavg", "fedprox", "fedadam", "fedyogi"), 0),
    }
    return bounds.get(arm)


def combine(
    arm: str,
    updates: Mapping[str, Update],
    spec: AdapterSpec,
    *,
    trusted: Update,
    rate: float | None,
    honest: Sequence[str],
    current: GlobalAdapter | None = None,
) -> dict[str, Array]:
    """float32 factors of the next global adapter of an arm without committee, after `current` (None: the bare base)."""
    old = current or zero_global(spec)
    if arm == "clean":
        return _step("fedavg", {name: updates[name] for name in honest}, spec, old)
    if arm == "attackers":
        return _step("fedavg", {name: updates[name] for name in updates if name not in honest}, spec, old)
    if arm == "oracle":
        return apply_rule("mean_norm_clip", {name: updates[name] for name in honest}, spec, old)
    if arm in RULES:
        return apply_rule(RULES[arm], updates, spec, old)
    options: Json = {} if rate is None else {"server_rate": rate}
    return _step(arm, updates, spec, old, trusted=from_grid(trusted, spec), **options)


def _step(
    name: str,
    updates: Mapping[str, Update],
    spec: AdapterSpec,
    current: GlobalAdapter,
    *,
    trusted: Any = None,
    **options: float,
) -> dict[str, Array]:
    state: State = start({module: values * 2.0**spec.grid_step_log2 for module, values in current.items()})
    floats = {root: from_grid(update, spec) for root, update in updates.items()}
    return to_factors(make_baseline(name, **options).step(state, floats, trusted=trusted).model)


def apply_rule(rule: str, updates: Mapping[str, Update], spec: AdapterSpec, current: GlobalAdapter) -> dict[str, Array]:
    return make_global(aggregate_updates(rule, updates, spec, current), spec)


def aggregate_updates(
    rule: str, updates: Mapping[str, Update], spec: AdapterSpec, current: GlobalAdapter
) -> GlobalAdapter:
    return add_to_global(current, aggregate(rule, updates, spec).delta)


def make_global(adapter: GlobalAdapter, spec: AdapterSpec) -> dict[str, Array]:
    """float32 factors, exact."""
    return to_factors({module: values * 2.0**spec.grid_step_log2 for module, values in adapter.items()})


def to_global_grid(factors: Mapping[str, Array], spec: AdapterSpec) -> GlobalAdapter:
    """The inverse; floats of a baseline are rounded to the grid, 1/256 of an update's step."""
    return {
        module: np.rint(np.asarray(values, np.float64) / 2.0**spec.grid_step_log2).astype(np.int32)
        for module, values in factors.items()
    }
