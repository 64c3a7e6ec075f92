"""Robust rules against their papers: each formula the long way, what breaks them and what does not, known traps.

Traps in which other libraries were caught, and the test that keeps us out of each:

| trap | test |
|---|---|
| Krum with n - f - 1 neighbours | `test_krum_counts_n_minus_f_minus_2_neighbours` |
| distances of clustered points that cancel in float32 | `test_clustered_points_keep_their_exact_distances` |
| a geometric median whose smoothing makes it a mean | `test_the_geometric_median_of_small_updates_is_no_mean` |
| one that 64 steps do not bring back from a far start | `test_what_a_rule_withstands_and_where_it_breaks` |
| NaN that wins a comparison | `test_what_is_no_int8_never_enters_a_sum` |
| a step taken from the submissions, so that one zeroes all | `test_one_huge_coordinate_takes_nothing_from_anyone` |
| sums that depend on order, threads, CPU flags | `test_threads_flags_and_orders_give_the_same_bytes` (aggregate) |
| int8 products off by CPU (`torch._int_mm`) | `test_norms_are_exact_for_more_rows_than_fit_one_product` |
| `torch.randn`'s other bits on other CPUs | `test_the_fixed_a_is_pinned` (train) |
| factors averaged apart | `test_averaging_both_factors_is_not_the_mean` (LoRA modes) |
| robust rules that drop a minority domain | `test_robust_rules_take_from_a_minority_domain` |
"""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from ml.adapter import Update
from ml.aggregate import (
    MIXING,
    aggregate,
    bulyan,
    centered_clipping,
    geometric_median,
    get_rule,
    krum,
    list_rules,
    mean_norm_clip,
)
from ml.distances import compute_distances2, find_nearest
from ml.mixing import mix_neighbours
from ml.norms import ROWS, gram_of_fixed_a, inner, norm2
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

COUNT = 11
TOLERATED: dict[str, tuple[int, int]] = {
    "mean": (0, 1),
    "mean_norm_clip": (5, 6),
    "coordinate_median": (5, 6),
    "trimmed_mean": (2, 3),
    "krum": (4, 6),
    "multi_krum": (4, 5),
    "bulyan": (2, 6),
    "geometric_median": (5, 6),
    "centered_clipping": (5, 6),
    "sign_majority": (5, 6),
}
"""Of 11 inputs: how many colluding ones the paper's bound allows, and the first number of them that breaks the rule.

Colluders who all say the same far value are not the worst for Krum and Bulyan, which fall later than their bound.
"""


def place(rule: str, points: list[int]) -> float:
    """Where a rule puts points on a line, in its own integers; coordinate rules see them saturated at +-127."""
    count = len(points)
    distances2 = [[(one - other) ** 2 for other in points] for one in points]
    blocks = np.clip(np.array(points, object), -127, 127).astype(np.int8)[:, None]
    coefficients = [10**6] * count
    if rule in ("krum", "multi_krum"):
        scores = krum.compute_scores(distances2, krum.count_tolerated(count))
        kept = find_nearest(scores, 1 if rule == "krum" else count - krum.count_tolerated(count))
        return float(sum(points[index] for index in kept) / len(kept))
    if rule == "geometric_median":
        weights = geometric_median.compute_weights(distances2)
        return sum(w * point for w, point in zip(weights, points, strict=True)) / sum(weights)
    if rule in ("centered_clipping", "mean_norm_clip"):
        gram = [[one * other for other in points] for one in points]
        if rule == "mean_norm_clip":
            norms2 = {f"{index:03}": gram[index][index] for index in range(count)}
            weights = list(mean_norm_clip.compute_coefficients(norms2).values())
        else:
            weights = centered_clipping.compute_coefficients(gram)
        return sum(w * point for w, point in zip(weights, points, strict=True)) / (count * 10**6)
    if rule == "bulyan":
        selected = bulyan.select(distances2, bulyan.count_tolerated(count))
        coefficients = [10**6 if index in selected else 0 for index in range(count)]
    return float(get_rule(rule).combine_block(blocks, coefficients)[0]) / SCALE


def make_points(malicious: int, far: int, count: int = COUNT) -> list[int]:
    """Honest ones at 1, 2 and 3, the others all at the same far place on the other side."""
    return [1 + index % 3 for index in range(count - malicious)] + [-far] * malicious


@pytest.mark.parametrize("rule", list_rules())
@pytest.mark.parametrize("far", [127, 10**6, 10**30])
def test_what_a_rule_withstands_and_where_it_breaks(rule: str, far: int) -> None:
    """No larger than the largest honest value up to its bound, and far beyond it from the first number that breaks."""
    bound, breaks = TOLERATED[rule]
    for malicious in range(breaks + 1):
        reached = abs(place(rule, make_points(malicious, far)))
        assert reached <= 3 if malicious < breaks else reached > 9, f"{malicious} of {COUNT}: {reached}"
    assert bound < breaks


@pytest.mark.parametrize("rule", ["coordinate_median", "geometric_median", "centered_clipping", "mean_norm_clip"])
@pytest.mark.parametrize("count", [21, 101])
def test_a_breakdown_point_of_a_half_is_that_in_large_rounds(rule: str, count: int) -> None:
    assert abs(place(rule, make_points((count - 1) // 2, 10**30, count))) <= 3
    assert abs(place(rule, make_points((count + 1) // 2, 10**30, count))) > 9


@pytest.mark.parametrize("rule", ["krum", "multi_krum", "bulyan"])
def test_ties_go_to_the_lowest_roots(rule: str) -> None:
    """Equal updates under roots of any order: those with the lowest roots are chosen."""
    keep = {"krum": 1, "multi_krum": 5, "bulyan": 5}[rule]  # n = 7: n - f with f = 2, n - 2f with f = 1
    update = make_update(SPEC, 1)
    for seed in range(5):
        roots = [f"{value:04x}" for value in np.random.default_rng(seed).choice(2**16, 7, replace=False)]
        found = aggregate(rule, dict.fromkeys(roots, update), SPEC).coefficients_ppm
        assert [root for root in found if found[root]] == sorted(roots)[:keep], f"seed {seed}"


def test_mixing_gives_ties_to_the_lowest_roots() -> None:
    """Of three at the same distance, the one with the lowest root is the neighbour."""
    module = SPEC.modules[0]
    updates = {root: {name: np.zeros((out, SPEC.rank), np.int8) for name, out, _ in SPEC.shapes} for root in "abcd"}
    for row, root in enumerate("bcd"):
        updates[root][module][row, 0] = 100  # equally far from a, which is zero
    mixed = mix_neighbours(updates, SPEC, malicious=1)["a"][module]
    assert np.flatnonzero(mixed.any(axis=1)).tolist() == [0, 1]


def test_norms_are_exact_for_more_rows_than_fit_one_product() -> None:
    rows = ROWS + 1_000
    spec = make_small_spec(rank=2, shapes=(("model.layers.0.self_attn.q_proj", rows, 16),))
    of_a = gram_of_fixed_a(spec)[spec.modules[0]][0]
    for value in (127, -127):
        full = {spec.modules[0]: np.full((rows, 2), value, np.int8)}
        assert norm2(full, spec) == rows * 127**2 * int(of_a.sum())


def test_robust_rules_take_from_a_minority_domain() -> None:
    """Eight honest trainers, two of them of a domain of their own: what is left of their direction against the mean.

    Why the default is no robust rule, and why nobody is left out by one alone: the fight against a minority of
    attackers is a fight against a minority domain too.
    """
    module, updates = SPEC.modules[1], make_round(8)
    for root in ("06", "07"):
        updates[root][module] += 25
    without = make_round(8)

    def left(rule: str) -> float:
        moved, still = aggregate(rule, updates, SPEC).delta, aggregate(rule, without, SPEC).delta
        return float((moved[module] - still[module]).sum())

    share = {rule: left(rule) / left("mean") for rule in list_rules()}
    assert abs(share["krum"]) < 0.1
    assert abs(share["multi_krum"]) < 0.1
    assert abs(share["coordinate_median"]) < 0.5
    assert 0.5 < share["trimmed_mean"] < 0.9
    assert share["mean_norm_clip"] > 0.5


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
