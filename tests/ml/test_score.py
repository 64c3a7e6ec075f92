"""Loss per block: the golden vector, equality with transformers' own loss, and adapters merged without a trace."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ml.base import load_base
from ml.data import Block
from ml.factors import make_factors, make_global_factors
from ml.figures import BlockLoss, compute_bits_per_byte, compute_loss_ubpb
from ml.score import ScoringBase, count_token_bytes
from ml.spec import AdapterSpec, make_spec
from tests.ml.support import make_global, make_update

TEXTS = ["def f(x):\n    return x + 1\n", "Über naïve café — 漢字 and 🙂🙃", "the quick brown fox " * 20, "ab"]


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    modules = ("q_proj", "v_proj")
    return make_spec(tiny_dir, "ab" * 32, rank=4, alpha=8, target_modules=modules, a_seed=b"task", update_step_log2=-11)


@pytest.fixture
def base(tiny_dir: Path, spec: AdapterSpec) -> ScoringBase:
    return ScoringBase.load(tiny_dir, spec, "fp32")


def make_blocks(tokenizer: Any, limit: int = 64) -> list[Block]:
    encoded = [tokenizer.encode(text, add_special_tokens=False)[:limit] for text in TEXTS]
    return [Block(f"document {index}", tuple(tokens)) for index, tokens in enumerate(encoded)]


def test_golden_vector(base: ScoringBase, tiny_tokenizer: Any) -> None:
    """A head of zeros gives every one of the 259 tokens the same chance, so the loss is known by hand.

    "héllo🙂" is 10 bytes and so 10 tokens here; with the end token there are 10 targets (the first token is context)
    that cover 9 bytes (the end token has none): 10 * log2(259) / 9 bits per byte.
    """
    with torch.no_grad():
        base.model.get_output_embeddings().weight.zero_()
    tokens = (*tiny_tokenizer.encode("héllo🙂", add_special_tokens=False), tiny_tokenizer.eos_token_id)
    (loss,) = base.score([Block("d", tokens)])
    assert (loss.targets, loss.target_bytes) == (10, 9)
    assert compute_bits_per_byte([loss]) == pytest.approx(10 * math.log2(259) / 9, rel=1e-6)
    assert compute_loss_ubpb([loss]) == pytest.approx(8_907_565, abs=10)


def test_the_loss_is_that_of_transformers(base: ScoringBase, tiny_tokenizer: Any) -> None:
    for block in make_blocks(tiny_tokenizer):
        ids = torch.tensor([list(block.tokens)])
        with torch.inference_mode():
            theirs = base.model(input_ids=ids, labels=ids).loss.item()
        (ours,) = base.score([block])
        text = tiny_tokenizer.decode(block.tokens[1:]).encode()
        if b"\xef\xbf\xbd" not in text:
            assert ours.target_bytes == len(text)
        expected = theirs * ours.targets / math.log(2) / ours.target_bytes
        assert compute_bits_per_byte([ours]) == pytest.approx(expected, rel=1e-6)


def test_padding_and_batch_mates_do_not_change_a_loss(base: ScoringBase, tiny_tokenizer: Any) -> None:
    blocks = make_blocks(tiny_tokenizer)
    together = base.score(blocks)
    alone = [base.score([block])[0] for block in blocks]
    for one, other in zip(together, alone, strict=True):
        assert (one.document, one.targets, one.target_bytes) == (other.document, other.targets, other.target_bytes)
        assert one.nats == pytest.approx(other.nats, abs=1e-4)


def test_a_token_of_many_bytes_and_half_a_character_are_counted_in_bytes(tmp_path: Path) -> None:
    """Byte-level BPE with merges: "é" is one token of two bytes, an emoji is four lone bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate([*characters, "Ã©", "ab"])}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ã", "©"), ("a", "b")]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>")
    counts = count_token_bytes(tokenizer)
    assert counts[tokenizer.convert_tokens_to_ids("Ã©")] == 2
    assert counts[tokenizer.eos_token_id] == 0
    for text in ("abé", "🙂 ab", " é\n"):
        assert counts[tokenizer.encode(text, add_special_tokens=False)].sum() == len(text.encode())


def test_merging_is_the_same_as_a_lora_beside_the_weight(
    base: ScoringBase, spec: AdapterSpec, tiny_tokenizer: Any
) -> None:
    """Against stock peft in fp32, not against our own product."""
    from ml.lora import attach, detach

    adapter, blocks = make_global(spec, seed=1), make_blocks(tiny_tokenizer)
    ours = compute_bits_per_byte(base.score(blocks, make_global_factors(adapter, spec)))
    assert abs(ours - compute_bits_per_byte(base.score(blocks))) > 1e-3
    wrapped = attach(base.model, spec, adapter)
    theirs = compute_bits_per_byte(base.score(blocks))
    detach(wrapped)
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_scoring_leaves_the_base_as_it_was(tiny_dir: Path, spec: AdapterSpec, tiny_tokenizer: Any) -> None:
    """In bf16, where merging and unmerging in place would round."""
    base = ScoringBase.load(tiny_dir, spec, "bf16")
    before = {name: values.clone() for name, values in base.model.state_dict().items()}
    blocks = make_blocks(tiny_tokenizer)
    first = base.score(blocks)
    for seed in range(3):
        base.score(blocks, make_global_factors(make_global(spec, seed), spec))
    assert all(torch.equal(values, before[name]) for name, values in base.model.state_dict().items())
    assert base.score(blocks) == first


def test_the_base_is_restored_after_a_failure(base: ScoringBase, spec: AdapterSpec, tiny_tokenizer: Any) -> None:
    blocks = make_blocks(tiny_tokenizer)
    first = base.score(blocks)
    with pytest.raises(IndexError):
        base.score([Block("d", (1, 100_000))], make_global_factors(make_global(spec, 1), spec))
    assert base.score(blocks) == first


def test_domains_together_score_as_each_alone(base: ScoringBase, spec: AdapterSpec, tiny_tokenizer: Any) -> None:
    blocks, factors = make_blocks(tiny_tokenizer), make_global_factors(make_global(spec, 1), spec)
    together = base.score_domains({"code": blocks[:3], "law": blocks[3:]}, factors)
    assert together == {"code": base.score(blocks[:3], factors), "law": base.score(blocks[3:], factors)}


def test_remembered_losses_are_those_of_that_adapter_and_block(
    base: ScoringBase, spec: AdapterSpec, tiny_tokenizer: Any
) -> None:
    blocks, factors = make_blocks(tiny_tokenizer), make_global_factors(make_global(spec, 1), spec)
    fresh, bare = base.score(blocks, factors), base.score(blocks)
    assert base.score_cached("root", factors, blocks) == fresh
    assert base.score_cached("", None, blocks) == bare != fresh
    # Not scored again: with another adapter under the same root the remembered losses come back.
    assert base.score_cached("root", None, [*reversed(blocks), blocks[0]]) == [*reversed(fresh), fresh[0]]


def test_an_update_is_added_in_its_strength_of_use(spec: AdapterSpec) -> None:
    adapter, update = make_global(spec, 1), make_update(spec, 2)
    factors = make_factors(adapter, update, 500_000, 4, spec)
    for module, _, _ in spec.shapes:
        expected = adapter[module] * 2.0**-19 + update[module] * 2.0**-11 / 8
        assert np.array_equal(factors[module], expected.astype(np.float32))
    assert make_global_factors(None, spec) is None


def test_no_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="no bytes to score"):
        compute_bits_per_byte([BlockLoss("d", 1.0, 1, 0)])


@pytest.fixture(scope="module")
def four_bit(tiny_dir: Path, spec: AdapterSpec) -> ScoringBase:
    return ScoringBase.load(tiny_dir, spec, "nf4")


def test_a_four_bit_base_carries_adapters_beside_its_weights(
    four_bit: ScoringBase, tiny_dir: Path, spec: AdapterSpec, tiny_tokenizer: Any
) -> None:
    """The loss is that of the dequantised weights with the adapter merged in; without it, bit for bit the base's."""
    from bitsandbytes.functional import dequantize_4bit

    blocks, factors = make_blocks(tiny_tokenizer), make_global_factors(make_global(spec, 1), spec)
    assert factors is not None
    bare, carried = four_bit.score(blocks), four_bit.score(blocks, factors)
    merged = load_base(str(tiny_dir), "bf16")
    with torch.no_grad():
        for name, layer in four_bit.model.named_modules():
            if hasattr(layer, "quant_state") or type(layer).__name__ == "Linear4bit":
                weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
                merged.get_submodule(name).weight.copy_(weight)
    expected = ScoringBase(merged, four_bit.token_bytes, spec).score(blocks, factors)
    for one, other, base in zip(carried, expected, bare, strict=True):
        assert one.nats == pytest.approx(other.nats, rel=5e-3)
        assert abs(base.nats - other.nats) > 2 * abs(one.nats - other.nats)
    assert four_bit.score(blocks) == bare


def test_a_four_bit_base_changes_adapters_within_a_reference(
    four_bit: ScoringBase, spec: AdapterSpec, tiny_tokenizer: Any
) -> None:
    """As screens do: one adapter inside another's block, the outer one back afterwards, the base after all."""
    blocks = make_blocks(tiny_tokenizer)[:2]
    one, other = (make_global_factors(make_global(spec, seed), spec) for seed in (1, 2))
    assert one is not None
    with four_bit.merged(one):
        inside = four_bit.score(blocks, other)
        again = four_bit.score(blocks)
    assert inside == four_bit.score(blocks, other)
    assert again == four_bit.score(blocks, one)
