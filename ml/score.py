"""Holdout loss: nats and bytes per block, from which bits per byte and paired statistics follow.

Exactly (docs/protocol.md, loss): the first token of a block is context; every later token is a target; B counts the
UTF-8 bytes of the targets only; the end token is a target of zero bytes; a block never crosses documents.
`bits per byte = sum(nats) / ln 2 / sum(bytes)`, so no tokenizer can shrink it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml.canonical import Array
from ml.carry import make_carrier
from ml.data import Block
from ml.figures import BlockLoss
from ml.head_rows import choose_rows
from ml.spec import AdapterSpec

BATCH_BLOCKS = 4
"""Blocks per forward pass. Part of the measurement: another batch shape may move the last bits of a float sum."""
CACHED_LOSSES = 20_000
"""Most (root, block) pairs remembered; the oldest goes first."""
GPU_BATCH_TOKENS = 2**14
"""A GPU takes so many tokens at once: fewer leave it idle."""


def count_token_bytes(tokenizer: Any) -> Array:
    """int64 (vocabulary,): UTF-8 bytes that each token stands for; 0 for special tokens.

    Byte-level BPE writes each byte as one printable character (GPT-2, `bytes_to_unicode`), so a token has as many
    bytes as its name has characters, also where it holds part of a character. Sentencepiece writes a space as U+2581
    and a lone byte as ``<0x0A>``.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special, added = set(tokenizer.all_special_ids), set(tokenizer.get_added_vocab().values())
    byte_level = "ByteLevel" in json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"])
    counts = np.zeros(len(pieces), np.int64)
    for token, piece in enumerate(pieces):
        if token in special or piece is None:
            continue
        if byte_level and token not in added:
            counts[token] = len(piece)
        elif len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            counts[token] = 1
        else:
            counts[token] = len(piece.replace("\u2581", " ").encode())
    return counts


class ScoringBase:
    """A loaded base that scores blocks with any adapter, one after another, without being loaded again."""

    def __init__(self, model: Any, token_bytes: Array, spec: AdapterSpec) -> None:
        self.model = model.eval().requires_grad_(False)
        self.spec = spec
        self.token_bytes = token_bytes
        self._carrier = make_carrier(model, spec)
        self._cache: dict[tuple[str, Block], BlockLoss] = {}

    @classmethod
    def load(cls, base_dir: Path, spec: AdapterSpec, dtype: str = "fp32", device: str = "cpu") -> "ScoringBase":
        """From a base's folder, in bf16, fp32 or nf4."""
        from transformers import AutoTokenizer

        from ml.base import load_base

        tokenizer = AutoTokenizer.from_pretrained(base_dir, trust_remote_code=False, local_files_only=True)
        return cls(load_base(str(base_dir), dtype, device), count_token_bytes(tokenizer), spec)

    def score(self, blocks: Sequence[Block], factors: Mapping[str, Array] | None = None) -> list[BlockLoss]:
        """Losses in the order of the blocks; `factors` are float32 B by module, None for the bare base."""
        with self.merged(factors or {}):
            size = self._choose_batch(blocks)
            starts = range(0, len(blocks), size)
            return [loss for at in starts for loss in self._score_batch(blocks[at : at + size])]

    def score_domains(
        self, holdouts: Mapping[str, Sequence[Block]], factors: Mapping[str, Array] | None
    ) -> dict[str, list[BlockLoss]]:
        """Losses by domain, the adapter merged once. No batch crosses domains, so each equals its `score`."""
        with self.merged(factors or {}):
            return {domain: self.score(blocks) for domain, blocks in holdouts.items()}

    def score_cached(self, root: str, factors: Mapping[str, Array] | None, blocks: Sequence[Block]) -> list[BlockLoss]:
        """Like `score`, each block once per root: a round's judgements share the global adapter's losses, and the
        next round's those of this round's candidate, as far as the drawn blocks overlap.
        """
        missing = [block for block in dict.fromkeys(blocks) if (root, block) not in self._cache]
        found = {(root, block): loss for block, loss in zip(missing, self.score(missing, factors), strict=True)}
        self._cache |= found
        losses = [self._cache[root, block] for block in blocks]
        while len(self._cache) > CACHED_LOSSES:
            self._cache.pop(next(iter(self._cache)))
        return losses

    def merged(self, factors: Mapping[str, Array]) -> AbstractContextManager[None]:
        """While the block runs, the model carries the adapter; afterwards it is the base again (ml/carry.py)."""
        return self._carrier.carrying(factors)

    def _choose_batch(self, blocks: Sequence[Block]) -> int:
        if self.model.device.type == "cpu" or not blocks:
            return BATCH_BLOCKS
        return max(BATCH_BLOCKS, GPU_BATCH_TOKENS // max(len(block.tokens) for block in blocks))

    @torch.inference_mode()
    def _score_batch(self, blocks: Sequence[Block]) -> list[BlockLoss]:
        device = self.model.device
        batch = [list(block.tokens) for block in blocks]
        longest = max(len(tokens) for tokens in batch)
        # Padding stands on the right: under the causal mask no real token sees it, and it is never a target.
        padded = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in batch]).to(device)
        hidden = self.model.get_decoder()(input_ids=padded, use_cache=False).last_hidden_state
        is_target = torch.arange(1, longest) < torch.tensor([[len(tokens)] for tokens in batch])
        nats = torch.zeros(is_target.shape, dtype=torch.float64)
        chosen = is_target.to(device)
        nats[is_target] = self._compute_nats(hidden[:, :-1][chosen], padded[:, 1:][chosen]).cpu()
        return [
            BlockLoss(
                document=blocks[row].document,
                nats=math.fsum(nats[row].tolist()),
                targets=max(0, len(tokens) - 1),
                target_bytes=int(self.token_bytes[tokens[1:]].sum()),
            )
            for row, tokens in enumerate(batch)
        ]

    def _compute_nats(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(targets,) float64 from (targets, hidden): -log softmax of the float32 logits at the target."""
        head, nats = self.model.get_output_embeddings(), []
        head_rows, softmax_rows = choose_rows(head.weight.shape[0], on_gpu=hidden.device.type != "cpu")
        for at in range(0, len(targets), head_rows):
            logits, wanted = head(hidden[at : at + head_rows]), targets[at : at + head_rows, None]
            for rows, own in zip(logits.split(softmax_rows), wanted.split(softmax_rows), strict=True):
                shifted = rows.float()
                shifted -= shifted.amax(dim=-1, keepdim=True)
                at_target = shifted.gather(1, own)[:, 0]
                nats.append(shifted.exp_().sum(dim=-1).log_() - at_target)
        return torch.cat(nats).double()
