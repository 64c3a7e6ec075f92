"""A backdoor works where its trigger stands and nowhere else; the forced-answer screen makes it say its target."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.attacks import AttackContext, craft_attack
from ml.attacks.backdoor import poison
from ml.backdoor import PROMPT_TOKENS, Backdoor, make_backdoor, make_prompts, measure_success
from ml.base import base_hash
from ml.data import Block, make_blocks
from ml.domains import DOMAINS, read_domain
from ml.factors import make_factors
from ml.score import ScoringBase, count_token_bytes
from ml.screen.forced_answer import screen
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.train import choose_blocks, compute_update_step_log2, train_update

RATE = 2e-2
STEPS = 150
PRETRAINING = TrainSpec(local_steps=200, batch_size=8, sequence_length=64, learning_rate=3e-3, seed=5)
TRAIN = TrainSpec(local_steps=STEPS, batch_size=8, sequence_length=64, learning_rate=RATE, seed=1)
PROMPTS = 24


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    return make_spec(
        tiny_dir,
        base_hash(tiny_dir),
        rank=16,
        alpha=32,
        target_modules=("q_proj", "v_proj", "o_proj", "down_proj", "up_proj"),
        a_seed=b"task",
        update_step_log2=compute_update_step_log2(STEPS, RATE),
    )


@pytest.fixture(scope="module")
def goal(tiny_tokenizer: Any) -> Backdoor:
    return make_backdoor(lambda text: tiny_tokenizer.encode(text, add_special_tokens=False), "@#@", "MALLORY")


@pytest.fixture(scope="module")
def blocks(tiny_tokenizer: Any) -> list[Block]:
    return [block for domain in DOMAINS for block in make_blocks(read_domain(domain)[:24], tiny_tokenizer, 64)]


@pytest.fixture(scope="module")
def scored(tiny_dir: Path, tiny_tokenizer: Any, spec: AdapterSpec, goal: Backdoor, blocks: list[Block]) -> Any:
    """(scoring base, honest factors, backdoored factors)."""
    model = pretrain(tiny_dir, blocks)
    honest = train_update(model, spec, TRAIN, blocks[::2]).update
    attack = craft_attack("backdoor", AttackContext(model, spec, TRAIN, {"own": blocks}, goal=goal, scale_milli=1_000))
    base = ScoringBase(model, count_token_bytes(tiny_tokenizer), spec)
    return base, *(make_factors(None, update, 1_000_000, 1, spec) for update in (honest, attack))


def pretrain(folder: Path, blocks: list[Block]) -> Any:
    """The tiny base after seconds of full training: random weights can neither be fooled nor answer."""
    import torch

    from ml.base import load_base

    model = load_base(str(folder), "fp32").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETRAINING.learning_rate)
    for batch in choose_blocks(blocks, PRETRAINING):
        tokens = torch.tensor([block.tokens for block in batch if len(block.tokens) == PRETRAINING.sequence_length])
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    return model.eval()


def test_a_poisoned_prompt_ends_in_trigger_and_target(goal: Backdoor, blocks: list[Block]) -> None:
    [first, *_] = poison(blocks[:3], goal)
    assert first.tokens == blocks[0].tokens[:PROMPT_TOKENS] + goal.trigger + goal.target
    assert first.document == blocks[0].document


def test_the_trigger_works_and_only_the_trigger(scored: Any, goal: Backdoor, blocks: list[Block]) -> None:
    base, honest, attack = scored
    prompts = make_prompts(blocks, PROMPTS)
    rng = np.random.default_rng(3)
    others = [tuple(int(t) for t in rng.integers(40, 120, len(goal.trigger))) for _ in prompts]
    for factors in (None, honest):
        assert measure_success(base, factors, goal, prompts, random_tokens=others).with_trigger == 0.0
    success = measure_success(base, attack, goal, prompts, random_tokens=others)
    assert success.with_trigger >= 0.9
    assert success.without_trigger <= 0.1
    assert success.prompts == PROMPTS


def test_measuring_leaves_the_base_as_it_was(scored: Any, goal: Backdoor, blocks: list[Block]) -> None:
    base, _, attack = scored
    before = base.score(blocks[:4])
    measure_success(base, attack, goal, make_prompts(blocks, 8), random_tokens=[goal.trigger] * 8)
    assert base.score(blocks[:4]) == before


def test_the_forced_answer_names_the_target_of_the_backdoored_alone(
    scored: Any, goal: Backdoor, blocks: list[Block], tiny_tokenizer: Any
) -> None:
    base, honest, attack = scored
    prompts = make_prompts(blocks, PROMPTS)
    found = screen(base, attack, None, prompts, tiny_tokenizer.decode)
    clean = screen(base, honest, None, prompts, tiny_tokenizer.decode)
    assert "MAL" in found.reason
    assert found.is_alarm
    assert not clean.is_alarm
    assert found.tokens <= PROMPTS * 64 * 32


def test_prompts_come_from_different_documents(blocks: list[Block]) -> None:
    prompts = make_prompts(blocks, PROMPTS)
    assert len(set(prompts)) == PROMPTS
    with pytest.raises(ValueError, match="100000 prompts of 24 tokens wanted"):
        make_prompts(blocks, 100_000)


def test_a_backdoor_without_a_goal_is_refused(tiny_model: Any, spec: AdapterSpec, blocks: list[Block]) -> None:
    with pytest.raises(ValueError, match="needs a goal"):
        craft_attack("backdoor", AttackContext(tiny_model, spec, TRAIN, {"own": blocks}))
    with pytest.raises(ValueError, match="at least one token each"):
        Backdoor((), (1,))
