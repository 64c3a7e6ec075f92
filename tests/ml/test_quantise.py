"""A trained B becomes an int8 update: rounded to even, saturated, one module in memory at a time."""

from typing import Any

import numpy as np
import pytest
import torch

from ml.adapter import GlobalAdapter
from ml.quantise import make_moves, quantise
from ml.spec import AdapterSpec
from ml.trainer import TrainingFailed
from tests.ml.support import LARGE, make_global, make_small_spec, trace_peak

SPEC = make_small_spec()
STEP = 2.0**SPEC.update_step_log2


def make_factors(spec: AdapterSpec, value: float) -> dict[str, torch.Tensor]:
    return {module: torch.full((out, spec.rank), value) for module, out, _ in spec.shapes}


@pytest.mark.parametrize(
    ("steps", "expected", "is_saturated"),
    [
        (0.5, 0, False),
        (1.5, 2, False),
        (2.5, 2, False),
        (-3.5, -4, False),
        (127.4, 127, False),
        (300.0, 127, True),
        (-300.0, -127, True),
    ],
)
def test_a_move_is_rounded_to_even_and_saturated(steps: float, expected: int, is_saturated: bool) -> None:
    update, saturated = quantise(make_moves(make_factors(SPEC, steps * STEP), None, SPEC), SPEC)
    assert list(update) == list(SPEC.modules)
    for module, out, _ in SPEC.shapes:
        assert update[module].dtype == np.int8
        assert update[module].shape == (out, SPEC.rank)
        assert set(update[module].ravel().tolist()) == {expected}
    assert saturated == is_saturated * sum(values.size for values in update.values())


def test_the_move_is_what_was_added_to_the_global_adapter() -> None:
    """Exact: the start is taken from the grid's integers, not from a copy of the factors."""
    start, wanted = make_global(SPEC, 1), np.random.default_rng(2)
    moved = {module: wanted.integers(-127, 128, values.shape) for module, values in start.items()}
    grid = 2.0**SPEC.grid_step_log2
    after = {
        module: torch.as_tensor((values * grid + moved[module] * STEP).astype(np.float32))
        for module, values in start.items()
    }
    update, saturated = quantise(make_moves(after, start, SPEC), SPEC)
    assert not saturated
    assert all(np.array_equal(update[module], moved[module]) for module in SPEC.modules)


def test_one_huge_coordinate_takes_nothing_from_anyone() -> None:
    """The step is the task's: 1e30 saturates in its own place, and rounds no other value to zero."""
    factors, module = make_factors(SPEC, 3.2 * STEP), SPEC.modules[0]
    quiet, none = quantise(make_moves(factors, None, SPEC), SPEC)
    factors[module][0, 0] = 1e30
    loud, saturated = quantise(make_moves(factors, None, SPEC), SPEC)
    assert (none, saturated) == (0, 1)
    assert loud[module][0, 0] == 127
    loud[module][0, 0] = quiet[module][0, 0]
    assert all(np.array_equal(loud[name], quiet[name]) for name in SPEC.modules)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_move_that_is_not_finite_is_no_update(value: float) -> None:
    with pytest.raises(TrainingFailed, match=r"down_proj is not finite .*: lower the learning rate"):
        quantise(
            make_moves({**make_factors(SPEC, 0.0), SPEC.modules[-1]: torch.full((16, 4), value)}, None, SPEC), SPEC
        )


@pytest.mark.parametrize("with_start", [False, True])
def test_memory_is_one_update_and_one_module(with_start: bool) -> None:
    """Beyond the trained factors, which are torch's and stay where they are: 1.2 updates and a module in float64.

    numpy's arrays are seen by tracemalloc; holding both factors beside each other, as control, takes eight updates.
    """
    factors, start = make_factors(LARGE, STEP), make_start(LARGE) if with_start else None
    update_bytes = sum(out * LARGE.rank for _, out, _ in LARGE.shapes)
    module_bytes = 8 * update_bytes // len(LARGE.shapes)
    streamed = trace_peak(lambda: quantise(make_moves(factors, start, LARGE), LARGE))
    assert update_bytes < streamed < 1.2 * update_bytes + module_bytes
    plain = trace_peak(lambda: hold_both(factors))
    assert plain > 8 * update_bytes


def make_start(spec: AdapterSpec) -> GlobalAdapter:
    """One array for all modules: the test's own memory is no part of what it measures."""
    ((out, rank),) = {(out, spec.rank) for _, out, _ in spec.shapes}
    return dict.fromkeys(spec.modules, np.full((out, rank), 256, np.int32))


def hold_both(factors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    before = {module: np.zeros(factor.shape, np.float32) for module, factor in factors.items()}
    return before, {module: factor.numpy().copy() for module, factor in factors.items()}
