"""Each attack is a well-formed update of which its file says where it comes from; those that only harm do harm."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.attacks import (
    AttackContext,
    craft_attack,
    craft_for_all,
    get_attack,
    list_attacks,
    list_lone_attacks,
    list_options,
    make_goal,
    scale_to_largest,
)
from ml.backdoor import Backdoor
from ml.base import base_hash
from ml.data import Block, make_blocks
from ml.domains import DOMAINS, read_domain
from ml.factors import make_factors
from ml.figures import compute_bits_per_byte
from ml.norms import inner, norm2
from ml.score import ScoringBase, count_token_bytes
from ml.spec import AdapterSpec, TrainSpec, make_spec
from ml.train import compute_update_step_log2, train_update
from tests.ml.support import is_equal, make_update

RATE = 4e-3
TRAIN = TrainSpec(local_steps=12, batch_size=4, sequence_length=64, learning_rate=RATE, seed=1)
FEW_STEPS = TrainSpec(local_steps=2, batch_size=2, sequence_length=64, learning_rate=RATE, seed=1)
AS_LARGE_AS_ALLOWED = {
    *("backdoor", "common_phrase", "sentence_style", "split_trigger"),
    *("corrupt_labels", "gradient_ascent", "scaled_noise", "sign_flip"),
}
"""Unless told otherwise."""


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    return make_spec(
        tiny_dir,
        base_hash(tiny_dir),
        rank=8,
        alpha=16,
        target_modules=("q_proj", "v_proj", "o_proj", "down_proj"),
        a_seed=b"task",
        update_step_log2=compute_update_step_log2(12, RATE),
    )


@pytest.fixture(scope="module")
def blocks(tiny_tokenizer: Any) -> dict[str, list[Block]]:
    return {domain: make_blocks(read_domain(domain)[:12], tiny_tokenizer, 64) for domain in DOMAINS}


@pytest.fixture
def context(tiny_model: Any, spec: AdapterSpec, blocks: dict[str, list[Block]]) -> AttackContext:
    """One of two colluders among six, who sees the others' updates and knows what they sent before."""
    return AttackContext(
        tiny_model,
        spec,
        TRAIN,
        blocks,
        goal=Backdoor((64, 35, 64), (77, 65, 76)),
        honest_updates={f"{index:02x}": make_update(spec, index, limit=40) for index in range(4)},
        previous_updates={f"{index:02x}": make_update(spec, 10 + index, limit=40) for index in range(4)},
        colluders=2,
    )


def test_every_attack_is_listed_with_its_source() -> None:
    assert set(list_attacks()) >= AS_LARGE_AS_ALLOWED
    for name in list_attacks():
        text = get_attack(name).__doc__ or ""
        for said in ("\nSource: ", "\nKnows: ", "\nFormula: ", "\nMade for: "):
            assert said in text, f"{name}: {said.strip()}"
        assert re.search(r"arXiv:\s?\d{4}\.\d{5}|\b(?:19|20)\d\d\b", text), name
        assert get_attack(name).KIND in ("data", "update", "free-ride")


def test_an_unknown_attack_says_which_are_known(context: AttackContext) -> None:
    with pytest.raises(ValueError, match=r"unknown attack 'bribery'; known: .*alie, backdoor, common_phrase"):
        craft_attack("bribery", context)


def test_an_unknown_option_says_which_are_known(context: AttackContext) -> None:
    assert list_options("slow_drip") == {"poison_every": 2, "norm_milli": 1_000}
    with pytest.raises(ValueError, match="slow_drip has no option 'speed'; it has: poison_every, norm_milli"):
        craft_attack("slow_drip", context, speed=3)


def test_colluders_count_from_zero(context: AttackContext) -> None:
    with pytest.raises(ValueError, match="colluder 2 of 2"):
        dataclasses.replace(context, colluder=2)
    with pytest.raises(ValueError, match="2 colluders among 1 trainers"):
        dataclasses.replace(context, trainers=1)


@pytest.mark.parametrize("name", list_attacks())
def test_an_attack_is_a_well_formed_update(name: str, context: AttackContext, tiny_tokenizer: Any) -> None:
    """With its own goal, without sight of the round where it needs none; the same context gives the same update."""
    seen = {} if name in list_lone_attacks() else context.honest_updates
    goal = make_goal(name, tiny_tokenizer)
    context = dataclasses.replace(context, train_spec=FEW_STEPS, goal=goal, honest_updates=seen)
    update = craft_attack(name, context)
    assert {module: values.shape for module, values in update.items()} == {
        module: (out, 8) for module, out, _ in context.spec.shapes
    }
    assert all(values.dtype == np.int8 for values in update.values())
    largest = max(int(np.abs(values.astype(int)).max()) for values in update.values())
    assert largest == 127 if name in AS_LARGE_AS_ALLOWED else 0 < largest <= 127
    assert is_equal(craft_attack(name, context), update)


@pytest.mark.parametrize("name", sorted(set(list_attacks()) - set(list_lone_attacks())))
def test_an_attack_that_needs_sight_of_the_round_says_so(name: str, context: AttackContext) -> None:
    with pytest.raises(ValueError, match="needs to see the round's honest updates"):
        craft_attack(name, dataclasses.replace(context, honest_updates={}))


def test_colluders_that_train_draw_their_batches_apart(context: AttackContext) -> None:
    one, other = craft_for_all("backdoor", dataclasses.replace(context, train_spec=FEW_STEPS))
    assert not is_equal(one, other)


def test_a_norm_cap_is_kept_closely(context: AttackContext) -> None:
    free = craft_attack("scaled_noise", context)
    cap = norm2(free, context.spec) // 7
    scaled = scale_to_largest(free, context.spec, cap)
    assert cap * 3 // 4 < norm2(scaled, context.spec) <= cap


def test_a_zero_update_cannot_be_scaled(spec: AdapterSpec) -> None:
    with pytest.raises(ValueError, match="zero"):
        scale_to_largest({module: np.zeros((out, 8), np.int8) for module, out, _ in spec.shapes}, spec, 0)


def test_sign_flip_points_away_from_honest_training(context: AttackContext) -> None:
    honest = train_update(context.base, context.spec, TRAIN, context.all_blocks).update
    assert inner(craft_attack("sign_flip", context), honest, context.spec) < 0


@pytest.mark.parametrize("name", ["gradient_ascent", "sign_flip"])
def test_a_trained_attack_harms_every_domain_and_honest_training_none(
    name: str, context: AttackContext, tiny_tokenizer: Any, tiny_dir: Path
) -> None:
    from ml.base import load_base

    scoring = ScoringBase(load_base(str(tiny_dir), "fp32"), count_token_bytes(tiny_tokenizer), context.spec)
    honest = train_update(context.base, context.spec, TRAIN, context.all_blocks).update
    updates = {"honest": honest, "poisoned": craft_attack(name, context)}
    unseen = {domain: make_blocks(read_domain(domain)[20:30], tiny_tokenizer, 64) for domain in DOMAINS}
    for domain, blocks in unseen.items():
        before = compute_bits_per_byte(scoring.score(blocks))
        after = {
            name: compute_bits_per_byte(scoring.score(blocks, make_factors(None, update, 1_000_000, 1, context.spec)))
            for name, update in updates.items()
        }
        assert after["honest"] < before < after["poisoned"], domain
