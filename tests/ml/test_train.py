"""A trainer's update: from the global adapter, on the grid, the same bytes for the same seed, the base untouched."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.base import base_hash
from ml.data import Block, make_blocks
from ml.domains import read_domain
from ml.lora import attach, compute_a_step_log2, detach, fixed_a, get_trained_factors
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.train import (
    TrainingFailed,
    TrainResult,
    choose_blocks,
    compute_update_step_log2,
    train_update,
)

LEARNING_RATE = 1e-2
TRAIN = TrainSpec(local_steps=8, batch_size=2, sequence_length=64, learning_rate=LEARNING_RATE, seed=1)


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    return make_spec(
        tiny_dir,
        base_hash(tiny_dir),
        rank=4,
        alpha=16,
        target_modules=("q_proj", "v_proj"),
        a_seed=b"task",
        update_step_log2=compute_update_step_log2(8, LEARNING_RATE),
    )


@pytest.fixture(scope="module")
def blocks(tiny_tokenizer: Any) -> list[Block]:
    return make_blocks(read_domain("code")[:6], tiny_tokenizer, 64)


def is_equal(one: TrainResult, other: TrainResult) -> bool:
    return all(np.array_equal(one.update[module], other.update[module]) for module in one.update)


def weights_of(model: Any) -> dict[str, bytes]:
    return {name: parameter.detach().numpy().tobytes() for name, parameter in model.named_parameters()}


def test_the_fixed_a_is_pinned() -> None:
    """A golden vector: another A on one machine would make every adapter of a task a foreign one."""
    spec = AdapterSpec("", 2, 4, ("q_proj",), "shared_a", b"task", -11)
    values, step_log2 = fixed_a(spec, "model.layers.0.self_attn.q_proj", 576)
    assert step_log2 == -12
    assert values.dtype == np.int8
    assert values[:, :4].tolist() == [[-79, -79, 47, -4], [55, 26, -105, -125]]
    assert hashlib.sha256(values.tobytes()).hexdigest() == (
        "4ecf75f6dd95b1985fbd6d85727ef450d4d69a8588c1fbbc8919b85f00b8646d"
    )


def test_a_differs_by_module_and_task() -> None:
    spec = AdapterSpec("", 2, 4, ("q_proj",), "shared_a", b"task", -11)
    other = dataclasses.replace(spec, a_seed=b"another task")
    drawn = [fixed_a(spec, "a", 64)[0], fixed_a(spec, "b", 64)[0], fixed_a(other, "a", 64)[0]]
    assert len({values.tobytes() for values in drawn}) == 3


@pytest.mark.parametrize("in_features", [1, 7, 64, 576, 1536, 4096, 28_672])
def test_a_spans_about_one_over_the_root_of_its_inputs(in_features: int) -> None:
    spec = AdapterSpec("", 8, 16, ("q_proj",), "shared_a", b"task", -11)
    values, step_log2 = fixed_a(spec, "module", in_features)
    assert values.shape == (8, in_features)
    assert int(np.abs(values.astype(int)).max()) <= 127
    largest = 127 * 2.0**step_log2 * np.sqrt(in_features)
    assert 2**-0.5 <= largest <= 2**0.5
    assert compute_a_step_log2(in_features) == step_log2


def test_training_lowers_the_loss_on_the_grid(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    result = train_update(tiny_model, spec, TRAIN, blocks)
    assert result.loss_after < result.loss_before
    assert result.saturated == 0
    assert sorted(result.update) == list(spec.modules)
    assert all(values.dtype == np.int8 for values in result.update.values())
    largest = max(int(np.abs(values.astype(int)).max()) for values in result.update.values())
    assert 30 < largest <= 127  # K * lr fits, and more than a few of the levels are used


def test_equal_seeds_give_equal_bytes(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    """Also in a fresh model: a trainer that was killed starts again and ends with the same root."""
    first = train_update(tiny_model, spec, TRAIN, blocks)
    assert is_equal(first, train_update(tiny_model, spec, TRAIN, blocks))
    assert not is_equal(first, train_update(tiny_model, spec, dataclasses.replace(TRAIN, seed=2), blocks))


def test_the_base_is_given_back_unchanged(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    before = weights_of(tiny_model)
    train_update(tiny_model, spec, TRAIN, blocks)
    assert weights_of(tiny_model) == before


def test_training_starts_at_the_global_adapter(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    adapter = {module: np.full((out, spec.rank), 1000 * spec.rank, np.int32) for module, out, _ in spec.shapes}
    wrapped = attach(tiny_model, spec, adapter)
    for factor in get_trained_factors(tiny_model, spec).values():
        assert factor.dtype.is_floating_point
        assert np.array_equal(factor.detach().numpy(), np.full(factor.shape, 4000 * 2.0**spec.grid_step_log2))
    detach(wrapped)
    still = dataclasses.replace(TRAIN, learning_rate=1e-12)
    assert all(not values.any() for values in train_update(tiny_model, spec, still, blocks, adapter).update.values())


def test_a_settled_update_starts_the_next_round_lower(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    first = train_update(tiny_model, spec, TRAIN, blocks)
    adapter = {module: values.astype(np.int32) << 8 for module, values in first.update.items()}
    second = train_update(tiny_model, spec, TRAIN, blocks, adapter)
    # A quantised B is within half a step of the trained one, so the loss is nearly where training left it.
    assert second.loss_before == pytest.approx(first.loss_after, abs=1e-2)
    assert second.loss_before < first.loss_before


def test_only_b_is_trained(tiny_model: Any, spec: AdapterSpec) -> None:
    wrapped = attach(tiny_model, spec, None)
    trainable = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
    assert len(trainable) == len(spec.modules)
    assert all("lora_B" in name for name in trainable)
    detach(wrapped)


class Clamp:
    """No value of B beyond a limit, and a price on its square; it may do either alone."""

    def __init__(self, limit: float, price: float) -> None:
        self.limit, self.price = limit, price

    def penalise(self, factors: Mapping[str, Any]) -> Any:
        return self.price * sum(factor.square().sum() for factor in factors.values())

    def project(self, factors: Mapping[str, Any]) -> None:
        for factor in factors.values():
            factor.clamp_(-self.limit, self.limit)


def test_a_constraint_binds_each_step(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    """By projection exactly, by a penalty in part; without a price or a limit training is what it was."""

    def largest(result: TrainResult) -> int:
        return max(int(np.abs(values.astype(int)).max()) for values in result.update.values())

    free = train_update(tiny_model, spec, TRAIN, blocks)
    step = 2.0**spec.update_step_log2
    assert largest(free) > 10
    assert largest(train_update(tiny_model, spec, TRAIN, blocks, constraint=Clamp(5 * step, 0.0))) == 5
    assert largest(train_update(tiny_model, spec, TRAIN, blocks, constraint=Clamp(1.0, 100.0))) < largest(free) // 2
    assert is_equal(free, train_update(tiny_model, spec, TRAIN, blocks, constraint=Clamp(1.0, 0.0)))


def test_progress_is_told_after_each_step(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    told: list[tuple[int, int]] = []
    result = train_update(
        tiny_model, spec, TRAIN, blocks, progress=lambda step, steps, loss: told.append((step, steps))
    )
    assert told == [(step, 8) for step in range(1, 9)]
    assert len(result.losses) == 8
    assert result.tokens_per_s > 0


@pytest.mark.parametrize(
    ("steps", "rate", "expected"), [(12, 3e-3, -11), (12, 1e-2, -10), (127, 1.0, 0), (1, 127.0, 0)]
)
def test_the_step_holds_all_local_moves(steps: int, rate: float, expected: int) -> None:
    assert compute_update_step_log2(steps, rate) == expected
    assert steps * rate <= 127 * 2.0**expected < 2 * steps * rate * 1.001


def test_every_block_is_used_before_any_twice(blocks: list[Block]) -> None:
    some = blocks[:5]
    chosen = [block for batch in choose_blocks(some, TRAIN) for block in batch]
    assert len(chosen) == TRAIN.local_steps * TRAIN.batch_size
    for start in (0, 5, 10):
        assert sorted(map(id, chosen[start : start + 5])) == sorted(map(id, some))


def test_no_data_and_another_base_are_refused(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    with pytest.raises(TrainingFailed, match="no blocks"):
        train_update(tiny_model, spec, TRAIN, [])
    foreign = dataclasses.replace(spec, shapes=(("model.layers.9.self_attn.q_proj", 64, 64),))
    with pytest.raises(ValueError, match="has no module"):
        train_update(tiny_model, foreign, TRAIN, blocks)
    wider = dataclasses.replace(spec, shapes=((spec.modules[0], 65, 64),))
    with pytest.raises(ValueError, match="the task says"):
        train_update(tiny_model, wider, TRAIN, blocks)


@pytest.fixture
def memory_runs_out(tiny_model: Any) -> Iterator[Any]:
    import torch

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    handle = tiny_model.get_submodule("model.layers.1").register_forward_hook(fail)
    yield tiny_model
    handle.remove()


def test_out_of_memory_says_what_to_do(memory_runs_out: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    with pytest.raises(
        TrainingFailed,
        match=r"out of memory while training 2 rows of 64 tokens: .* GB with --rows-at-once 1 .same result",
    ):
        train_update(memory_runs_out, spec, TRAIN, blocks)
    assert not hasattr(memory_runs_out.get_submodule(spec.modules[0]), "lora_A")
