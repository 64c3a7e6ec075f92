"""Transport grids: what is packed comes back bit for bit, foreign bytes are refused, nothing is lost for good."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.transport import receive, send
from ml.transport.int8 import Int8
from ml.transport.q4 import Q4, pack_nibbles, unpack_nibbles
from ml.transport.top_k import TopK
from tests.ml.support import is_equal, make_small_spec

SPEC = make_small_spec()
STEP = 2.0**SPEC.update_step_log2
GRIDS = [Int8(), Q4(), Q4(shift=0), TopK(), TopK(200_000, Q4()), TopK(1), TopK(1_000_000)]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)
STEPS = st.lists(st.floats(-300, 300), min_size=0, max_size=400)


def make_move(seed: int, size: float = 20.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {module: size * STEP * random.normal(size=(out, SPEC.rank)) for module, out, _ in SPEC.shapes}


@every_grid
@given(steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_what_is_packed_comes_back_bit_for_bit(grid: Any, steps: list[float]) -> None:
    values = grid.project(np.array(steps, np.float64))
    assert values.dtype == np.int8
    assert values.size == 0 or values.min() >= -127
    data = grid.pack(values)
    assert np.array_equal(grid.unpack(data, len(steps)), values)
    assert grid.pack(grid.unpack(data, len(steps))) == data


@every_grid
@given(data=st.binary(max_size=60), count=st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_foreign_bytes_are_refused_or_are_what_pack_would_write(grid: Any, data: bytes, count: int) -> None:
    try:
        values = grid.unpack(data, count)
    except ValueError:
        return
    assert grid.pack(values) == data


@every_grid
def test_every_cut_of_a_parcel_is_refused(grid: Any) -> None:
    data = send(grid, make_move(1), SPEC).data
    for end in range(0, len(data), max(1, len(data) // 40)):
        with pytest.raises(ValueError):
            receive(grid, data[:end], SPEC)
    with pytest.raises(ValueError):
        receive(grid, data + b"\x08", SPEC)


@every_grid
def test_a_projection_stays_where_it_is_and_rounds_no_further_than_its_grid(grid: Any) -> None:
    steps = np.random.default_rng(3).normal(size=500) * 20
    once = grid.project(steps)
    assert np.array_equal(grid.project(once.astype(np.float64)), once)
    assert (np.abs(once) <= np.abs(np.rint(steps)) + 4).all()


def test_halves_go_to_the_even_neighbour_and_the_far_saturates() -> None:
    assert Int8().project(np.array([0.5, 1.5, -0.5, 300, -1e30])).tolist() == [0, 2, 0, 127, -127]
    assert Q4(shift=3).project(np.array([4, 12, -4, 300, -1e30])).tolist() == [0, 16, 0, 56, -56]


def test_nibbles_by_hand() -> None:
    assert pack_nibbles(np.array([-7, 7, 0], np.int8)) == bytes([0xF1, 0x08])
    assert unpack_nibbles(bytes([0xF1, 0x08]), 3).tolist() == [-7, 7, 0]
    for wrong in (bytes([0x01]), bytes([0x18]), bytes(2)):  # a 0 among the values, a filler, a length
        with pytest.raises(ValueError):
            unpack_nibbles(wrong, 2 if wrong == bytes([0x01]) else 1)


def test_gaps_by_hand() -> None:
    """A value at 0, one after 254 zeros, one after 255, one after 600."""
    values = np.zeros(1_200, np.int8)
    values[[0, 255, 511, 1_112]] = [1, -2, 3, -4]
    data = TopK().pack(values)
    assert data == bytes([4, 0, 0, 0, 7, 0, 0, 0, 0, 254, 255, 0, 255, 255, 90, 1, 254, 3, 252])
    assert np.array_equal(TopK().unpack(data, 1_200), values)


def test_the_largest_are_kept_and_of_equal_ones_the_first() -> None:
    found = TopK(500_000).project(np.array([3.0, -5.0, 3.0, 0.0, 5.0, 3.0]))
    assert found.tolist() == [3, -5, 0, 0, 5, 0]


@every_grid
def test_what_a_projection_leaves_over_is_sent_later(grid: Any) -> None:
    """Error feedback: all that arrived and what is still held back add up to all moves, to the last bit of float64."""
    residual, arrived, moved = None, 0.0, 0.0
    for round in range(6):
        move = make_move(round)
        parcel = send(grid, move, SPEC, residual)
        assert is_equal(receive(grid, parcel.data, SPEC), parcel.update)
        residual = parcel.residual
        moved = moved + np.concatenate([move[m].ravel() for m in SPEC.modules])
        arrived = arrived + np.concatenate([parcel.update[m].ravel() * STEP for m in SPEC.modules])
    held = np.concatenate([residual[m].ravel() for m in SPEC.modules]) if residual else 0
    assert np.allclose(arrived + held, moved, rtol=0, atol=1e-12)


def test_without_feedback_the_small_values_never_arrive() -> None:
    """The control of the test above: a constant move, of which a tenth is kept each round."""
    move = make_move(7)
    flat = np.concatenate([move[m].ravel() for m in SPEC.modules])

    def run(feedback: bool) -> float:
        residual, arrived = None, np.zeros_like(flat)
        for _ in range(60):
            parcel = send(TopK(100_000), move, SPEC, residual)
            residual = parcel.residual if feedback else None
            arrived += np.concatenate([parcel.update[m].ravel() * STEP for m in SPEC.modules])
        return float(np.linalg.norm(arrived - 60 * flat) / np.linalg.norm(60 * flat))

    assert run(feedback=True) < 0.2 < 0.5 < run(feedback=False)


def test_bytes_are_what_the_options_say() -> None:
    count = sum(out * SPEC.rank for _, out, _ in SPEC.shapes)
    sizes = {str(grid): len(send(grid, make_move(1), SPEC).data) for grid in (Int8(), Q4(), TopK(100_000, Q4()))}
    kept = count // 10
    assert list(sizes.values())[:2] == [count, count // 2]
    assert list(sizes.values())[2] <= 8 + kept + -(-kept // 2)


def test_a_move_that_is_not_finite_is_refused() -> None:
    move = make_move(1)
    move[SPEC.modules[0]][0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        send(Int8(), move, SPEC)


@pytest.mark.parametrize("make", [lambda: Q4(shift=5), lambda: TopK(0), lambda: TopK(1_000_001)])
def test_options_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="choose"):
        make()
