"""Robust rules against their papers: each formula the long way, what breaks them and what does not, known traps."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from ml.adapter import Update
from ml.aggregate import MIXING, aggregate, centered_clipping, geometric_median, krum, list_rules
from ml.distances import compute_distances2, find_nearest
from ml.mixing import mix_neighbours
from ml.norms import inner, norm2
from tests.ml.support import is_equal, make_small_spec, make_update

SPEC = make_small_spec()
SCALE = 2**8
HONEST_LIMIT = 20


def make_round(honest: int, malicious: int = 0, seed: int = 0, value: int = 127) -> dict[str, Update]:
    """Honest updates around a common one, and colluding ones that are all `value`; the malicious have the last ids."""
    centre = make_update(SPEC, 1_000 + seed, limit=HONEST_LIMIT - 5)
    updates = {}
    for index in range(honest):
        noise = make_update(SPEC, 2_000 + 100 * seed + index, limit=5)
        updates[f"{index:02x}"] = {name: (centre[name] + noise[name]).astype(np.int8) for name in centre}
    for index in range(malicious):
        updates[f"f{index:x}"] = {name: np.full_like(values, value) for name, values in centre.items()}
    return updates


def flatten(update: dict[str, Any]) -> Any:
    return np.concatenate([np.asarray(update[name], np.float64).ravel() for name in sorted(update)])


def effective(update: Update) -> Any:
    """B A of every module, flat, in float64: what distances are about."""
    from ml.lora import fixed_a

    parts = []
    for module, _, in_features in SPEC.shapes:
        values, step = fixed_a(SPEC, module, in_features)
        parts.append((update[module].astype(np.float64) @ values.astype(np.float64)).ravel() * 2.0**step)
    return np.concatenate(parts)


def krum_scores_long_way(points: list[Any], f: int) -> list[float]:
    scores = []
    for i, point in enumerate(points):
        others = sorted(float(((point - other) ** 2).sum()) for j, other in enumerate(points) if j != i)
        scores.append(sum(others[: len(points) - f - 2]))
    return scores


# -- distances --------------------------------------------------------------------------------------------------------


def test_distances_are_those_of_the_effective_change() -> None:
    updates = make_round(4)
    points = [effective(updates[root]) for root in sorted(updates)]
    found = compute_distances2(updates, SPEC)
    unit = found[0][1] / ((points[0] - points[1]) ** 2).sum()
    for i, j in combinations(range(4), 2):
        assert found[i][j] == found[j][i]
        assert found[i][j] / unit == pytest.approx(((points[i] - points[j]) ** 2).sum())
    assert all(found[i][i] == 0 for i in range(4))


def test_clustered_points_keep_their_exact_distances() -> None:
    """`torch.cdist` is off by factors here: |x|^2 + |y|^2 - 2<x, y> in float32 cancels."""
    one = {name: np.full((out, SPEC.rank), 127, np.int8) for name, out, _ in SPEC.shapes}
    other = {name: values.copy() for name, values in one.items()}
    other[SPEC.modules[0]][0, 0] = 126
    difference = {name: one[name] - other[name] for name in one}
    assert compute_distances2({"a": one, "b": other}, SPEC)[0][1] == norm2(difference, SPEC) > 0


def test_the_nearest_are_found_with_ties_to_the_lowest() -> None:
    assert find_nearest([5, 1, 3, 1], 3) == [1, 3, 2]


# -- each formula the long way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("honest", "malicious"), [(5, 0), (5, 2), (8, 3)])
def test_krum_and_multi_krum_choose_by_the_papers_score(honest: int, malicious: int, seed: int) -> None:
    updates = make_round(honest, malicious, seed)
    roots = sorted(updates)
    f = (len(roots) - 3) // 2
    scores = krum_scores_long_way([effective(updates[root]) for root in roots], f)
    by_score = sorted(range(len(roots)), key=lambda i: (round(scores[i], 9), i))
    chosen = aggregate("krum", updates, SPEC).coefficients_ppm
    assert [root for root in roots if chosen[root]] == [roots[by_score[0]]]
    kept = aggregate("multi_krum", updates, SPEC).coefficients_ppm
    assert {root for root in roots if kept[root]} == {roots[i] for i in by_score[: len(roots) - f]}


def test_krum_counts_n_minus_f_minus_2_neighbours() -> None:
    """A library that takes one more chooses another update here: 0 has one near and one far neighbour."""
    on_a_line = [0, 10, 14, 18, 100]
    distances2 = [[(a - b) ** 2 for b in on_a_line] for a in on_a_line]
    assert krum.compute_scores(distances2, 1) == [296, 80, 32, 80, 14120]
    assert krum.compute_scores(distances2, 0) == [620, 180, 228, 404, 22220]


def test_bulyan_is_krum_again_and_again_then_the_values_around_the_median() -> None:
    updates = make_round(9, 2, seed=3)  # n = 11, f = 2
    left = sorted(updates)
    selected = []
    for _ in range(11 - 4):
        points = [effective(updates[root]) for root in left]
        scores = krum_scores_long_way(points, min(2, max(0, (len(left) - 3) // 2)))
        selected.append(left.pop(int(np.argmin(scores))))
    delta = flatten(aggregate("bulyan", updates, SPEC).delta)
    columns = np.sort(np.stack([flatten(updates[root]) for root in selected]), axis=0).astype(int)
    for at in range(0, columns.shape[1], 7):
        column = columns[:, at].tolist()
        windows = [column[start : start + 3] for start in range(7 - 3 + 1)]
        nearest = min(windows, key=lambda window: sum(abs(value - column[3]) for value in window))
        assert delta[at] == round(Fraction(sum(nearest) * SCALE, 3))


@pytest.mark.parametrize("seed", range(3))
def test_the_geometric_median_is_where_floats_find_it(seed: int) -> None:
    updates = make_round(6, 2, seed)
    points = np.stack([effective(updates[root]) for root in sorted(updates)])
    z = points.mean(axis=0)
    for _ in range(500):
        w = 1 / np.maximum(np.linalg.norm(points - z, axis=1), 1e-12)
        z = (w[:, None] * points).sum(axis=0) / w.sum()
    found = aggregate("geometric_median", updates, SPEC).coefficients_ppm
    weights = np.array([found[root] for root in sorted(updates)], float)
    ours = (weights[:, None] * points).sum(axis=0) / weights.sum()
    assert np.linalg.norm(ours - z) < 1e-4 * np.linalg.norm(points - z, axis=1).mean()


def test_the_geometric_median_of_small_updates_is_no_mean() -> None:
    """A library whose smoothing is absolute gives the mean for vectors as short as these."""
    updates = {
        "0": make_update(SPEC, 1, limit=1),
        "1": make_update(SPEC, 2, limit=1),
        "2": make_update(SPEC, 1, limit=1),
    }
    weights = aggregate("geometric_median", updates, SPEC).coefficients_ppm
    assert weights["1"] * 100 < weights["0"] == weights["2"]


def test_a_far_attacker_does_not_blur_the_geometric_median() -> None:
    near = [[0, 4, 9], [4, 0, 1], [9, 1, 0]]
    far = 10**18
    with_attacker = [[*row, far] for row in near] + [[far, far, far, 0]]
    weights = geometric_median.compute_weights(with_attacker)
    assert weights[1] == max(weights)
    assert weights[3] < 1_000


@pytest.mark.parametrize("seed", range(3))
def test_centered_clipping_is_where_floats_find_it(seed: int) -> None:
    updates = make_round(6, 2, seed)
    points = np.stack([effective(updates[root]) for root in sorted(updates)])
    tau = np.sort(np.linalg.norm(points, axis=1))[3]
    v = np.zeros(points.shape[1])
    for _ in range(centered_clipping.STEPS):
        differences = points - v
        clip = np.minimum(1, tau / np.maximum(np.linalg.norm(differences, axis=1), 1e-12))
        v = v + (clip[:, None] * differences).mean(axis=0)
    found = aggregate("centered_clipping", updates, SPEC).coefficients_ppm
    weights = np.array([found[root] for root in sorted(updates)], float) / (8 * 1e6)
    assert np.linalg.norm((weights[:, None] * points).sum(axis=0) - v) < 1e-4 * tau


def test_the_sign_of_the_majority_with_the_mean_of_those_who_have_it() -> None:
    from ml.aggregate.sign_majority import combine_block

    blocks = np.array([[3, 1, -5, 0, 7], [5, -1, -6, 0, 0], [-9, 0, 100, 4, 0]], np.int8)
    found = combine_block(blocks, [10**6] * 3)
    assert found.tolist() == [4 * SCALE, 0, round(Fraction(-11 * SCALE, 2)), 4 * SCALE, 7 * SCALE]


def test_a_mean_takes_weights_in_experiments() -> None:
    updates = make_round(2)
    found = aggregate("mean", updates, SPEC, weights_ppm={"00": 750_000, "01": 250_000})
    expected = 0.75 * flatten(updates["00"]) + 0.25 * flatten(updates["01"])
    assert np.abs(flatten(found.delta) / SCALE - expected).max() <= 0.5 / SCALE


# -- what holds, and what breaks --------------------------------------------------------------------------------------

WITHSTANDS: dict[str, tuple[int, int]] = {
    "coordinate_median": (5, 4),
    "trimmed_mean": (8, 2),
    "krum": (6, 3),
    "multi_krum": (6, 3),
    "bulyan": (9, 2),
    "geometric_median": (5, 4),
    "sign_majority": (5, 4),
}
"""Honest and malicious inputs at each rule's breakdown point: colluding extremes that all say 127."""


def largest(updates: dict[str, Update], rule: str) -> float:
    return float(np.abs(flatten(aggregate(rule, updates, SPEC).delta)).max() / SCALE)


@pytest.mark.parametrize("rule", ["coordinate_median", "trimmed_mean", "krum", "bulyan"])
@pytest.mark.parametrize("value", [127, -127])
def test_at_its_breakdown_point_the_result_stays_among_the_honest(rule: str, value: int) -> None:
    honest, malicious = WITHSTANDS[rule]
    updates = make_round(honest, malicious, value=value)
    assert largest(updates, rule) <= HONEST_LIMIT
    assert largest(make_round(1, honest + malicious, value=value), rule) == 127


def test_a_trimmed_mean_breaks_with_one_more() -> None:
    assert largest(make_round(7, 3), "trimmed_mean") > HONEST_LIMIT


def test_a_mean_breaks_with_one() -> None:
    assert largest(make_round(4, 1), "mean") > HONEST_LIMIT


@pytest.mark.parametrize("rule", ["mean_norm_clip", "centered_clipping", "geometric_median"])
def test_a_minority_moves_a_bounded_rule_less_than_a_mean(rule: str) -> None:
    """These rules bound how far the malicious pull, they do not shut them out."""
    clean, attacked = make_round(6), make_round(6, 3)
    pull = {
        name: np.linalg.norm(
            flatten(aggregate(name, attacked, SPEC).delta) - flatten(aggregate(name, clean, SPEC).delta)
        )
        for name in (rule, "mean")
    }
    assert 2 * pull[rule] < pull["mean"]


@pytest.mark.parametrize(
    "rule", ["coordinate_median", "krum", "multi_krum", "bulyan", "geometric_median", "mean", "trimmed_mean"]
)
def test_a_shift_of_all_inputs_shifts_the_result(rule: str) -> None:
    updates = make_round(7)
    shift = make_update(SPEC, 9, limit=50)
    moved = {root: {n: (values + shift[n]).astype(np.int8) for n, values in u.items()} for root, u in updates.items()}
    before, after = aggregate(rule, updates, SPEC).delta, aggregate(rule, moved, SPEC).delta
    assert is_equal(after, {name: before[name] + SCALE * shift[name].astype(np.int32) for name in before})


@pytest.mark.parametrize(
    ("rule", "sentence"), [("krum", "at most 2 of 7"), ("multi_krum", "at most 2 of 7"), ("bulyan", "at most 1 of 7")]
)
def test_more_malicious_inputs_than_a_rule_withstands_are_refused(rule: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        aggregate(rule, make_round(7), SPEC, malicious=3)


@pytest.mark.parametrize("rule", list_rules())
@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e30])
def test_what_is_no_int8_never_enters_a_sum(rule: str, broken: float) -> None:
    """Floats end at ingress; a rule refuses them all the same, so that no NaN can ever win a comparison."""
    updates: dict[str, Any] = make_round(4)
    updates["00"] = {name: np.full(values.shape, broken) for name, values in updates["00"].items()}
    with pytest.raises(AssertionError):
        aggregate(rule, updates, SPEC)


# -- nearest-neighbour mixing -----------------------------------------------------------------------------------------


def test_mixing_replaces_each_by_the_mean_of_its_nearest() -> None:
    updates = make_round(5, 2)
    roots = sorted(updates)
    points = [effective(updates[root]) for root in roots]
    mixed = mix_neighbours(updates, SPEC, malicious=2)
    for i, root in enumerate(roots):
        near = sorted(range(7), key=lambda j: (((points[i] - points[j]) ** 2).sum().round(9), j))[:5]
        total = sum(flatten(updates[roots[j]]) for j in near)
        assert flatten(mixed[root]).tolist() == [round(Fraction(int(value), 5)) for value in total]


def test_mixing_goes_before_any_rule_and_needs_a_majority() -> None:
    updates = make_round(5, 2)
    for rule in list_rules():
        if rule != "mean_norm_clip":
            assert is_equal(
                aggregate(MIXING + rule, updates, SPEC).delta,
                aggregate(rule, mix_neighbours(updates, SPEC), SPEC).delta,
            )
    with pytest.raises(ValueError, match="at most 3 of 7"):
        mix_neighbours(updates, SPEC, malicious=4)


def test_mixing_draws_differing_honest_updates_together() -> None:
    updates = make_round(7)
    spread: Callable[[dict[str, Update]], int] = lambda found: sum(map(sum, compute_distances2(found, SPEC)))  # noqa: E731
    assert 2 * spread(mix_neighbours(updates, SPEC)) < spread(updates)


def test_inner_products_are_symmetric() -> None:
    one, two = make_round(2).values()
    assert inner(one, two, SPEC) == inner(two, one, SPEC)
