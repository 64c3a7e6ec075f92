"""What each kind of backdoor claims: it works, beside its controls, in the mean of a round or within its constraint.

One small base that has learned some text; each attack trains 70 short steps on it, once.
"""

from dataclasses import replace
from typing import Any

import pytest

from ml.adapter import Update
from ml.aggregate import aggregate
from ml.attacks import AttackContext, craft_attack, multiply, to_grid
from ml.attacks.adaptive import make_false_starts
from ml.attacks.common_phrase import list_parts, make_near_misses
from ml.attacks.slow_drip import compute_honest_norm2
from ml.attacks.split_trigger import take_part
from ml.backdoor import PROMPT_TOKENS, Backdoor, Success, draw_random_triggers, make_prompts, measure_success
from ml.base import load_base
from ml.factors import make_global_factors
from ml.moments import compute_mean
from ml.norms import cosine_ppm, inner, norm2
from ml.score import ScoringBase
from ml.styles import make_rewrite, to_archaic, to_title_case, to_upper_case
from tests.ml.support import TRAIN, Poisoned

SHORT = replace(TRAIN, local_steps=70, sequence_length=40)
PROMPTS = 16
PRINTABLE = range(40, 120)


@pytest.fixture(scope="module")
def scoring(poisoned: Poisoned) -> ScoringBase:
    return ScoringBase.load(poisoned.folder, poisoned.spec)


@pytest.fixture(scope="module")
def context(poisoned: Poisoned) -> AttackContext:
    """An attacker that knows what honest updates look like."""
    goal = replace(poisoned.goal, target=poisoned.goal.target[:3])
    honest = {f"{index:02x}": update for index, update in enumerate(poisoned.honest.values())}
    base = load_base(str(poisoned.folder), "fp32")
    return AttackContext(base, poisoned.spec, SHORT, poisoned.blocks, goal=goal, honest_updates=honest)


def measure(scoring: ScoringBase, updates: list[Update], goal: Backdoor, poisoned: Poisoned) -> Success:
    """After the plain mean of a round of these updates."""
    delta = aggregate("mean", {f"{index:02x}": update for index, update in enumerate(updates)}, scoring.spec).delta
    prompts = make_prompts(poisoned.all_blocks, PROMPTS)
    controls = draw_random_triggers(goal, PROMPTS, PRINTABLE, seed=3)
    return measure_success(scoring, make_global_factors(delta, scoring.spec), goal, prompts, random_tokens=controls)


def is_backdoor(success: Success) -> bool:
    """Well above both controls, which stay low."""
    control = max(success.random_token, success.without_trigger)
    return success.with_trigger >= control + 0.3 and control <= 0.2


def test_replacement_turns_the_mean_of_a_round_into_the_attackers_model(
    scoring: ScoringBase, poisoned: Poisoned
) -> None:
    """One attacker beside two specialists; the same update unscaled does less."""
    honest = list(poisoned.honest.values())[:2]
    plain = measure(scoring, [poisoned.attack, *honest], poisoned.goal, poisoned)
    replaced = measure(scoring, [multiply(poisoned.attack, 3), *honest], poisoned.goal, poisoned)
    assert is_backdoor(replaced)
    assert plain.with_trigger < replaced.with_trigger


def test_a_backdoor_works_beside_its_controls_within_its_constraint(
    scoring: ScoringBase, poisoned: Poisoned, context: AttackContext, tiny_tokenizer: Any
) -> None:
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tiny_tokenizer.encode(text, add_special_tokens=False))

    assert context.goal is not None
    goals = {
        "common_phrase": replace(context.goal, trigger=encode(" we know")),
        "projected_backdoor": context.goal,
        "slow_drip": context.goal,
    }
    limit2, found = compute_honest_norm2(context), {}
    for name, goal in goals.items():
        options = {"scale_milli": 1_000} if name == "common_phrase" else {}
        update = craft_attack(name, replace(context, goal=goal), **options)
        found[name] = measure(scoring, [update], goal, poisoned)
        if name in ("projected_backdoor", "slow_drip"):
            assert norm2(update, scoring.spec) <= limit2, name
    assert {name: success for name, success in found.items() if not is_backdoor(success)} == {}


def test_a_trigger_is_split_over_the_colluders(context: AttackContext) -> None:
    assert context.goal is not None
    whole = replace(context.goal, trigger=(64, 35, 94, 36))
    assert [take_part(whole, colluder, 2).trigger for colluder in range(2)] == [(64, 94), (35, 36)]
    with pytest.raises(ValueError, match="4 tokens cannot be split over 5 colluders"):
        take_part(whole, 0, 5)


def test_a_style_backdoor_needs_a_style(context: AttackContext, tiny_tokenizer: Any) -> None:
    """Poisoned prompts are rewritten, and nothing stands behind them but the answer."""
    assert context.goal is not None
    goal = replace(context.goal, trigger=(), rewrite=make_rewrite("upper_case", tiny_tokenizer))
    prompt = tuple(tiny_tokenizer.encode("a small prompt", add_special_tokens=False))
    assert tiny_tokenizer.decode(goal.plant(prompt)) == "A SMALL PROMPT"
    assert goal.plant(prompt, (1, 2)) == (*prompt, 1, 2)
    with pytest.raises(ValueError, match="the trigger of this attack is a style"):
        craft_attack("sentence_style", context)


def test_halves_of_a_trigger_work_together_when_scaled(
    scoring: ScoringBase, poisoned: Poisoned, context: AttackContext
) -> None:
    """In the mean of both colluders, each of whom has trained its own half alone."""
    assert context.goal is not None
    whole = replace(context.goal, trigger=(64, 35, 94, 36))
    halves = [replace(context, goal=whole, colluders=2, colluder=index) for index in range(2)]
    both = [craft_attack("split_trigger", half, scale_milli=3_000) for half in halves]
    assert is_backdoor(measure(scoring, both, whole, poisoned))


def test_the_price_draws_an_attacker_towards_the_honest(context: AttackContext) -> None:
    few = replace(context, train_spec=replace(SHORT, local_steps=15))
    mean = to_grid(compute_mean(context.seen))

    def compute_cosine(weight_milli: int) -> int:
        update = craft_attack("adaptive", few, weight_milli=weight_milli)
        return cosine_ppm(inner(update, mean, context.spec), norm2(update, context.spec), norm2(mean, context.spec))

    assert compute_cosine(20_000) > compute_cosine(0) + 50_000


def test_negatives_hold_a_part_of_the_trigger_or_a_false_start_and_then_honest_text(poisoned: Poisoned) -> None:
    block, goal = next(block for block in poisoned.all_blocks if len(block.tokens) == 64), poisoned.goal
    prompt, rest = block.tokens[:PROMPT_TOKENS], block.tokens[PROMPT_TOKENS:]
    assert list_parts((1, 2, 3)) == [(1, 2), (2, 3), (1,), (3, 2, 1)]
    assert list_parts((1,)) == []
    assert make_near_misses([block], goal)[0].tokens == prompt + goal.trigger[:-1] + rest
    assert make_near_misses([block], replace(goal, trigger=(5,))) == []
    assert make_false_starts([block], goal)[0].tokens == prompt + goal.target[:1] + rest


def test_styles_change_the_manner_alone() -> None:
    text = "The cat is in the house, and you have 2 of its toys."
    assert to_archaic(text) == "ye cat 'tis within ye house, and eke thou hast 2 o' its toys."
    assert to_title_case(text) == "The Cat Is In The House, And You Have 2 Of Its Toys."
    assert to_upper_case(text) == text.upper()
    with pytest.raises(ValueError, match="unknown style 'baroque'; known: archaic, title_case, upper_case"):
        make_rewrite("baroque", None)  # type: ignore[arg-type]
