"""Baselines against their papers' formulas by hand; what 1e30, infinity and NaN do to them; FedProx in the trainer."""

from math import sqrt
from typing import Any

import numpy as np
import pytest

from ml.aggregate import add_to_global, aggregate
from ml.baselines import State, flatten, list_baselines, make_baseline, start
from ml.baselines.flame_like import find_majority
from ml.baselines.fltrust import find_directions
from ml.baselines.grid_rule import from_grid
from tests.ml.support import make_global, make_small_spec, make_update

SPEC = make_small_spec()
HUGE = [1e30, np.inf, -np.inf, np.nan]


def one(*values: float) -> dict[str, Any]:
    """An update of a single module."""
    return {"m": np.array([values], np.float64)}


def make(name: str, **options: Any) -> Any:
    return make_baseline(name, spec=SPEC, **options) if name == "grid_rule" else make_baseline(name, **options)


def at(state: State) -> list[float]:
    return flatten(state.model).tolist()


def make_grid_round(count: int = 5) -> tuple[dict[str, Any], dict[str, Any]]:
    """(int8 updates, the same in real values)."""
    updates = {f"{index:02x}": make_update(SPEC, index, limit=40) for index in range(count)}
    return updates, {root: from_grid(update, SPEC) for root, update in updates.items()}


# -- formulas by hand -------------------------------------------------------------------------------------------------


def test_fedavg_adds_the_mean_weighted_by_examples() -> None:
    updates = {"b": one(4, 0), "a": one(0, 8)}
    begin = start(one(1, 1))
    assert at(make_baseline("fedavg").step(begin, updates)) == [3, 5]
    assert at(make_baseline("fedavg").step(begin, updates, weights={"a": 3, "b": 1})) == [2, 7]
    assert at(make_baseline("fedavg", server_rate=0.5).step(begin, updates)) == [2, 3]


@pytest.mark.parametrize("weights", [{"a": -1, "b": 2}, {"a": 0, "b": 0}])
def test_weights_are_shares(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        make_baseline("fedavg").step(start(one(0)), {"a": one(1), "b": one(2)}, weights=weights)


def test_fedadam_is_two_rounds_of_algorithm_2() -> None:
    optimizer = make_baseline("fedadam", server_rate=0.1, beta1=0.9, beta2=0.99, tau=0.001)
    state = optimizer.step(start(one(5)), {"a": one(1), "b": one(3)})
    m, v = 0.1 * 2, 0.99 * 1e-6 + 0.01 * 4
    x = 5 + 0.1 * m / (sqrt(v) + 0.001)
    assert at(state) == pytest.approx([x], rel=1e-14)
    state = optimizer.step(state, {"a": one(-1)})
    m, v = 0.9 * m - 0.1 * 1, 0.99 * v + 0.01 * 1
    assert at(state) == pytest.approx([x + 0.1 * m / (sqrt(v) + 0.001)], rel=1e-14)
    assert state.round == 2


def test_fedyogi_moves_v_up_or_down_by_its_share_of_the_square() -> None:
    optimizer = make_baseline("fedyogi", server_rate=0.1, beta1=0.0, beta2=0.75, tau=1.0)
    state = optimizer.step(start(one(0)), {"a": one(2)})
    v = 1 + 0.25 * 4  # tau^2 below the square: up
    x = 0.1 * 2 / (sqrt(v) + 1)
    assert at(state) == pytest.approx([x], rel=1e-14)
    state = optimizer.step(state, {"a": one(1)})
    v -= 0.25 * 1  # above it: down
    assert flatten(state.memory["v"]).tolist() == [v]
    state = optimizer.step(state, {"a": one(0.5)})
    assert flatten(state.memory["v"]).tolist() == [v - 0.25 * 0.25]
    assert v - 0.25 * 0.25 != 0.75 * v + 0.25 * 0.25


def test_fltrust_weighs_by_the_cosine_and_scales_to_the_servers_length() -> None:
    updates = {"same": one(10, 0), "slant": one(3, 4), "across": one(0, 7), "against": one(-100, 0)}
    state = make_baseline("fltrust").step(start(one(0, 0)), updates, trusted=one(2, 0))
    trust = 1 + 0.6
    assert at(state) == pytest.approx([2 * (1 * 1 + 0.6 * 0.6) / trust, 2 * 0.6 * 0.8 / trust], rel=1e-14)


def test_fltrust_stands_still_when_nobody_agrees_and_needs_its_own_update() -> None:
    rule = make_baseline("fltrust")
    assert at(rule.step(start(one(1, 1)), {"a": one(-1, 0)}, trusted=one(1, 0))) == [1, 1]
    assert at(rule.step(start(one(1, 1)), {"a": one(-1, 0)}, trusted=one(0, 0))) == [1, 1]
    with pytest.raises(ValueError, match="`trusted`"):
        rule.step(start(one(1, 1)), {"a": one(1, 0)})


def test_flame_like_keeps_the_majority_by_cosine_and_clips_to_the_median_length() -> None:
    updates = {"0": one(2, 0), "1": one(4, 0), "2": one(8, 0), "3": one(0, 4), "4": one(0, 100)}
    state = make_baseline("flame_like").step(start(one(0, 0)), updates)
    assert at(state) == pytest.approx([(2 + 4 + 4) / 3, 0], rel=1e-14)


def test_flame_likes_noise_has_the_size_asked_for_and_its_own_seed() -> None:
    updates = {root: {"m": np.full((100, 100), 0.03)} for root in "abc"}  # of length 3
    quiet = make_baseline("flame_like").step(start({"m": np.zeros((100, 100))}), updates)
    noisy = make_baseline("flame_like", noise=0.5, seed=1)
    first = noisy.step(start({"m": np.zeros((100, 100))}), updates)
    noise = flatten(first.model) - flatten(quiet.model)
    assert noise.std() == pytest.approx(1.5, rel=0.05)
    assert at(noisy.step(start({"m": np.zeros((100, 100))}), updates)) == at(first)
    assert at(noisy.step(State(first.model, round=1), updates)) != at(first)


def test_the_majority_is_the_first_cluster_of_more_than_half() -> None:
    places = np.array([0.0, 10.0, 10.5, 11.5, 30.0, 30.1, 13.0])
    assert find_majority(np.abs(places[:, None] - places)) == [1, 2, 3, 6]
    assert find_majority(np.zeros((1, 1))) == [0]
    assert find_majority(np.zeros((4, 4))) == [0, 1, 2, 3]  # ties join together


def test_directions_survive_lengths_whose_squares_do_not() -> None:
    rows = np.array([[3e200, 4e200], [3e-200, 4e-200], [0, 0], [np.nan, 1], [1, np.inf]])
    assert np.allclose(find_directions(rows), [[0.6, 0.8], [0.6, 0.8], [0, 0], [0, 0], [0, 0]], rtol=1e-15)


@pytest.mark.parametrize("rule", ["mean_norm_clip", "coordinate_median", "krum", "nearest_neighbour_mixing+mean"])
def test_a_grid_rule_moves_the_model_by_just_what_the_network_does(rule: str) -> None:
    updates, real = make_grid_round()
    previous = make_global(SPEC, 1)
    unit = 2.0**SPEC.grid_step_log2
    state = make("grid_rule", rule=rule).step(start({n: v * unit for n, v in previous.items()}), real)
    expected = add_to_global(previous, aggregate(rule, updates, SPEC).delta)
    assert all(np.array_equal(state.model[name], expected[name] * unit) for name in expected)


@pytest.mark.parametrize("value", [0.3, 128, np.nan, np.inf])
def test_a_grid_rule_rounds_nothing_by_itself(value: float) -> None:
    _, real = make_grid_round(2)
    real["00"][SPEC.modules[0]][0, 0] = value * 2.0**SPEC.update_step_log2
    with pytest.raises(ValueError, match="is not on the grid"):
        make("grid_rule").step(start(real["01"]), real)


# -- what holds for all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_baselines())
class TestEveryBaseline:
    def test_order_does_not_matter_and_nothing_given_is_changed(self, name: str) -> None:
        _, real = make_grid_round()
        copies = {root: {module: values.copy() for module, values in update.items()} for root, update in real.items()}
        begin = start(real["00"])
        random_state = np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
        one_way = make(name).step(begin, real, trusted=real["01"])
        other_way = make(name).step(begin, dict(reversed(real.items())), trusted=real["01"])
        assert at(one_way) == at(other_way)
        assert one_way.round == 1
        assert at(begin) == at(start(copies["00"]))
        assert all(np.array_equal(real[root][m], copies[root][m]) for root in real for m in real[root])
        assert np.random.get_state()[1].tobytes() == random_state  # type: ignore[union-attr]

    def test_no_updates_are_refused(self, name: str) -> None:
        _, real = make_grid_round(1)
        with pytest.raises(ValueError, match="nothing to aggregate"):
            make(name).step(start(real["00"]), {}, trusted=real["00"])

    def test_equal_updates_move_along_it(self, name: str) -> None:
        """An adaptive optimizer goes its own length for each value, all others exactly the update."""
        _, real = make_grid_round(1)
        equal = dict.fromkeys("abcd", real["00"])
        nothing = start({module: np.zeros_like(values) for module, values in real["00"].items()})
        found = flatten(make(name).step(nothing, equal, trusted=real["00"]).model)
        wanted = flatten(real["00"])
        if name in ("fedadam", "fedyogi"):
            assert np.array_equal(np.sign(found), np.sign(wanted))
        else:
            assert np.allclose(found, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedadam", "fedyogi"])
def test_one_update_moves_an_average_anywhere(name: str, value: float) -> None:
    """Breakdown point 0: what they are in the tables for. Adam's own step is bounded, its memory is not."""
    updates = {root: one(1, 1) for root in "abc"} | {"z": one(value, 1)}
    with np.errstate(invalid="ignore"):
        state = make_baseline(name).step(start(one(0, 0)), updates)
    reached = max(abs(flatten(state.memory["v"])[0]) if state.memory else 0, abs(at(state)[0]), key=abs)
    assert np.isnan(at(state)[0]) or reached > 1e28


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("name", ["fltrust", "flame_like"])
def test_a_minority_of_huge_updates_does_not_move_a_defended_one(name: str, value: float) -> None:
    updates = {root: one(1, 1) for root in "abc"} | {"y": one(-1, value), "z": one(value, -1)}
    state = make_baseline(name).step(start(one(0, 0)), updates, trusted=one(1, 1))
    assert np.isfinite(at(state)).all()
    assert np.abs(at(state)).max() <= 1.5


def test_flame_like_breaks_at_half() -> None:
    updates = {"a": one(1, 0), "b": one(1, 0.5), "y": one(-1, 0), "z": one(-1, 0)}
    assert at(make_baseline("flame_like").step(start(one(0, 0)), updates | {"x": one(-1, 0)}))[0] == -1


def test_an_unknown_baseline_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown baseline 'best'; known: fedadam, fedavg"):
        make_baseline("best")


# -- FedProx in the trainer -------------------------------------------------------------------------------------------


def test_fedprox_adds_half_mu_times_the_squared_move() -> None:
    import torch

    from ml.constraints import Pull

    pull = Pull(mu=0.5)
    b = torch.tensor([[1.0, 1.0]], requires_grad=True)
    assert pull.penalise({"m": b}).item() == 0
    with torch.no_grad():
        b += torch.tensor([[2.0, 0.0]])
    found = pull.penalise({"m": b})
    assert found.item() == 1.0
    found.backward()
    assert b.grad is not None
    assert b.grad.tolist() == [[1.0, 0.0]]


def test_fedprox_holds_the_trainer_near_the_global_adapter(tiny_model: Any) -> None:
    """Same base, data and seed: with a strong pull the way is short; no pull is plain training, bit for bit."""
    from ml.constraints import Pull
    from ml.data import Block
    from ml.spec import TrainSpec
    from ml.train import train_update

    config = tiny_model.config.to_dict()
    spec = make_small_spec(rank=4, target_modules=("q_proj", "v_proj"), shapes=()).with_shapes(config)
    train_spec = TrainSpec(local_steps=6, batch_size=2, sequence_length=32, learning_rate=3e-3, seed=1)
    random = np.random.default_rng(5)
    blocks = [Block(str(i), tuple(random.integers(97, 110, 32).tolist())) for i in range(6)]

    def train(pull: Pull | None) -> tuple[float, tuple[float, ...]]:
        result = train_update(tiny_model, spec, train_spec, blocks, constraint=pull)
        return float(np.linalg.norm(flatten(result.update))), result.losses

    free = train(None)
    assert train(Pull(mu=0.0)) == free
    strong, _ = train(Pull(mu=1_000.0))
    assert 2 * strong < free[0]
