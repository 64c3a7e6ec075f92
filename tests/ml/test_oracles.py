"""Our rules against other people's code on random inputs: torchjd, Flower's functions, and numpy in int64.

The last is always there. The others are the extra `oracles` (`make oracles`); without it their tests are skipped, with
a line that says so. Where an oracle follows another formula than the paper, the test says in which, and compares what
both share. A failure names the round's count and seed.
"""

import importlib
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ml.aggregate import aggregate, krum
from ml.aggregate.bulyan import combine_block
from ml.distances import find_nearest
from ml.norms import gram_of_fixed_a
from ml.spec import GRID_EXTRA_BITS
from tests.ml.support import make_small_spec, make_update

SPEC = make_small_spec()
UNIT = 2**GRID_EXTRA_BITS
ROUNDS = [(count, seed) for count in (4, 5, 6, 8, 11) for seed in range(3)]
every_round = pytest.mark.parametrize(("count", "seed"), ROUNDS)


def load(name: str) -> Any:
    """An oracle's module, or a skip that says how to get it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it deprecates is not ours to mend
            return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{error}: `make oracles` installs it")


@pytest.fixture(scope="module")
def torchjd() -> Any:
    return load("torchjd.aggregation")


@pytest.fixture(scope="module")
def flower() -> Any:
    return load("flwr.server.strategy.aggregate")


def make_round(count: int, seed: int) -> dict[str, Any]:
    """Updates of unlike sizes, so that no rule finds them all alike."""
    return {f"{i:02x}": make_update(SPEC, 1_000 * seed + i, limit=10 + 9 * i) for i in range(count)}


def rows_of(updates: dict[str, Any]) -> Any:
    """int64 (n, values) in the order of roots."""
    return np.stack([np.concatenate([updates[root][m].ravel() for m in SPEC.modules]) for root in sorted(updates)])


def effective_gram(updates: dict[str, Any]) -> Any:
    """int64 (n, n): <B_i A, B_j A>, by the products' own sums instead of traces in Python integers."""
    n = len(updates)
    gram = np.zeros((n, n), np.int64)
    ordered = [updates[root] for root in sorted(updates)]
    for module, (of_a, shift) in gram_of_fixed_a(SPEC).items():
        factors = np.stack([update[module] for update in ordered]).astype(np.int64)
        gram += np.einsum("iok,kl,jol->ij", factors, of_a, factors) << shift
    return gram


def distances2_of(gram: Any) -> Any:
    return np.diag(gram)[:, None] + np.diag(gram) - 2 * gram


def ours(rule: str, updates: dict[str, Any], **options: Any) -> Any:
    """int64 (values,): the rule's result in grid steps."""
    delta = aggregate(rule, updates, SPEC, **options).delta
    return np.concatenate([delta[module].ravel() for module in SPEC.modules]).astype(np.int64)


def is_within_half_a_step(found: Any, oracle: Any) -> bool:
    """`oracle` in update steps and floats: ours is that, rounded to the grid."""
    return bool(np.abs(found - np.asarray(oracle, np.float64) * UNIT).max() <= 0.5 + 1e-6)


def chosen(rule: str, updates: dict[str, Any], **options: Any) -> list[int]:
    found = aggregate(rule, updates, SPEC, **options).coefficients_ppm
    return [index for index, root in enumerate(sorted(updates)) if found[root]]


# -- numpy, int64 -----------------------------------------------------------------------------------------------------


def mean_int64(rows: Any) -> Any:
    return rows.sum(axis=0) * UNIT, len(rows)


def median_int64(rows: Any) -> Any:
    ordered = np.sort(rows.astype(np.int64), axis=0)
    return (ordered[(len(rows) - 1) // 2] + ordered[len(rows) // 2]) * UNIT, 2


def trimmed_int64(rows: Any) -> Any:
    trim = len(rows) // 5
    by_rank = np.argsort(np.argsort(rows, axis=0, kind="stable"), axis=0)
    kept = np.where((by_rank >= trim) & (by_rank < len(rows) - trim), rows, 0)
    return kept.sum(axis=0) * UNIT, len(rows) - 2 * trim


@every_round
@pytest.mark.parametrize(
    ("rule", "oracle"), [("mean", mean_int64), ("coordinate_median", median_int64), ("trimmed_mean", trimmed_int64)]
)
def test_coordinate_rules_equal_numpy_in_int64(rule: str, oracle: Callable[[Any], Any], count: int, seed: int) -> None:
    updates = make_round(count, seed)
    numerator, denominator = oracle(rows_of(updates).astype(np.int64))
    found = ours(rule, updates)
    assert (2 * np.abs(found * denominator - numerator) <= denominator).all()
    halves = 2 * np.abs(found * denominator - numerator) == denominator
    assert (found[halves] % 2 == 0).all()


@every_round
def test_the_elected_sign_equals_numpy_in_int64(count: int, seed: int) -> None:
    updates = make_round(count, seed)
    rows = rows_of(updates).astype(np.int64)
    positive, negative = (rows > 0).sum(axis=0), (rows < 0).sum(axis=0)
    sums = np.where(positive > negative, np.maximum(rows, 0).sum(axis=0), np.minimum(rows, 0).sum(axis=0))
    voters = np.maximum(positive, negative)
    tied = positive == negative
    found = ours("sign_majority", updates)
    assert (found[tied] == 0).all()
    assert (2 * np.abs(found * voters - sums * UNIT) <= voters)[~tied].all()


@every_round
def test_krum_and_multi_krum_choose_as_numpy_in_int64(count: int, seed: int) -> None:
    updates = make_round(count, seed)
    distances2 = distances2_of(effective_gram(updates))
    f = max(0, (count - 3) // 2)
    nearest = np.sort(distances2 + np.diag([np.iinfo(np.int64).max] * count), axis=1)[:, : count - f - 2]
    order = np.argsort(nearest.sum(axis=1), kind="stable")
    assert chosen("krum", updates) == [order[0]]
    assert chosen("multi_krum", updates) == sorted(order[: count - f])


# -- torchjd ----------------------------------------------------------------------------------------------------------


def test_mean_and_trimmed_mean_equal_torchjds(torchjd: Any) -> None:
    import torch

    for count, seed in ROUNDS:
        updates = make_round(count, seed)
        matrix = torch.from_numpy(rows_of(updates).astype(np.float64))
        trimmed = torchjd.TrimmedMean(count // 5)(matrix)
        assert is_within_half_a_step(ours("mean", updates), torchjd.Mean()(matrix)), (count, seed)
        assert is_within_half_a_step(ours("trimmed_mean", updates), trimmed), (count, seed)


def test_krum_chooses_as_torchjd_but_for_its_distances(torchjd: Any) -> None:
    """It adds up distances where the paper adds up their squares: given distances, our score chooses as it does."""
    import torch

    for count, seed in ROUNDS:
        gram = effective_gram(make_round(count, seed)).astype(np.float64)
        distances = np.sqrt(distances2_of(gram)).astype(np.int64).tolist()
        f = max(0, (count - 3) // 2)
        scores = krum.compute_scores(distances, f)
        for keep in (1, count - f):
            if keep < count:
                near, far = (sorted(scores)[at] for at in (keep - 1, keep))
                assert far - near > count, (count, seed)  # no tie that rounding to integers could make or break
            weights = torchjd.KrumWeighting(f, keep)(torch.from_numpy(gram))
            assert np.flatnonzero(weights.numpy()).tolist() == sorted(find_nearest(scores, keep)), (count, seed)


# -- Flower -----------------------------------------------------------------------------------------------------------


def as_results(updates: dict[str, Any]) -> list[tuple[list[Any], int]]:
    """What Flower's functions take: a list of arrays and a number of examples a client."""
    return [([row.astype(np.float64)], 1) for row in rows_of(updates)]


def test_coordinate_rules_equal_flowers(flower: Any) -> None:
    oracles = {
        "mean": flower.aggregate,
        "coordinate_median": flower.aggregate_median,
        "trimmed_mean": lambda results: flower.aggregate_trimmed_avg(results, 0.2),
    }
    for count, seed in ROUNDS:
        updates = make_round(count, seed)
        for rule, oracle in oracles.items():
            assert is_within_half_a_step(ours(rule, updates), oracle(as_results(updates))[0]), (rule, count, seed)


def test_krum_and_multi_krum_equal_flowers(flower: Any) -> None:
    """Flower measures what it is given: here the effective change B A, in coordinates of which B A is a rotation."""
    for count, seed in ROUNDS:
        updates = make_round(count, seed)
        values, vectors = np.linalg.eigh(effective_gram(updates).astype(np.float64))
        points = vectors * np.sqrt(np.maximum(values, 0))  # rows with the same inner products
        f = max(0, (count - 3) // 2)
        best = flower.aggregate_krum([([point], 1) for point in points], f, 0)[0]
        assert [int(np.abs(points - best).sum(axis=1).argmin())] == chosen("krum", updates), (count, seed)
        kept = flower.aggregate_krum([([point], 1) for point in points], f, count - f)[0]
        mean = points[chosen("multi_krum", updates)].mean(axis=0)
        assert np.allclose(kept, mean, rtol=1e-9, atol=1e-9 * np.abs(points).max()), (count, seed)


def test_bulyans_second_step_equals_flowers(flower: Any) -> None:
    """The mean of the values nearest to the median, where no two are equally near: of such it takes either.

    The first step is not compared: with few left, Flower goes on with the first f and n - f - 2 neighbours, of which
    there are too few then; we lower f to what those left allow.
    """
    for count, f, seed in ((7, 1, 0), (7, 1, 1), (11, 2, 0), (11, 2, 1)):
        random = np.random.default_rng(seed)
        columns = np.array([random.choice(np.arange(-127, 128), count, replace=False) for _ in range(400)], np.int8).T
        rows = columns[: count - 2 * f].astype(np.float64)  # the selected
        median = np.median(rows, axis=0)
        away = np.sort(np.abs(rows - median), axis=0)
        keep = count - 4 * f
        clear = away[keep - 1] < away[keep]
        assert clear.sum() > 100
        found = combine_block(columns, [10**6] * len(rows) + [0] * (2 * f))[clear]
        oracle = flower._aggregate_n_closest_weights([median], [([row], 1) for row in rows], keep)[0][clear]
        assert is_within_half_a_step(found, oracle), (count, seed)


def test_the_oracles_rounds_have_no_ties() -> None:
    """Where two scores are equal, an oracle without our order by roots may choose the other one."""
    for count, seed in ROUNDS:
        distances2 = distances2_of(effective_gram(make_round(count, seed))).tolist()
        scores = sorted(krum.compute_scores(distances2, max(0, (count - 3) // 2)))
        assert all(one < other for one, other in pairwise(scores))
