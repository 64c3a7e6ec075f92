"""What training may be bound to: a ball that holds exactly, and a price that honest updates hardly pay."""

from typing import Any

import numpy as np
import pytest
import torch

from ml.adapter import GlobalAdapter, Update
from ml.constraints import HonestShape, NormBall
from ml.norms import norm2
from tests.ml.support import make_global, make_small_spec, make_update

SPEC = make_small_spec()
STEP = 2.0**SPEC.update_step_log2
START = make_global(SPEC, 1)


def place(update: Update, factor: float = 1.0, start: GlobalAdapter | None = START) -> dict[str, torch.Tensor]:
    """B after a move by `factor` times the update, trainable."""
    grid = 2.0**SPEC.grid_step_log2
    return {
        module: torch.tensor(
            (0.0 if start is None else start[module] * grid) + values * (STEP * factor), dtype=torch.float32
        ).requires_grad_()
        for module, values in update.items()
    }


def find_price(shape: HonestShape, factors: dict[str, torch.Tensor]) -> float:
    return float(shape.penalise(factors).detach())


def concentrate(update: Update) -> Update:
    """Everything in one direction: the first column, in every column."""
    return {module: np.repeat(values[:, :1], values.shape[1], axis=1) for module, values in update.items()}


@pytest.mark.parametrize("start", [None, START])
@pytest.mark.parametrize(("factor", "kept"), [(0.5, 0.5), (1.0, 1.0), (4.0, 1.0)])
def test_a_ball_holds_what_is_outside_it_and_moves_nothing_else(start: Any, factor: float, kept: float) -> None:
    """The radius is that of the update itself: half of it stays, four times it come back to one."""
    update = make_update(SPEC, 3, limit=60)
    factors = place(update, factor, start)
    with torch.no_grad():
        NormBall(SPEC, start, norm2(update, SPEC)).project(factors)
    for module, expected in place(update, kept, start).items():
        assert torch.allclose(factors[module], expected, atol=1e-3 * STEP * 60, rtol=0)


@pytest.fixture(scope="module")
def shape() -> HonestShape:
    return HonestShape(SPEC, START, [make_honest(seed) for seed in range(3)], weight=1.0)


def make_honest(seed: int) -> Update:
    """One direction in common, and something of its own."""
    common, own = make_update(SPEC, 7, limit=40), make_update(SPEC, seed, limit=15)
    return {module: (common[module] + own[module]).astype(np.int8) for module in common}


def test_an_honest_update_has_next_to_no_price_and_what_stands_out_has_one(shape: HonestShape) -> None:
    honest = make_honest(0)
    price = {
        "reference": find_price(shape, place(honest)),
        "larger": find_price(shape, place(honest, 2.0)),
        "concentrated": find_price(shape, place(concentrate(honest))),
        "opposite": find_price(shape, place(honest, -1.0)),
        "foreign": find_price(shape, place(make_update(SPEC, 30, limit=50))),
    }
    assert price["reference"] < 0.02
    assert min(price[name] for name in ("larger", "concentrated", "opposite", "foreign")) > 5 * price["reference"] + 0.1
    assert price["larger"] == pytest.approx(9.0, rel=0.3)  # (2^2 - 1)^2, but for the median of the references
    assert price["opposite"] > 2.0  # the cosine is about -1


def test_the_price_has_a_gradient_where_training_begins(shape: HonestShape) -> None:
    factors = place(make_update(SPEC, 1), 0.0)
    shape.penalise(factors).backward()
    assert all(torch.isfinite(factor.grad).all() for factor in factors.values() if factor.grad is not None)
    assert any(factor.grad is not None for factor in factors.values())


def test_descending_the_price_alone_leads_to_the_honest(shape: HonestShape) -> None:
    factors = place(make_update(SPEC, 30, limit=50))
    before = find_price(shape, factors)
    optimizer = torch.optim.Adam(list(factors.values()), lr=8 * STEP)
    for _ in range(25):
        optimizer.zero_grad()
        shape.penalise(factors).backward()
        optimizer.step()
    assert find_price(shape, factors) < before / 5


def test_nothing_to_look_like_is_said() -> None:
    with pytest.raises(ValueError, match="no honest update to look like"):
        HonestShape(SPEC, None, [], weight=1.0)
