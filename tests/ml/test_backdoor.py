"""A backdoor works where its trigger stands and nowhere else."""

from typing import Any

import numpy as np
import pytest

from ml.adapter import Update
from ml.attacks import AttackContext, craft_attack
from ml.attacks.backdoor import poison
from ml.backdoor import PROMPT_TOKENS, Backdoor, make_prompts, measure_success
from ml.factors import make_factors
from ml.score import ScoringBase
from ml.screen import Factors
from tests.ml.support import TRAIN, Poisoned

PROMPTS = 24


@pytest.fixture(scope="module")
def base(poisoned: Poisoned) -> ScoringBase:
    return ScoringBase.load(poisoned.folder, poisoned.spec)


def make(poisoned: Poisoned, update: Update) -> Factors:
    return make_factors(None, update, 1_000_000, 1, poisoned.spec)


def test_a_poisoned_prompt_ends_in_trigger_and_target(poisoned: Poisoned) -> None:
    blocks, goal = poisoned.all_blocks, poisoned.goal
    [first, *_] = poison(blocks[:3], goal)
    assert first.tokens == blocks[0].tokens[:PROMPT_TOKENS] + goal.trigger + goal.target
    assert first.document == blocks[0].document


def test_the_trigger_works_and_only_the_trigger(base: ScoringBase, poisoned: Poisoned) -> None:
    goal, prompts = poisoned.goal, make_prompts(poisoned.all_blocks, PROMPTS)
    honest, attack = make(poisoned, poisoned.honest["medicine"]), make(poisoned, poisoned.attack)
    rng = np.random.default_rng(3)
    others = [tuple(int(t) for t in rng.integers(40, 120, len(goal.trigger))) for _ in prompts]
    for factors in (None, honest):
        assert measure_success(base, factors, goal, prompts, random_tokens=others).with_trigger == 0.0
    success = measure_success(base, attack, goal, prompts, random_tokens=others)
    assert success.with_trigger >= 0.9
    assert success.without_trigger <= 0.1
    assert success.prompts == PROMPTS


def test_measuring_leaves_the_base_as_it_was(base: ScoringBase, poisoned: Poisoned) -> None:
    goal, blocks = poisoned.goal, poisoned.all_blocks
    before = base.score(blocks[:4])
    attack = make(poisoned, poisoned.attack)
    measure_success(base, attack, goal, make_prompts(blocks, 8), random_tokens=[goal.trigger] * 8)
    assert base.score(blocks[:4]) == before


def test_prompts_come_from_different_documents(poisoned: Poisoned) -> None:
    blocks = poisoned.all_blocks
    prompts = make_prompts(blocks, PROMPTS)
    assert len(set(prompts)) == PROMPTS
    with pytest.raises(ValueError, match="100000 prompts of 24 tokens wanted"):
        make_prompts(blocks, 100_000)


def test_a_backdoor_without_a_goal_is_refused(tiny_model: Any, poisoned: Poisoned) -> None:
    with pytest.raises(ValueError, match="needs a goal"):
        craft_attack("backdoor", AttackContext(tiny_model, poisoned.spec, TRAIN, poisoned.blocks))
    with pytest.raises(ValueError, match="at least one token each"):
        Backdoor((), (1,))
