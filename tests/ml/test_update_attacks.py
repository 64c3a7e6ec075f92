"""Attacks computed from the honest updates, against their papers' formulas worked the long way."""

import dataclasses
from fractions import Fraction
from math import erf, sqrt
from typing import Any

import numpy as np
import pytest

from ml.adapter import Update
from ml.aggregate.mean_norm_clip import compute_coefficients
from ml.attacks import AttackContext, compute_median_norm2, craft_attack, craft_for_all, to_grid
from ml.attacks.adaptive import find_references
from ml.attacks.alie import compute_z
from ml.attacks.gauge_changed_copy import change_gauge
from ml.attacks.min_max import compute_direction
from ml.attacks.split_update import split
from ml.distances import compute_distances2
from ml.judge import weigh
from ml.moments import compute_mean, compute_std
from ml.norms import cosine_ppm, gram_of_fixed_a, inner, norm2
from ml.spec import TrainSpec
from tests.ml.support import is_equal, make_small_spec, make_update

SPEC = make_small_spec()
HONEST = 6
COLLUDERS = 3


def make_context(honest: int = HONEST, colluders: int = COLLUDERS, limit: int = 30, **changes: Any) -> AttackContext:
    """Colluders that train nothing: honest updates around a common one."""
    centre = make_update(SPEC, 99, limit=limit)
    updates = {f"{index:02x}": shift(centre, make_update(SPEC, index, limit=limit)) for index in range(honest)}
    return AttackContext(
        None, SPEC, TrainSpec(1, 1, 8, 1e-3, 1), {}, honest_updates=updates, colluders=colluders, **changes
    )


def shift(update: Update, by: Update) -> Update:
    return {module: (update[module] + by[module]).astype(np.int8) for module in update}


def flatten(update: Any) -> list[int]:
    return [int(value) for module in sorted(update) for value in np.asarray(update[module]).ravel()]


def columns(context: AttackContext) -> list[tuple[int, ...]]:
    """The honest values of each coordinate."""
    return list(zip(*map(flatten, context.seen), strict=True))


def test_moments_are_those_of_exact_fractions() -> None:
    context = make_context()
    mean, std = compute_mean(context.seen), compute_std(context.seen)
    means = np.concatenate([mean[module].ravel() for module in sorted(mean)])
    stds = np.concatenate([std[module].ravel() for module in sorted(std)])
    for values, centre, spread in zip(columns(context), means, stds, strict=True):
        exact = Fraction(sum(values), HONEST)
        variance = sum((value - exact) ** 2 for value in values) / HONEST
        assert centre == pytest.approx(float(exact), abs=1e-12)
        assert spread == pytest.approx(sqrt(variance), abs=1e-12)


@pytest.mark.parametrize(
    ("count", "colluders", "share"),
    [
        (50, 12, Fraction(24, 38)),  # s = 26 - 12 = 14 supporters of 38 honest
        (10, 4, Fraction(4, 6)),
        (10, 2, Fraction(1, 2)),  # z = 0: nothing hides
        (9, 3, Fraction(2, 3)),
    ],
)
def test_alie_goes_as_far_as_its_supporters_allow(count: int, colluders: int, share: Fraction) -> None:
    """Phi(z) is the share of honest workers nearer to the centre than the attackers, in the paper's algorithm 3."""
    z = compute_z(count, colluders)
    assert (1 + erf(z / sqrt(2))) / 2 == pytest.approx(float(share), abs=1e-12)


def test_alie_is_the_mean_less_z_deviations() -> None:
    context = make_context()
    z = compute_z(HONEST + COLLUDERS, COLLUDERS)
    for own, values in zip(flatten(craft_attack("alie", context)), columns(context), strict=True):
        mean = sum(values) / HONEST
        assert abs(own - (mean - z * sqrt(sum((value - mean) ** 2 for value in values) / HONEST))) <= 0.5 + 1e-9
    assert is_equal(*craft_for_all("alie", make_context(colluders=2)))


def test_a_majority_need_not_hide() -> None:
    with pytest.raises(ValueError, match="6 of 10 are a majority"):
        craft_attack("alie", make_context(honest=4, colluders=6))


@pytest.mark.parametrize(("epsilon_milli", "is_reversed"), [(500, False), (1_900, False), (2_100, True)])
def test_ipm_reverses_the_mean_from_epsilon_of_honest_over_colluders(epsilon_milli: int, is_reversed: bool) -> None:
    """With 6 honest and 3 colluders that is epsilon > 2."""
    context = make_context(limit=20)
    crafted = craft_for_all("ipm", context, epsilon_milli=epsilon_milli)
    for own, values in zip(flatten(crafted[0]), columns(context), strict=True):
        assert abs(own + epsilon_milli / 1_000 * sum(values) / HONEST) <= 0.5 + 1e-9
    honest = np.sum([flatten(update) for update in context.seen], axis=0, dtype=np.int64)
    total = honest + np.sum([flatten(update) for update in crafted], axis=0, dtype=np.int64)
    assert (int(total @ honest) < 0) == is_reversed


def test_the_parts_of_a_split_update_have_the_poisoned_one_as_their_mean() -> None:
    honest, poisoned = make_update(SPEC, 1, limit=20), make_update(SPEC, 2, limit=20)
    parts = [split(honest, poisoned, colluder, COLLUDERS) for colluder in range(COLLUDERS)]
    assert np.mean([flatten(part) for part in parts], axis=0).tolist() == flatten(poisoned)
    for part in parts:
        honest_modules = [module for module in part if np.array_equal(part[module], honest[module])]
        assert len(honest_modules) == len(part) - len(part) // COLLUDERS


def test_a_split_needs_two() -> None:
    context = make_context(colluders=1)
    with pytest.raises(ValueError, match="over two colluders or more"):
        craft_attack("split_update", context)
    with pytest.raises(ValueError, match="needs a goal"):
        craft_attack("split_trigger", dataclasses.replace(context, colluders=2))


# -- distance-bound attacks -------------------------------------------------------------------------------------------


def measure(one: Any, other: Any) -> int:
    """|one A - other A|^2 of the effective changes, not of the factors."""
    return compute_distances2({"a": one, "b": other}, SPEC)[0][1]


@pytest.mark.parametrize("direction", ["std", "mean", "sign"])
@pytest.mark.parametrize(("name", "combine"), [("min_max", max), ("min_sum", sum)])
def test_a_distance_bound_is_kept_and_used_up(name: str, combine: Any, direction: str) -> None:
    """Reached but for what rounding to the grid takes, and a tenth farther out it is broken."""
    context = make_context(limit=15)
    matrix = compute_distances2(context.honest_updates, SPEC)
    bound = max(map(combine, matrix))
    update = craft_attack(name, context, direction=direction)
    assert max(map(abs, flatten(update))) < 127
    reached = combine(measure(update, other) for other in context.seen)
    assert bound * 97 // 100 <= reached <= bound
    mean, away = compute_mean(context.seen), compute_direction(context.seen, direction)
    module = max(away, key=lambda name: float(np.abs(away[name]).max()))
    at = np.unravel_index(np.abs(away[module]).argmax(), away[module].shape)
    factor = (update[module][at] - mean[module][at]) / away[module][at]
    farther = to_grid({name: mean[name] + 1.1 * factor * away[name] for name in mean})
    assert combine(measure(farther, other) for other in context.seen) > bound


def test_min_sum_is_the_stricter_of_the_two() -> None:
    context = make_context(limit=15)
    centre = to_grid(compute_mean(context.seen))
    assert measure(craft_attack("min_sum", context), centre) < measure(craft_attack("min_max", context), centre)
    with pytest.raises(ValueError, match="unknown direction 'up'; known: mean, sign, std"):
        craft_attack("min_max", context, direction="up")


def test_equal_honest_updates_leave_no_room() -> None:
    same = make_update(SPEC, 5, limit=30)
    context = dataclasses.replace(make_context(), honest_updates={"00": same, "01": same})
    assert is_equal(craft_attack("min_max", context), same)
    assert is_equal(craft_attack("min_sum", context), same)


def test_mimic_sends_the_update_of_the_odd_one_out() -> None:
    """Five near a common update and one of another domain: the leading direction is between them."""
    centre, other = make_update(SPEC, 1, limit=20), make_update(SPEC, 2, limit=60)
    updates = {f"{index:02x}": shift(centre, make_update(SPEC, 10 + index, limit=3)) for index in range(5)}
    context = dataclasses.replace(make_context(), honest_updates=updates | {"aa": other})
    assert all(is_equal(update, other) for update in craft_for_all("mimic", context))


# -- free riders ------------------------------------------------------------------------------------------------------


def cosine(one: Update, other: Update) -> int:
    return cosine_ppm(inner(one, other, SPEC), norm2(one, SPEC), norm2(other, SPEC))


@pytest.mark.parametrize(
    ("name", "options", "is_caught"),
    [
        ("exact_copy", {}, True),
        ("near_copy", {"noise_milli": 50}, True),
        ("near_copy", {"noise_milli": 120}, True),
        ("near_copy", {"noise_milli": 300}, False),
        ("gauge_changed_copy", {"scale_milli": 700}, True),
        ("gauge_changed_copy", {"scale_milli": 1_500}, True),
        ("free_ride", {"how": "stale"}, False),
        ("free_ride", {"how": "random"}, False),
    ],
)
def test_the_cosine_of_ba_sees_copies_but_not_every_free_rider(
    name: str, options: dict[str, Any], is_caught: bool
) -> None:
    """By the committee's own check of a round's updates, the free rider's having come last."""
    honest = {f"{index:02x}": make_update(SPEC, index, limit=60) for index in range(3)}
    before = {"aa": make_update(SPEC, 50, limit=60)}
    context = dataclasses.replace(make_context(), honest_updates=honest, previous_updates=before)
    updates = honest | {"ff": craft_attack(name, context, **options)}
    norms2 = {root: norm2(update, SPEC) for root, update in updates.items()}
    assert weigh(updates, norms2, SPEC).copies == ({"ff": "00"} if is_caught else {})


@pytest.mark.parametrize("noise_milli", [50, 100, 142, 300])
def test_a_near_copy_has_the_cosine_that_its_noise_says(noise_milli: int) -> None:
    context = make_context(limit=60)
    found = cosine(craft_attack("near_copy", context, noise_milli=noise_milli), context.seen[0])
    assert found / 1e6 == pytest.approx((1 + (noise_milli / 1e3) ** 2) ** -0.5, abs=0.02 * noise_milli / 1e3 + 1e-4)


def test_a_gauge_change_leaves_the_product_and_nothing_else() -> None:
    random = np.random.default_rng(4)
    b, a = random.standard_normal((24, 8)).astype(np.float32), random.standard_normal((8, 16)).astype(np.float32)
    other_b, other_a = change_gauge(b, a, seed=1)
    assert not np.array_equal(other_b, b)
    assert other_b.dtype == other_a.dtype == np.float32
    products = [sorted((b[i, k] * a[k, j]).tobytes() for k in range(8)) for i in range(24) for j in range(16)]
    changed = [
        sorted((other_b[i, k] * other_a[k, j]).tobytes() for k in range(8)) for i in range(24) for j in range(16)
    ]
    assert changed == products


def test_a_shared_a_has_full_rank_so_that_no_gauge_is_left() -> None:
    for gram, _ in gram_of_fixed_a(SPEC).values():
        assert np.linalg.matrix_rank(gram.astype(np.float64)) == SPEC.rank


def test_a_zero_update_is_free_and_refused() -> None:
    """|BA| = 0: ingress and every rule say so."""
    zero = craft_attack("free_ride", make_context(), how="zero")
    assert not any(map(any, (values.ravel() for values in zero.values())))
    with pytest.raises(ValueError, match="is zero"):
        compute_coefficients({"00": norm2(zero, SPEC)})


def test_free_noise_is_as_large_as_the_round_before() -> None:
    before = {f"{index:02x}": make_update(SPEC, index, limit=20 + index) for index in range(3)}
    context = dataclasses.replace(make_context(), previous_updates=before)
    limit2 = compute_median_norm2(list(before.values()), SPEC)
    assert limit2 * 3 // 4 < norm2(craft_attack("free_ride", context), SPEC) <= limit2
    with pytest.raises(ValueError, match="no update 0 of the round before"):
        craft_attack("free_ride", make_context(), how="stale")
    with pytest.raises(ValueError, match="unknown free ride 'bus'"):
        craft_attack("free_ride", make_context(), how="bus")
    with pytest.raises(ValueError, match="no update 9 to copy: 6 are seen"):
        craft_attack("exact_copy", make_context(), whose=9)


def test_an_adaptive_attacker_likens_itself_to_the_round_else_to_the_one_before() -> None:
    before = {"00": make_update(SPEC, 1), "01": make_update(SPEC, 2)}
    seeing = dataclasses.replace(make_context(), previous_updates=before)
    assert len(find_references(seeing, 2)) == HONEST
    remembering = dataclasses.replace(seeing, honest_updates={})
    assert all(map(is_equal, find_references(remembering, 2), before.values()))
