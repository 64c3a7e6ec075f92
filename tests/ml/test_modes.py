"""LoRA modes: which are exactly mean(B A), which are not and by how much, and that each of them trains."""

from typing import Any

import numpy as np
import pytest

from ml.data import Block
from ml.modes import get_mode, list_modes
from ml.products import Pair, Pairs, make_first_pairs, mean, norm, relative_error, truncate
from ml.spec import TrainSpec
from tests.ml.support import make_small_spec

SPEC = make_small_spec()


def make_after(mode: str, round: int, spread: float, seed: int, settled: float = 0.1) -> tuple[Any, dict[str, Pairs]]:
    """(settled factors, those of five trainers): only what the mode trains has moved, by about `spread`."""
    random = np.random.default_rng(seed)
    before = {
        module: Pair(settled * random.normal(size=pair.b.shape), pair.a)
        for module, pair in make_first_pairs(SPEC).items()
    }
    trained = get_mode(mode).get_trained(round)

    def move(kind: str, factor: Any) -> Any:
        return factor + (spread * random.normal(size=factor.shape) if kind in trained else 0)

    return before, {
        root: {module: Pair(move("b", pair.b), move("a", pair.a)) for module, pair in before.items()}
        for root in "abcde"
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("mode", "round"), [("shared_a", 0), ("alternating", 0), ("alternating", 1)])
def test_modes_that_train_one_factor_are_exact(mode: str, round: int, seed: int) -> None:
    before, after = make_after(mode, round, 0.5, seed)
    assert relative_error(get_mode(mode).merge(before, after, round), mean(after)) < 1e-14


@pytest.mark.parametrize("seed", range(5))
def test_averaging_both_factors_is_not_the_mean(seed: int) -> None:
    """Near where all started it is nearly so, for trainers that differ it is off by much of the whole."""
    apart = get_mode("apart")
    near, far = (make_after("apart", 0, spread, seed) for spread in (0.003, 0.5))
    assert relative_error(apart.merge(*near, 0), mean(near[1])) < 0.01
    assert relative_error(apart.merge(*far, 0), mean(far[1])) > 0.5


def test_pefts_linear_sum_with_weights_of_1_over_n_is_no_mean() -> None:
    """It weighs both factors by the root and so adds up products across trainers; ours never sums by weights alone."""
    before, after = make_after("apart", 0, 0.5, 1)
    root_weights = {
        module: Pair(
            sum(pairs[module].b for pairs in after.values()) / np.sqrt(5),
            sum(pairs[module].a for pairs in after.values()) / np.sqrt(5),
        )
        for module in SPEC.modules
    }
    together = dict.fromkeys("abcde", before)
    as_peft = {m: Pair(np.sqrt(5) * before[m].b, np.sqrt(5) * before[m].a) for m in SPEC.modules}
    assert norm(as_peft) == pytest.approx(5 * norm(mean(together)))
    assert relative_error(root_weights, mean(after)) > 1


@pytest.mark.parametrize("seed", range(5))
def test_stacking_is_exact_up_to_the_rank_that_it_goes_back_to(seed: int) -> None:
    before, after = make_after("stacked", 0, 0.5, seed)
    exact = mean(after)
    assert all(pair.b.shape[1] == 5 * SPEC.rank for pair in exact.values())
    merged = get_mode("stacked").merge(before, after, 0)
    assert all(merged[m].b.shape == before[m].b.shape for m in SPEC.modules)
    assert relative_error({m: truncate(exact[m], 5 * SPEC.rank) for m in exact}, exact) < 1e-12
    best = relative_error(merged, exact)
    assert 0.01 < best < relative_error(get_mode("apart").merge(before, after, 0), exact)


def test_stacking_takes_trainers_of_different_ranks() -> None:
    before, after = make_after("stacked", 0, 0.5, 1)
    after = {root: {m: Pair(p.b[:, : 1 + i % 4], p.a[: 1 + i % 4]) for m, p in after[root].items()}
             for i, root in enumerate(after)}  # fmt: skip
    merged = get_mode("stacked").merge(before, after, 0)
    assert all(merged[m].b.shape == before[m].b.shape for m in SPEC.modules)
    assert relative_error(merged, mean(after)) < 0.7


@pytest.mark.parametrize("mode", list_modes())
class TestEveryMode:
    def test_orders_do_not_matter_and_inputs_stay(self, mode: str) -> None:
        for round in (0, 1):
            before, after = make_after(mode, round, 0.5, 2)
            copies = {root: {m: Pair(p.b.copy(), p.a.copy()) for m, p in after[root].items()} for root in after}
            one = get_mode(mode).merge(before, after, round)
            other = get_mode(mode).merge(before, dict(reversed(after.items())), round)
            for module in SPEC.modules:
                assert all(np.array_equal(*pair) for pair in zip(one[module], other[module], strict=True))
                for root in after:
                    assert all(
                        np.array_equal(*pair) for pair in zip(after[root][module], copies[root][module], strict=True)
                    )

    def test_equal_trainers_settle_what_they_have(self, mode: str) -> None:
        before, after = make_after(mode, 0, 0.5, 3)
        equal = dict.fromkeys("abc", after["a"])
        assert relative_error(get_mode(mode).merge(before, equal, 0), after["a"]) < 1e-12

    def test_no_trainers_are_refused(self, mode: str) -> None:
        with pytest.raises(ValueError, match="no adapter"):
            get_mode(mode).merge(make_first_pairs(SPEC), {}, 0)


def test_an_unknown_mode_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown LoRA mode 'both'; known: alternating, apart, shared_a, stacked"):
        get_mode("both")


def test_training_moves_just_the_factors_of_the_mode(tiny_model: Any) -> None:
    """Two rounds of `alternating`: B, then A; each lowers the loss, and the base is given back."""
    from ml.modes.training import train_pairs

    spec = make_small_spec(rank=4, target_modules=("q_proj", "v_proj"), shapes=()).with_shapes(
        tiny_model.config.to_dict()
    )
    train_spec = TrainSpec(local_steps=8, batch_size=4, sequence_length=32, learning_rate=3e-3, seed=1)
    blocks = [
        Block(str(index), tuple(np.random.default_rng(index).integers(97, 105, 32).tolist())) for index in range(4)
    ]
    mode, pairs = get_mode("alternating"), make_first_pairs(spec)
    weight = tiny_model.get_submodule(spec.modules[0]).weight.clone()
    for round in (0, 1):
        after, losses = train_pairs(tiny_model, spec, train_spec, blocks, pairs, mode.get_trained(round))
        moved, still = ("b", "a") if round == 0 else ("a", "b")
        assert losses[-1] < losses[0]
        for module in spec.modules:
            assert not np.allclose(getattr(after[module], moved), getattr(pairs[module], moved))
            assert np.allclose(getattr(after[module], still), getattr(pairs[module], still), rtol=1e-6)
        pairs = mode.merge(pairs, {"a": after}, round)
    assert bool((tiny_model.get_submodule(spec.modules[0]).weight == weight).all())
