"""A tiny random Llama (90,624 parameters) with a byte-level tokenizer, as a normal model folder.

For tests and `flockchain demo --model tiny`: every code path is the real one, only the weights are random. They come
from SHAKE-256 as integers, so that the folder's weights are the same on every machine.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ml.data import Block
from ml.spec import TrainSpec

TINY_FOLDER = "tiny-llama-1"
VOCABULARY = 259
"""256 bytes and three special tokens."""
SPECIAL = ("<pad>", "<s>", "</s>")
WEIGHT_SCALE = 2.0**-9
"""Sums of 8 bytes have a standard deviation of about 209: times this 0.41 of the layer's 1/sqrt(fan-in)."""
CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": VOCABULARY,
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
    "tie_word_embeddings": True,
}


def write_tiny(folder: Path, seed: int = 0) -> None:
    """Write config, weights and tokenizer into an existing folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ml.base import save_model

    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).to(torch.float32)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 1:
                parameter.fill_(1.0)  # RMSNorm
            else:
                parameter.copy_(torch.from_numpy(draw_weights(seed, name, tuple(parameter.shape))))
    save_model(model, folder)
    _write_tokenizer(folder)


def pretrain_tiny(folder: Path, blocks: Sequence[Block], plan: TrainSpec) -> Any:
    """Train all weights of the base in `folder` in place, and return the model.

    Random weights can neither be fooled nor answer; after seconds of training on plain text they can do both. Blocks
    shorter than the plan's sequence are left out. Deterministic on one machine, so a folder of its own per plan.
    """
    import torch

    from ml.base import load_base, save_model
    from ml.train import choose_blocks

    model = load_base(str(folder), "fp32").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate)
    whole = [block for block in blocks if len(block.tokens) >= plan.sequence_length]
    for batch in choose_blocks(whole, plan):
        tokens = torch.tensor([block.tokens[: plan.sequence_length] for block in batch])
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    save_model(model, folder)
    return model.eval()


def draw_weights(seed: int, name: str, shape: tuple[int, ...]) -> Any:
    """float32 of this shape, close to normal: sums of 8 signed bytes (Irwin-Hall), over sqrt(fan-in) as 2**k."""
    count = int(np.prod(shape))
    stream = hashlib.shake_256(f"flockchain/tiny/1 {seed} {name}".encode()).digest(8 * count)
    sums = np.frombuffer(stream, np.int8).reshape(count, 8).sum(axis=1, dtype=np.int32)
    fan_in_log2 = shape[-1].bit_length() - 1
    return (sums.astype(np.float32) * np.float32(WEIGHT_SCALE * 2.0 ** -(fan_in_log2 / 2))).reshape(shape)


def _write_tokenizer(folder: Path) -> None:
    """One token per byte (GPT-2's printable characters stand for bytes), no merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(characters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)
    assert len(wrapped) == VOCABULARY
    wrapped.save_pretrained(folder)
