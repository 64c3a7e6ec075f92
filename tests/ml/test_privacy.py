"""DP-SGD in the trainer: each sample's gradient, the bound on its part, the noise, the draws, and the accountant.

Needs the extra `dp`; without it these tests are skipped with a line that says so.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ml.base import base_hash
from ml.data import Block, make_blocks
from ml.domains import read_domain
from ml.privacy import ORDERS, Privacy, Spend, choose_noise, compute_epsilon, compute_rate, group_samples
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.team import Team
from ml.train import TrainResult, train_update
from ml.train_setup import TrainSetup
from ml.trainer import Trainer

pytest.importorskip("opacus", reason="differential privacy is the extra `dp`: pip install 'flockchain[dp]'")

from ml.private_trainer import PrivateRun, PrivateTrainer

TRAIN = TrainSpec(local_steps=5, batch_size=4, sequence_length=64, learning_rate=1e-2, seed=1)
SECRET = bytes(range(32))
CLIP = 0.05
PLAIN = TrainSetup()


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    modules = ("q_proj", "v_proj", "down_proj")
    return make_spec(
        tiny_dir, base_hash(tiny_dir), rank=4, alpha=16, target_modules=modules, a_seed=b"task", update_step_log2=-12
    )


@pytest.fixture(scope="module")
def blocks(tiny_tokenizer: Any) -> list[Block]:
    """Whole blocks and short ends, several of each document."""
    return make_blocks(read_domain("code")[:12], tiny_tokenizer, 64)


def make_run(blocks: Sequence[Block], train_spec: TrainSpec = TRAIN, **changes: Any) -> PrivateRun:
    fields = {"noise_multiplier": 1.0, "secret": SECRET, "clip_norm": CLIP, "unit": "block"} | changes
    return PrivateRun(Privacy(**fields), "key", blocks, train_spec)


def open_trainer(model: Any, spec: AdapterSpec, run: PrivateRun) -> PrivateTrainer:
    given = {"setup": PLAIN, "team": Team(), "loss_sign": 1, "constraint": None}
    return PrivateTrainer(run, model, spec, TRAIN, None, **given)


def take_gradient(trainer: PrivateTrainer, batch: Sequence[Block]) -> torch.Tensor:
    """What the optimizer gets of a batch, times the expected batch size: the sum of clipped gradients, and noise."""
    trainer.step(batch)
    parts = [factor.grad.flatten() for factor in trainer.factors.values() if factor.grad is not None]
    with torch.no_grad():
        for factor in trainer.factors.values():
            factor.zero_()  # the next step begins where this one did
    return torch.cat(parts) * TRAIN.batch_size


def is_equal(one: TrainResult, other: TrainResult) -> bool:
    return all(np.array_equal(one.update[module], other.update[module]) for module in one.update)


# ---- the gradient of each sample ----


def test_a_samples_gradient_is_that_of_the_sample_alone(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block]
) -> None:
    """Blocks of unlike lengths, padded in one batch: opacus' gradient of each is plain autograd's of that block."""
    batch = list({len(block.tokens): block for block in blocks}.values())[:4]
    assert len(batch) == 4
    run = make_run(blocks)
    with open_trainer(tiny_model, spec, run) as trainer:
        trainer._loss_model.train()
        trainer._clear_gradients()
        trainer._add_gradients(batch)
        found = {module: factor.grad_sample for module, factor in trainer.factors.items()}
    for at, block in enumerate(batch):
        with Trainer(tiny_model, spec, TRAIN, None, setup=PLAIN, team=Team()) as plain:
            plain._loss_model.train()
            plain._add_gradients([block])
            scale = (len(block.tokens) - 1) * run.loss_scale  # from the mean over targets to what a run sums up
            for module, factor in plain.factors.items():
                torch.testing.assert_close(found[module][at], factor.grad * scale, rtol=1e-4, atol=1e-7)


def test_one_sample_moves_the_sum_by_the_clip_norm_at_most(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block]
) -> None:
    """The bound on which epsilon rests, for every sample of a batch; the base is far from these texts, so all of them
    are clipped. A loss per target of the batch, as without privacy, would break it."""
    batch = blocks[:4]
    with open_trainer(tiny_model, spec, make_run(blocks, noise_multiplier=0.0)) as trainer:
        whole = take_gradient(trainer, batch)
        for left_out in range(len(batch)):
            without = take_gradient(trainer, [block for at, block in enumerate(batch) if at != left_out])
            assert float((whole - without).norm()) == pytest.approx(CLIP, rel=1e-3)


@pytest.mark.parametrize("is_shared", [False, True])
def test_no_sample_changes_the_gradient_of_another(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block], monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    """Without clipping two samples' sum is that of each alone; with the plain trainer's scale, one over the batch's
    targets, it is not, and no clipping could bound what one sample does."""
    if is_shared:
        monkeypatch.setattr(PrivateTrainer, "_choose_scale", Trainer._choose_scale)
    one, other = blocks[0], min(blocks, key=lambda block: len(block.tokens))
    with open_trainer(tiny_model, spec, make_run(blocks, noise_multiplier=0.0, clip_norm=1e6)) as trainer:
        together, first, second = (take_gradient(trainer, batch) for batch in ([one, other], [one], [other]))
    astray = float((together - first - second).norm()) / float(second.norm())
    assert (astray > 0.1) if is_shared else (astray < 1e-3)


def test_the_noise_has_the_stated_deviation(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    """Of an empty draw nothing but noise is left."""
    with open_trainer(tiny_model, spec, make_run(blocks, noise_multiplier=2.0)) as trainer:
        noise, other = take_gradient(trainer, []), take_gradient(trainer, [])
    assert not torch.equal(noise, other)
    assert float(noise.mean()) == pytest.approx(0, abs=5 * 2.0 * CLIP / math.sqrt(len(noise)))
    assert float(noise.std()) == pytest.approx(2.0 * CLIP, rel=0.05)


# ---- draws ----


def test_every_sample_is_drawn_with_the_same_chance_by_the_secret_alone(blocks: list[Block]) -> None:
    """Sizes of batches spread as binomials do; another order of steps, another seed of the task, the same draws."""
    many = dataclasses.replace(TRAIN, local_steps=2_000)
    run = make_run(blocks, many)
    batches = run.draw_batches()
    sizes, rate = np.array([len(batch) for batch in batches]), compute_rate(len(blocks), many.batch_size)
    assert sizes.mean() == pytest.approx(4, abs=0.2)
    assert sizes.var() == pytest.approx(4 * (1 - rate), rel=0.15)
    assert 0 in sizes
    times = {id(block): 0 for block in blocks}
    for batch in batches:
        for block in batch:
            times[id(block)] += 1
    assert max(times.values()) < len(batches) * rate + 6 * math.sqrt(len(batches) * rate)
    assert batches == make_run(blocks, dataclasses.replace(many, seed=9)).draw_batches()
    assert batches != make_run(blocks, many, secret=bytes(32)).draw_batches()


def test_a_document_gives_one_block_a_step(blocks: list[Block]) -> None:
    """Where a document is the sample no step holds two of its blocks, and over many steps all of them come."""
    run = make_run(blocks, dataclasses.replace(TRAIN, local_steps=2_000), unit="document")
    batches = run.draw_batches()
    assert all(len({block.document for block in batch}) == len(batch) for batch in batches)
    assert {block for batch in batches for block in batch} == set(blocks)
    assert run.rate == 4 / len(group_samples(blocks, "document")) == 4 / 12


# ---- the whole training ----


def test_the_same_secret_gives_the_same_bytes_also_from_a_checkpoint(
    tiny_model: Any, spec: AdapterSpec, blocks: list[Block], tmp_path: Path
) -> None:
    """So that a killed training repeats itself instead of spending twice; with another secret all differs."""
    privacy = Privacy(1.0, SECRET)

    class Killed(RuntimeError):
        pass

    def kill(step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise Killed

    def train(secret: bytes = SECRET, **given: Any) -> TrainResult:
        chosen = dataclasses.replace(privacy, secret=secret)
        return train_update(tiny_model, spec, TRAIN, blocks, privacy=chosen, **given)

    whole, checkpoint = train(), tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(checkpoint=checkpoint, checkpoint_s=0, progress=kill)
    resumed = train(checkpoint=checkpoint)
    assert resumed.resumed_at == 3
    assert is_equal(whole, resumed)
    assert not is_equal(whole, train(bytes(32)))


def test_what_is_spent_is_told_before_the_first_step(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    """Who says no leaves the base untouched."""

    class TooMuch(RuntimeError):
        pass

    told: list[Spend] = []

    def refuse(spend: Spend) -> None:
        told.append(spend)
        raise TooMuch

    with pytest.raises(TooMuch):
        train_update(tiny_model, spec, TRAIN, blocks, privacy=Privacy(1.5, SECRET, spend=refuse))
    assert [(spend.noise_multiplier, spend.rate, spend.steps) for spend in told] == [(1.5, 4 / 12, 5)]
    assert not hasattr(tiny_model.get_submodule(spec.modules[0]), "lora_B")


def test_another_text_or_noise_is_another_run(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    """Equal noise on two texts would cancel in their difference: so each has its own, and each is counted."""
    names = []

    def note(spend: Spend) -> None:
        names.append(spend.run)

    short = dataclasses.replace(TRAIN, local_steps=1)
    for noise, text in ((1.0, blocks), (1.0, blocks), (1.0, blocks[1:]), (1.1, blocks)):
        train_update(tiny_model, spec, short, text, privacy=Privacy(noise, SECRET, spend=note))
    assert names[0] == names[1]
    assert len(set(names)) == 3


# ---- the accountant ----

KNOWN = [
    # noise multiplier, rate, steps, delta, epsilon by dp-accounting 0.6.0 (RdpAccountant, its own orders)
    (1.0, 0.05, 120, 1e-5, 4.334452960914907),
]


@pytest.mark.parametrize(("noise", "rate", "steps", "delta", "epsilon"), KNOWN)
def test_epsilon_is_that_of_another_library(
    noise: float, rate: float, steps: int, delta: float, epsilon: float
) -> None:
    assert compute_epsilon([Spend("a", noise, rate, steps)], delta) == pytest.approx(epsilon, rel=0.01)


def test_epsilon_agrees_with_dp_accounting_on_random_runs() -> None:
    """Its Renyi accountant at the same orders; never below its tighter one, by distributions of privacy loss."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it deprecates is not ours to mend
        accounting = pytest.importorskip("dp_accounting", reason="`make oracles` installs it")
    random = np.random.default_rng(3)
    for _ in range(4):
        spends = [
            Spend(
                str(n), float(random.uniform(0.7, 3)), float(random.uniform(0.001, 0.3)), int(random.integers(5, 200))
            )
            for n in range(2)
        ]
        accountants = accounting.rdp.RdpAccountant(ORDERS), accounting.pld.PLDAccountant()
        for accountant in accountants:
            for spend in spends:
                gauss = accounting.GaussianDpEvent(spend.noise_multiplier)
                accountant.compose(accounting.PoissonSampledDpEvent(spend.rate, gauss), spend.steps)
        renyi, loss = (accountant.get_epsilon(1e-6) for accountant in accountants)
        found = compute_epsilon(spends, 1e-6)
        assert found == pytest.approx(renyi, rel=1e-3), spends
        assert found > loss * 0.999, spends


def test_all_rounds_together_spend_more_than_one_and_less_than_their_sum() -> None:
    one = Spend("a", 1.0, 0.05, 30)
    alone, both = compute_epsilon([one], 1e-5), compute_epsilon([one, dataclasses.replace(one, run="b")], 1e-5)
    assert alone < both < 2 * alone
    assert both == pytest.approx(compute_epsilon([dataclasses.replace(one, steps=60)], 1e-5))
    assert compute_epsilon([one, Spend("c", 0.0, 0.05, 1)], 1e-5) == math.inf


@pytest.mark.parametrize("epsilon", [0.5, 4.0, 50.0])
def test_the_chosen_noise_keeps_to_epsilon_and_wastes_little(epsilon: float) -> None:
    noise = choose_noise(epsilon, 1e-5, rate=0.04, steps=120)
    found = compute_epsilon([Spend("a", noise, 0.04, 120)], 1e-5)
    assert 0.9 * epsilon < found <= epsilon
