"""B A from its factors against the product written out: inner products, distances, stacking, padding, truncation."""

import numpy as np
import pytest

from ml.norms import inner as exact_inner
from ml.products import (
    Pair,
    Pairs,
    distance,
    inner,
    make_first_pairs,
    mean,
    norm,
    pad,
    relative_error,
    stack,
    truncate,
)
from ml.spec import AdapterSpec
from tests.ml.support import make_small_spec, make_update

SPEC = make_small_spec()
SEEDS = range(8)


def make_pairs(seed: int, rank: int = 4, spec: AdapterSpec = SPEC) -> dict[str, Pair]:
    random = np.random.default_rng(seed)
    return {m: Pair(random.normal(size=(out, rank)), random.normal(size=(rank, in_))) for m, out, in_ in spec.shapes}


def write_out(pairs: Pairs) -> dict[str, np.ndarray]:
    return {module: pair.b @ pair.a for module, pair in pairs.items()}


def flat(pairs: Pairs) -> np.ndarray:
    return np.concatenate([product.ravel() for _, product in sorted(write_out(pairs).items())])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ranks", [(4, 4), (2, 7)])
def test_inner_products_and_distances_are_those_of_the_products(seed: int, ranks: tuple[int, int]) -> None:
    one, other = make_pairs(seed, ranks[0]), make_pairs(100 + seed, ranks[1])
    assert inner(one, other) == pytest.approx(flat(one) @ flat(other), rel=1e-10)
    assert norm(one) == pytest.approx(np.linalg.norm(flat(one)), rel=1e-12)
    assert distance(one, other) == pytest.approx(np.linalg.norm(flat(one) - flat(other)), rel=1e-12)


def test_a_near_pairs_distance_does_not_cancel() -> None:
    """1e-9 apart at a norm of about 100: the squares differ in their 22nd digit, float64 holds 16."""
    one = make_pairs(1)
    other = {module: Pair(pair.b + 1e-9, pair.a) for module, pair in one.items()}
    expected = np.linalg.norm(np.concatenate([(1e-9 * pair.a.sum(axis=0)) for pair in one.values()]))
    ones = [np.sqrt(out) for _, out, _ in SPEC.shapes]
    parts = [1e-9 * root * np.linalg.norm(one[m].a.sum(axis=0)) for root, m in zip(ones, SPEC.modules, strict=True)]
    assert expected > 0
    assert distance(one, other) == pytest.approx(np.linalg.norm(parts), rel=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_change_of_gauge_changes_nothing(seed: int) -> None:
    """A times 1000 and B divided by it, and any mixing of the ranks: the same adapter."""
    pairs, random = make_pairs(seed), np.random.default_rng(seed)
    mixed = {}
    for module, pair in pairs.items():
        gauge = random.normal(size=(4, 4)) + 4 * np.eye(4)
        mixed[module] = Pair(pair.b / 1000 @ np.linalg.inv(gauge), gauge @ pair.a * 1000)
    assert distance(pairs, mixed) < 1e-12 * norm(pairs)
    assert norm(mixed) == pytest.approx(norm(pairs), rel=1e-9)


def test_with_the_tasks_a_they_are_the_chains_integers() -> None:
    """In the unit of `ml/norms.py`: the finest step of A."""
    first, updates = make_first_pairs(SPEC), [make_update(SPEC, seed) for seed in (1, 2)]
    one, other = ({m: Pair(update[m].astype(float), first[m].a) for m in SPEC.modules} for update in updates)
    unit = inner(one, one) / exact_inner(updates[0], updates[0], SPEC)
    assert np.log2(unit) == round(np.log2(unit))
    assert inner(one, other) == pytest.approx(exact_inner(*updates, SPEC) * unit, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_stacking_is_the_sum_whatever_the_ranks(seed: int) -> None:
    pairs = [make_pairs(seed, 1 + seed % 3), make_pairs(50 + seed, 5)]
    for module in SPEC.modules:
        stacked = stack([one[module] for one in pairs], [0.25, -2.0])
        expected = 0.25 * write_out(pairs[0])[module] - 2 * write_out(pairs[1])[module]
        assert np.allclose(stacked.b @ stacked.a, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mean_of_products_is_exact_in_any_order(seed: int) -> None:
    changes = {root: make_pairs(10 * seed + index) for index, root in enumerate("abc")}
    expected = sum(flat(pairs) for pairs in changes.values()) / 3
    assert np.allclose(flat(mean(changes)), expected, rtol=0, atol=1e-12)
    backwards = mean(dict(reversed(changes.items())))
    assert all(np.array_equal(backwards[m].b, mean(changes)[m].b) for m in SPEC.modules)


def test_padding_keeps_the_product_and_refuses_to_shrink() -> None:
    pair = make_pairs(1)[SPEC.modules[0]]
    wider = pad(pair, 9)
    assert wider.b.shape[1] == wider.a.shape[0] == 9
    assert np.array_equal(wider.b @ wider.a, pair.b @ pair.a) or np.allclose(wider.b @ wider.a, pair.b @ pair.a)
    with pytest.raises(ValueError, match="rank 4 cannot be padded to 2"):
        pad(pair, 2)


def test_lower_ranks_share_the_first_rows_of_the_tasks_a() -> None:
    """So a trainer of rank 2 in a task of rank 4 sends zero columns, and the mean with the others stays exact."""
    narrow, wide = (make_first_pairs(make_small_spec(rank=rank)) for rank in (2, 4))
    assert all(np.array_equal(narrow[module].a, wide[module].a[:2]) for module in SPEC.modules)


@pytest.mark.parametrize("seed", SEEDS)
def test_truncation_is_the_nearest_product_of_that_rank(seed: int) -> None:
    """Eckart-Young: the error is what the singular values beyond the rank amount to."""
    pair = make_pairs(seed, 8)[SPEC.modules[0]]
    values = np.linalg.svd(pair.b @ pair.a, compute_uv=False)
    for rank in (1, 3, 8, 12):
        found = truncate(pair, rank)
        assert found.b.shape[1] == found.a.shape[0] == rank
        off = np.linalg.norm(found.b @ found.a - pair.b @ pair.a)
        assert off == pytest.approx(np.linalg.norm(values[rank:]), abs=1e-10)
        largest = np.abs(found.b).argmax(axis=0)
        assert (found.b[largest, np.arange(rank)] >= 0).all()


def test_a_truncation_on_the_grid_is_on_it_and_repeats() -> None:
    pair = make_pairs(3, 8)[SPEC.modules[0]]
    found = truncate(pair, 4, step_log2=-11)
    for factor, again in zip(found, truncate(pair, 4, step_log2=-11), strict=True):
        assert np.array_equal(factor * 2**11, np.rint(factor * 2**11))
        assert np.array_equal(factor, again)
    free = truncate(pair, 4)
    assert np.linalg.norm(found.b @ found.a - free.b @ free.a) < 1e-2 * np.linalg.norm(free.b @ free.a)


def test_a_relative_error_is_one_against_nothing() -> None:
    pairs = make_pairs(1)
    nothing = {module: Pair(0 * pair.b, pair.a) for module, pair in pairs.items()}
    assert relative_error(nothing, pairs) == pytest.approx(1)
    assert relative_error(pairs, pairs) < 1e-14
