"""Aggregation: the same integers whatever the order, block and number of threads; norms exact from the factors."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from math import isqrt
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.adapter import Update
from ml.aggregate import MIXING, add_to_global, aggregate, divide_half_even, get_rule, list_rules
from ml.aggregate.mean_norm_clip import compute_coefficients
from ml.lora import fixed_a
from ml.norms import cosine_ppm, inner, norm2
from ml.spec import GLOBAL_LIMIT
from tests.ml.support import MODULES, is_equal, make_global, make_small_spec, make_update

SPEC = make_small_spec()
UPDATES = {f"{seed:02x}": make_update(SPEC, seed, limit=10 * (seed + 1)) for seed in range(7)}
RULES = list_rules()


def half_even(value: Fraction) -> int:
    return round(value)  # Fraction.__round__ rounds halves to even


def sum_of_squares(update: Update, other: Update) -> int:
    """<B A, B' A> the long way: every entry of the products, in Python integers."""
    finest = min(fixed_a(SPEC, module, in_features)[1] for module, _, in_features in SPEC.shapes)
    total = 0
    for module, _, in_features in SPEC.shapes:
        values, step = fixed_a(SPEC, module, in_features)
        a = values.astype(object)
        one, two = update[module].astype(object) @ a, other[module].astype(object) @ a
        total += int((one * two).sum()) << 2 * (step - finest)
    return total


def expected_mean(updates: dict[str, Update]) -> dict[str, Any]:
    """The formula of docs/protocol.md, coordinate by coordinate in fractions."""
    n2 = {root: sum_of_squares(update, update) for root, update in updates.items()}
    threshold = sorted(n2.values())[(len(n2) - 1) // 2]
    k = {root: min(10**6, isqrt(threshold * 10**12 // value)) for root, value in n2.items()}
    result = {}
    for module, out, _ in SPEC.shapes:
        values = np.zeros((out, SPEC.rank), np.int32)
        for at in np.ndindex(values.shape):
            total = sum(k[root] * int(update[module][at]) for root, update in updates.items())
            values[at] = half_even(Fraction(total * 2**8, len(updates) * 10**6))
        result[module] = values
    return result


def median_of(column: list[int]) -> int:
    ordered, n = sorted(column), len(column)
    return half_even(Fraction((ordered[(n - 1) // 2] + ordered[n // 2]) * 2**8, 2))


def trimmed_mean_of(column: list[int]) -> int:
    trim = len(column) // 5
    kept = sorted(column)[trim : len(column) - trim]
    return half_even(Fraction(sum(kept) * 2**8, len(kept)))


def test_the_spec_has_modules_with_different_steps_of_a() -> None:
    assert len({fixed_a(SPEC, module, in_features)[1] for module, _, in_features in MODULES}) > 1


def test_norms_and_inner_products_equal_the_long_way() -> None:
    one, two = UPDATES["01"], UPDATES["02"]
    assert norm2(one, SPEC) == sum_of_squares(one, one)
    assert inner(one, two, SPEC) == inner(two, one, SPEC) == sum_of_squares(one, two)


def test_torch_tensors_weigh_the_same() -> None:
    import torch

    tensors = {name: torch.from_numpy(values.copy()) for name, values in UPDATES["03"].items()}
    assert norm2(tensors, SPEC) == norm2(UPDATES["03"], SPEC)


def test_norms_stay_exact_at_the_largest_values() -> None:
    full = {module: np.full((out, SPEC.rank), 127, np.int8) for module, out, _ in SPEC.shapes}
    assert norm2(full, SPEC) == sum_of_squares(full, full)


def test_a_cosine_is_one_with_itself_and_minus_one_with_its_opposite() -> None:
    update = UPDATES["01"]
    n2 = norm2(update, SPEC)
    opposite = {name: -values for name, values in update.items()}
    assert cosine_ppm(n2, n2, n2) == 1_000_000
    assert cosine_ppm(inner(update, opposite, SPEC), n2, n2) == -1_000_000


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_the_mean_is_the_formula(count: int) -> None:
    updates = dict(list(UPDATES.items())[:count])
    assert is_equal(aggregate("mean_norm_clip", updates, SPEC).delta, expected_mean(updates))


@pytest.mark.parametrize(("rule", "of_column"), [("coordinate_median", median_of), ("trimmed_mean", trimmed_mean_of)])
@pytest.mark.parametrize("count", [1, 2, 5, 6, 7])
def test_median_and_trimmed_mean_are_their_formulas(
    rule: str, of_column: Callable[[list[int]], int], count: int
) -> None:
    updates = dict(list(UPDATES.items())[:count])
    delta = aggregate(rule, updates, SPEC).delta
    for module, out, _ in SPEC.shapes:
        for at in np.ndindex(out, SPEC.rank):
            assert delta[module][at] == of_column([int(update[module][at]) for update in updates.values()])


def test_coefficients_clip_to_the_lower_median_and_never_stretch() -> None:
    n2 = {"a": 100, "b": 400, "c": 900, "d": 10**30}
    assert compute_coefficients(n2) == {"a": 10**6, "b": 10**6, "c": 666_666, "d": isqrt(400 * 10**12 // 10**30)}
    assert compute_coefficients(n2, norm_cap=100) == {"a": 10**6, "b": 500_000, "c": 333_333, "d": 0}


def test_a_zero_update_and_an_empty_round_are_refused() -> None:
    zero = {name: np.zeros_like(values) for name, values in UPDATES["01"].items()}
    with pytest.raises(ValueError, match="update 00 is zero"):
        aggregate("mean_norm_clip", {"00": zero, "01": UPDATES["01"]}, SPEC)
    for rule in RULES:
        with pytest.raises(ValueError, match="no valid update"):
            aggregate(rule, {}, SPEC)


def test_an_unknown_rule_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown aggregator 'best'; known: .*mean_norm_clip"):
        get_rule("best")


@given(st.lists(st.integers(-(2**55), 2**55), min_size=1), st.integers(1, 2**40))
@settings(max_examples=200, deadline=None)
def test_division_rounds_halves_to_even(values: list[int], denominator: int) -> None:
    found = divide_half_even(np.array(values, np.int64), denominator)
    assert found.tolist() == [half_even(Fraction(value, denominator)) for value in values]


def test_exact_halves_go_to_the_even_neighbour() -> None:
    assert divide_half_even(np.array([-3, -1, 1, 3, 5], np.int64), 2).tolist() == [-2, 0, 0, 2, 2]


@pytest.mark.parametrize("rule", RULES)
def test_a_chunk_is_computed_from_the_same_chunks_of_its_inputs(rule: str) -> None:
    whole = aggregate(rule, UPDATES, SPEC)
    module = SPEC.modules[1]
    chunks = np.stack([UPDATES[root][module].reshape(-1)[5:20] for root in sorted(UPDATES)])
    coefficients = [whole.coefficients_ppm[root] for root in sorted(UPDATES)]
    found = get_rule(rule).combine_block(chunks, coefficients)
    assert np.array_equal(found, whole.delta[module].reshape(-1)[5:20])


@pytest.mark.parametrize("rule", [*RULES, MIXING + "krum", MIXING + "trimmed_mean"])
class TestEveryRule:
    """What each rule of the registry must hold, with mixing before it too."""

    @pytest.mark.parametrize("seed", range(4))
    def test_the_order_of_inputs_does_not_matter(self, rule: str, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(sorted(UPDATES)).tolist()
        shuffled = {root: UPDATES[root] for root in order}
        found, expected = aggregate(rule, shuffled, SPEC), aggregate(rule, UPDATES, SPEC)
        assert is_equal(found.delta, expected.delta)
        assert found.coefficients_ppm == expected.coefficients_ppm

    def test_names_matter_only_in_ties(self, rule: str) -> None:
        """The same updates under other roots, so that others come first, give the same result.

        Eleven of them: Bulyan of seven ends with three left and one neighbour each, and two nearest to each other tie.
        """
        updates = {f"{seed:02}": make_update(SPEC, seed, limit=10 * (seed + 1)) for seed in range(11)}
        renamed = {f"{99 - int(root)}": update for root, update in updates.items()}
        assert is_equal(aggregate(rule, renamed, SPEC).delta, aggregate(rule, updates, SPEC).delta)

    @pytest.mark.parametrize("block", [1, 7, 64, 10**6])
    def test_the_size_of_blocks_does_not_matter(self, rule: str, block: int) -> None:
        found = aggregate(rule, UPDATES, SPEC, block=block).delta
        assert is_equal(found, aggregate(rule, UPDATES, SPEC).delta)

    @pytest.mark.parametrize("count", [1, 2, 5, 8])
    def test_equal_inputs_give_that_input(self, rule: str, count: int) -> None:
        equal = {f"{index:02x}": UPDATES["03"] for index in range(count)}
        delta = aggregate(rule, equal, SPEC).delta
        assert is_equal(delta, {name: values.astype(np.int32) * 256 for name, values in UPDATES["03"].items()})

    def test_inputs_and_random_state_are_left_alone(self, rule: str) -> None:
        before = {root: {name: values.copy() for name, values in update.items()} for root, update in UPDATES.items()}
        state, plain = np.random.get_state()[1].tobytes(), random.getstate()  # type: ignore[union-attr]
        aggregate(rule, UPDATES, SPEC)
        assert random.getstate() == plain
        assert all(is_equal(UPDATES[root], before[root]) for root in UPDATES)
        assert np.random.get_state()[1].tobytes() == state  # type: ignore[union-attr]

    def test_one_coefficient_per_input_in_the_order_of_roots(self, rule: str) -> None:
        coefficients = aggregate(rule, dict(reversed(UPDATES.items())), SPEC).coefficients_ppm
        assert list(coefficients) == sorted(UPDATES)
        assert min(coefficients.values()) >= 0
        assert sum(coefficients.values()) <= len(UPDATES) * 10**6


SETTINGS = (
    {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"},
    {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Prescott"},
    {"NPY_DISABLE_CPU_FEATURES": "all"},
    {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "2", "TORCH": "1"},
)
"""Of threads and CPU flags, each read once when a library is loaded. `TORCH`: inputs are torch tensors."""
PROGRAM = """
import hashlib, os
from ml.aggregate import MIXING, aggregate, list_rules
from tests.ml.support import make_small_spec, make_update

spec = make_small_spec(rank=16, shapes=(("model.layers.0.self_attn.q_proj", 1024, 256),))
updates = {str(seed): make_update(spec, seed) for seed in range(5)}
if "TORCH" in os.environ:
    import torch

    updates = {root: {n: torch.from_numpy(v) for n, v in update.items()} for root, update in updates.items()}
order = eval(os.environ["ORDER"])
updates = {root: updates[root] for root in order}
found = [aggregate(rule, updates, spec, block=int(os.environ["BLOCK"])) for rule in (*list_rules(), MIXING + "krum")]
data = [(item.coefficients_ppm, [values.tobytes() for values in item.delta.values()]) for item in found]
print(hashlib.sha256(repr(data).encode()).hexdigest())
"""


def test_threads_flags_and_orders_give_the_same_bytes() -> None:
    """Processes with other settings, orders of clients and block sizes: one hash over all rules' results."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    dispatched = " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name])
    printed = {}
    for index, chosen in enumerate(SETTINGS):
        setting = {name: dispatched if value == "all" else value for name, value in chosen.items()}
        order = np.random.default_rng(index).permutation(list("01234")).tolist()
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **setting, "ORDER": repr(order), "BLOCK": str(3_000 * index + 977)},
            capture_output=True,
            text=True,
            check=True,
        )
        printed[str(setting)] = run.stdout
    assert len(set(printed.values())) == 1, printed


def test_the_delta_is_added_to_the_previous_global_adapter() -> None:
    previous = make_global(SPEC, seed=1)
    delta = aggregate("mean_norm_clip", UPDATES, SPEC).delta
    following = add_to_global(previous, delta)
    assert all(np.array_equal(following[name], previous[name] + delta[name]) for name in previous)
    assert all(values.dtype == np.int32 for values in following.values())


def test_a_global_adapter_beyond_exact_float32_is_refused() -> None:
    module = SPEC.modules[0]
    previous = make_global(SPEC, seed=1)
    previous[module][0, 0] = GLOBAL_LIMIT - 1
    delta = {name: np.zeros_like(values) for name, values in previous.items()}
    add_to_global(previous, delta)
    delta[module][0, 0] = 1
    with pytest.raises(OverflowError, match=f"{module} would exceed"):
        add_to_global(previous, delta)


def test_the_chain_opens_tasks_only_for_what_the_learners_have_built() -> None:
    from flockchain.types.task import BUILT_AGGREGATORS, BUILT_MODES, Precision
    from ml.aggregate import list_rules
    from ml.base import DTYPES
    from ml.spec import MODES

    assert list_rules() == BUILT_AGGREGATORS
    assert MODES == BUILT_MODES
    assert get_args(Precision) == DTYPES
