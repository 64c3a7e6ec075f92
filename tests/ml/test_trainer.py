"""The trainer's steps: packing, the loss without logits, checkpoints, 4 bit, and several processes change no result."""

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ml.adapter import write_update
from ml.base import base_hash, load_base
from ml.batches import IGNORED, count_targets, make_batches, pack_rows
from ml.data import Block, Document, make_blocks
from ml.domains import read_domain
from ml.head_loss import LossModel, _HeadLoss
from ml.libraries import HINT
from ml.plan.memory import plan_memory
from ml.plan.models import ModelShape
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.team import Team
from ml.train import TrainResult, choose_blocks, compute_update_step_log2, train_update
from ml.train_process import Job, train_in_processes
from ml.train_setup import TrainSetup
from ml.trainer import Trainer, TrainingFailed

RATE = 1e-2
TRAIN = TrainSpec(local_steps=6, batch_size=4, sequence_length=64, learning_rate=RATE, seed=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    modules = ("q_proj", "v_proj", "down_proj")
    step = compute_update_step_log2(TRAIN.local_steps, RATE)
    return make_spec(
        tiny_dir,
        base_hash(tiny_dir),
        rank=4,
        alpha=16,
        target_modules=modules,
        a_seed=b"task",
        update_step_log2=step,
    )


@pytest.fixture(scope="module")
def blocks(tiny_tokenizer: Any) -> list[Block]:
    """Of many lengths: whole blocks, ends of documents, and one-line documents."""
    documents = [*read_domain("code")[:4], *(Document(f"a short text, number {n} of ten" + "." * n) for n in range(10))]
    return make_blocks(documents, tiny_tokenizer, 64)


def find_largest_difference(one: TrainResult, other: TrainResult) -> int:
    """In steps of the int8 grid, of which an update uses over 30."""
    pairs = ((one.update[name].astype(int), other.update[name].astype(int)) for name in one.update)
    return max(int(np.abs(left - right).max()) for left, right in pairs)


def is_equal(one: TrainResult, other: TrainResult) -> bool:
    return find_largest_difference(one, other) == 0


# ---- the loss ----


@pytest.mark.parametrize("is_biased", [False, True])
def test_the_loss_without_logits_is_the_cross_entropy(is_biased: bool) -> None:
    """Value and gradient, over more rows than one slice holds."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(150, 16, generator=generator, requires_grad=True)
    weight, bias = torch.randn(50, 16, generator=generator), torch.randn(50, generator=generator)
    given = bias if is_biased else None
    targets = torch.randint(0, 50, (150,), generator=generator)
    loss = _HeadLoss.apply(hidden, targets, weight, given, 0.25)
    (gradient,) = torch.autograd.grad(3 * loss, hidden)
    expected = 0.25 * functional.cross_entropy(functional.linear(hidden, weight, given), targets, reduction="sum")
    (wanted,) = torch.autograd.grad(3 * expected, hidden)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-5)


def test_short_documents_are_padded_out_of_the_loss(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """A batch of a long and a short block gives the mean over the targets alone, which is that of transformers."""
    pair = make_blocks([Document("a b c d " * 8), Document("x y z w " * 3)], tiny_tokenizer, 65)
    (batch,) = make_batches(pair, 128, CPU, packing=False)
    ids = [torch.tensor([block.tokens]) for block in pair]
    with torch.no_grad():
        together = float(LossModel(tiny_model)(batch.tokens, batch.targets, None, 1 / count_targets(pair, 128)))
        apart = [float(tiny_model(input_ids=row, labels=row).loss) * (row.shape[1] - 1) for row in ids]
    assert together == pytest.approx(sum(apart) / sum(row.shape[1] - 1 for row in ids), abs=1e-5)


# ---- packing ----


def test_packed_rows_hold_every_block_once_and_none_too_much() -> None:
    seed = 4
    random = np.random.default_rng(seed)
    pieces = [tuple(random.integers(0, 9, random.integers(1, 65))) for _ in range(200)]
    rows = pack_rows(pieces, 64)
    assert sorted(piece for row in rows for piece in row) == sorted(pieces), seed
    assert all(sum(map(len, row)) <= 64 for row in rows)
    assert len(rows) <= 11 / 9 * -(-sum(map(len, pieces)) // 64) + 1


def test_packed_blocks_do_not_see_each_other(tiny_model: Any, blocks: Sequence[Block]) -> None:
    """The loss of packed rows is that of one row per block; another neighbour changes nothing."""
    short = [Block("d", blocks[0].tokens[:length]) for length in (64, 40, 20, 20, 30, 30)]
    scale = 1 / count_targets(short, 64)
    (packed,) = make_batches(short, 64, CPU, packing=True)
    (padded,) = make_batches(short, 64, CPU, packing=False)
    assert (packed.tokens.shape, padded.tokens.shape) == ((4, 64), (6, 64))
    assert packed.positions is not None
    model = LossModel(tiny_model.eval())
    losses = [float(model(b.tokens, b.targets, b.positions, scale).detach()) for b in (packed, padded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    tokens, only_second = packed.tokens.clone(), packed.targets.clone()
    tokens[1, :40] = 7
    only_second[1, :40] = only_second[[0, 2, 3]] = IGNORED
    before, after = (float(model(t, only_second, packed.positions, 1.0).detach()) for t in (packed.tokens, tokens))
    assert before == after


@pytest.mark.parametrize("length", [64, 37], ids=["whole", "of one length"])
def test_blocks_without_padding_keep_the_fast_path_of_attention(length: int) -> None:
    (batch,) = make_batches([Block("d", tuple(range(length)))] * 3, 64, CPU, packing=True)
    assert batch.positions is None


# ---- one update, however it is computed ----


@pytest.mark.parametrize(
    "setup",
    [TrainSetup(packing=False), TrainSetup(rows_at_once=1), TrainSetup(gradient_checkpointing=True)],
    ids=["padded", "a row at a time", "gradient checkpointing"],
)
def test_no_setup_changes_the_update(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block], setup: TrainSetup
) -> None:
    """Up to the order of float sums: two steps of a grid on which the update uses over a hundred."""
    plain = train_update(tiny_model, spec, TRAIN, blocks, setup=TrainSetup())
    other = train_update(tiny_model, spec, TRAIN, blocks, setup=setup)
    assert find_largest_difference(plain, other) <= 2
    assert not any(module.gradient_checkpointing for module in tiny_model.model.layers)


def test_a_four_bit_base_trains_like_the_others(tiny_dir: Path, spec: AdapterSpec, blocks: list[Block]) -> None:
    """Evaluate, then one step: every gradient is there (ml/precision.py says what would take them away)."""
    base = load_base(str(tiny_dir), "nf4")
    setup = TrainSetup(gradient_checkpointing=True)
    with Trainer(base, spec, TRAIN, setup=setup, team=Team()) as trainer:
        before = trainer.measure(blocks[:4])
        for batch in choose_blocks(blocks, TRAIN):
            trainer.step(batch)
            assert all(float(factor.grad.abs().sum()) > 0 for factor in trainer.factors.values())
        assert trainer.measure(blocks[:4]) < before
        assert {factor.dtype for factor in trainer.factors.values()} == {torch.float32}


def test_a_fixed_in_bf16_is_exact(tiny_dir: Path, spec: AdapterSpec) -> None:
    """Int8 values times a power of two: the adapters of a bf16 and of a float32 trainer stand on one A."""
    both = []
    for dtype in ("fp32", "bf16"):
        base = load_base(str(tiny_dir), dtype)
        with Trainer(base, spec, TRAIN, setup=TrainSetup(), team=Team()):
            layers = [base.get_submodule(module).lora_A["default"].weight for module in spec.modules]
            both.append([layer.detach().float().clone() for layer in layers])
            assert {layer.dtype for layer in layers} == {base.dtype}
    assert all(torch.equal(one, other) for one, other in zip(*both, strict=True))


# ---- checkpoints ----


class Stopped(Exception):
    """What stands for a kill inside a test's own process."""


def stop_at(last: int) -> Any:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == last:
            raise Stopped

    return stop


def test_training_goes_on_from_a_checkpoint(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block], tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    undisturbed = train_update(tiny_model, spec, TRAIN, blocks)
    with pytest.raises(Stopped):
        train_update(tiny_model, spec, TRAIN, blocks, checkpoint=path, checkpoint_s=0, progress=stop_at(4))
    resumed = train_update(tiny_model, spec, TRAIN, blocks, checkpoint=path)
    assert resumed.resumed_at == 4
    assert is_equal(undisturbed, resumed)
    assert (resumed.losses, resumed.loss_before, resumed.tokens) == (
        undisturbed.losses,
        undisturbed.loss_before,
        undisturbed.tokens,
    )


@pytest.mark.parametrize("what", ["another seed", "another start", "a damaged file", "no file"])
def test_a_checkpoint_of_something_else_is_none(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block], tmp_path: Path, what: str
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        train_update(tiny_model, spec, TRAIN, blocks, checkpoint=path, checkpoint_s=0, progress=stop_at(2))
    train_spec = dataclasses.replace(TRAIN, seed=2) if what == "another seed" else TRAIN
    start = {module: np.ones((out, spec.rank), np.int32) for module, out, _ in spec.shapes}
    if what == "a damaged file":
        os.truncate(path, path.stat().st_size - 1)
    if what == "no file":
        path.unlink()
    given = start if what == "another start" else None
    assert train_update(tiny_model, spec, train_spec, blocks, given, checkpoint=path).resumed_at == 0


def test_a_full_disk_costs_a_checkpoint_not_the_training(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block], tmp_path: Path
) -> None:
    """A folder that is not there stands for any error of the disk."""
    path = tmp_path / "absent" / "checkpoint.safetensors"
    one_step = dataclasses.replace(TRAIN, local_steps=1)
    with pytest.warns(UserWarning, match="no checkpoint at"):
        result = train_update(tiny_model, spec, one_step, blocks, checkpoint=path, checkpoint_s=0)
    assert len(result.losses) == 1


# ---- processes ----


def make_job(tiny_dir: Path, spec: AdapterSpec, blocks: list[Block], **changes: Any) -> Job:
    return dataclasses.replace(Job(tiny_dir, "fp32", spec, TRAIN, blocks), **changes)


def train_for_ever(model: Any, spec: AdapterSpec, blocks: list[Block], path: Path, told: Any) -> None:
    """In the process that is to be killed: after its third step it says so and waits for the end."""

    def wait_at_three(step: int, steps: int, loss: float) -> None:
        if step == 3:
            told.set()
            signal.pause()

    train_update(model, spec, TRAIN, blocks, checkpoint=path, checkpoint_s=0, progress=wait_at_three)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_trainer_ends_with_the_same_bytes(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block], tmp_path: Path
) -> None:
    """SIGKILL to a real process after its third step; the next one goes on, and the file is the undisturbed one."""
    context = multiprocessing.get_context("fork")
    told, path = context.Event(), tmp_path / "checkpoint.safetensors"
    process = context.Process(target=train_for_ever, args=(tiny_model, spec, blocks, path, told))
    process.start()
    assert told.wait(120)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    both = [train_update(tiny_model, spec, TRAIN, blocks, checkpoint=found) for found in (path, None)]
    assert [result.resumed_at for result in both] == [3, 0]
    for result, name in zip(both, "ab", strict=True):
        write_update(tmp_path / name, result.update, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_two_processes_train_what_one_trains(
    tiny_model: Any, tiny_dir: Path, spec: AdapterSpec, blocks: list[Block], tmp_path: Path
) -> None:
    """Over gloo, launched as on GPUs; each takes half of every batch."""
    start = {module: np.full((out, spec.rank), 900, np.int32) for module, out, _ in spec.shapes}
    told: list[int] = []
    job = make_job(tiny_dir, spec, blocks, processes=2)
    result = train_in_processes(job, tmp_path, start, progress=lambda step, steps, loss: told.append(step))
    alone = train_update(tiny_model, spec, TRAIN, blocks, start)
    assert find_largest_difference(result, alone) <= 2
    assert told == list(range(1, 7))
    assert result.losses == pytest.approx(alone.losses, rel=1e-4)
    assert result.tokens == alone.tokens
    assert HINT not in (tmp_path / "training.log").read_text()


def test_a_batch_too_small_for_the_team_is_refused(tiny_model: Any, spec: AdapterSpec) -> None:
    class Five(Team):
        size = 5

    with pytest.raises(TrainingFailed, match="batch of 4 cannot be divided among 5"):
        Trainer(tiny_model, spec, TRAIN, setup=TrainSetup(), team=Five())


def test_the_parent_of_a_training_process_says_why_it_failed(
    tiny_dir: Path, spec: AdapterSpec, blocks: list[Block], tmp_path: Path
) -> None:
    """A base that is gone is named by the child's own sentence, before it imports anything heavy."""
    job = make_job(tiny_dir, spec, blocks, base_dir=tmp_path / "absent")
    with pytest.raises(TrainingFailed, match="no base model"):
        train_in_processes(job, tmp_path / "job")


def test_the_advice_is_the_least_change_that_fits(tiny_model: Any, spec: AdapterSpec) -> None:
    """On ever smaller devices: rows, checkpointing, 4 bit, length, and then that nothing fits."""
    from ml.train_memory import _advise, _list_changes

    needed = [
        plan_memory(ModelShape("tiny", tiny_model.config.to_dict()), plan, on_gpu=False).total
        for _, plan in _list_changes(tiny_model, spec, 4, 512, TrainSetup())
    ]
    assert needed == sorted(needed, reverse=True)
    advice = [_advise(tiny_model, spec, 4, 512, TrainSetup(), total + 1) for total in (*needed, 0)]
    wanted = ["--rows-at-once 2 ", "--rows-at-once 1 ", "--gradient-ch", "--dtype nf4", "256 tok", "128 tok", "64 tok"]
    assert len(advice) == len(wanted) + 1
    assert all(words in said for words, said in zip(wanted, advice, strict=False)), advice
    assert advice[-1].startswith("no setup on this device fits")
