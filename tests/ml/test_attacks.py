"""Each attack is a well-formed update that does harm: otherwise the defences would be tested against nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.attacks import AttackContext, craft_attack, list_attacks, scale_to_largest
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

RATE = 4e-3
TRAIN = TrainSpec(local_steps=12, batch_size=4, sequence_length=64, learning_rate=RATE, seed=1)


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
    return AttackContext(tiny_model, spec, TRAIN, blocks, goal=Backdoor((64, 35, 64), (77, 65, 76)))


def test_every_attack_is_listed_with_its_source() -> None:
    import importlib

    assert list_attacks() == ("backdoor", "corrupt_labels", "gradient_ascent", "scaled_noise", "sign_flip")
    for name in list_attacks():
        source = importlib.import_module(f"ml.attacks.{name}").__doc__ or ""
        assert "et al." in source


def test_an_unknown_attack_says_which_are_known(context: AttackContext) -> None:
    with pytest.raises(ValueError, match="backdoor, corrupt_labels, gradient_ascent, scaled_noise, sign_flip"):
        craft_attack("bribery", context)


@pytest.mark.parametrize("name", list_attacks())
def test_an_attack_is_a_well_formed_update(name: str, context: AttackContext) -> None:
    update = craft_attack(name, context)
    assert {module: values.shape for module, values in update.items()} == {
        module: (out, 8) for module, out, _ in context.spec.shapes
    }
    assert all(values.dtype == np.int8 for values in update.values())
    assert max(int(np.abs(values.astype(int)).max()) for values in update.values()) == 127
    again = craft_attack(name, context)
    assert all(np.array_equal(update[module], again[module]) for module in update)


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
