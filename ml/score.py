"""Holdout loss: nats and bytes per block, from which bits per byte and paired statistics follow.

Exactly (docs/protocol.md, loss): the first token of a block is context; every later token is a target; B counts the
UTF-8 bytes of the targets only; the end token is a target of zero bytes; a block never crosses documents.
`bits per byte = sum(nats) / ln 2 / sum(bytes)`, so no tokenizer can shrink it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml.adapter import Array
from ml.data import Block
from ml.figures import BlockLoss
from ml.lora import fixed_a
from ml.spec import AdapterSpec

BATCH_BLOCKS = 4
"""Blocks per forward pass. Part of the measurement: another batch shape may move the last bits of a float sum."""
CACHED_LOSSES = 20_000
"""Most (root, block) pairs remembered; the oldest goes first."""
HEAD_ROWS = 128
"""Target positions whose logits are held at once: 128 x 49,152 float32 are 25 MB."""
SOFTMAX_ROWS = 8
"""Rows of logits reduced at once: 1.6 MB of float32 stay in the cache (half the time of a cross entropy over all)."""


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
    """A loaded base that scores blocks with any adapter merged in.

    Weights are `(W0.float() + alpha / rank * B A)` cast to the judging dtype, always from the untouched W0: merging
    and unmerging in place would round a bf16 base a little further each time.
    """

    def __init__(self, model: Any, token_bytes: Array, spec: AdapterSpec) -> None:
        self.model = model.eval().requires_grad_(False)
        self.spec = spec
        self.token_bytes = token_bytes
        self._originals = {module: model.get_submodule(module).weight.clone() for module in spec.modules}
        self._fixed = {module: _as_float_a(spec, module, in_features) for module, _, in_features in spec.shapes}
        self._cache: dict[tuple[str, Block], BlockLoss] = {}

    @classmethod
    def load(cls, base_dir: Path, spec: AdapterSpec, dtype: str = "fp32") -> "ScoringBase":
        """From a base's folder, in bf16 or fp32 on the CPU."""
        from transformers import AutoTokenizer

        from ml.base import load_base

        tokenizer = AutoTokenizer.from_pretrained(base_dir, trust_remote_code=False, local_files_only=True)
        return cls(load_base(str(base_dir), dtype=dtype), count_token_bytes(tokenizer), spec)

    def score(self, blocks: Sequence[Block], factors: Mapping[str, Array] | None = None) -> list[BlockLoss]:
        """Losses in the order of the blocks; `factors` are float32 B by module, None for the bare base."""
        with self.merged(factors or {}):
            return [loss for at in range(0, len(blocks), BATCH_BLOCKS) for loss in self._score_batch(blocks, at)]

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

    @contextmanager
    def merged(self, factors: Mapping[str, Array]) -> Iterator[None]:
        """While the block runs, the model's weights carry the adapter; afterwards they are the base's again."""
        try:
            for module, factor in sorted(factors.items()):
                original = self._originals[module]
                change = torch.as_tensor(factor, dtype=torch.float32, device=original.device) @ self._fixed[module]
                merged = original.float() + self.spec.scale * change
                self.model.get_submodule(module).weight.copy_(merged)
            yield
        finally:
            for module in factors:
                self.model.get_submodule(module).weight.copy_(self._originals[module])

    @torch.inference_mode()
    def _score_batch(self, blocks: Sequence[Block], start: int) -> list[BlockLoss]:
        batch = [list(block.tokens) for block in blocks[start : start + BATCH_BLOCKS]]
        longest = max(len(tokens) for tokens in batch)
        # Padding stands on the right: under the causal mask no real token sees it, and it is never a target.
        padded = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in batch])
        hidden = self.model.get_decoder()(input_ids=padded, use_cache=False).last_hidden_state
        is_target = torch.arange(1, longest) < torch.tensor([[len(tokens)] for tokens in batch])
        nats = torch.zeros(is_target.shape, dtype=torch.float64)
        nats[is_target] = self._compute_nats(hidden[:, :-1][is_target], padded[:, 1:][is_target])
        return [
            BlockLoss(
                document=blocks[start + row].document,
                nats=math.fsum(nats[row].tolist()),
                targets=max(0, len(tokens) - 1),
                target_bytes=int(self.token_bytes[tokens[1:]].sum()),
            )
            for row, tokens in enumerate(batch)
        ]

    def _compute_nats(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(targets,) float64 from (targets, hidden): -log softmax of the float32 logits at the target."""
        head, nats = self.model.get_output_embeddings(), []
        for at in range(0, len(targets), HEAD_ROWS):
            logits, wanted = head(hidden[at : at + HEAD_ROWS]), targets[at : at + HEAD_ROWS, None]
            for rows, own in zip(logits.split(SOFTMAX_ROWS), wanted.split(SOFTMAX_ROWS), strict=True):
                shifted = rows.float()
                shifted -= shifted.amax(dim=-1, keepdim=True)
                at_target = shifted.gather(1, own)[:, 0]
                nats.append(shifted.exp_().sum(dim=-1).log_() - at_target)
        return torch.cat(nats).double()


def _as_float_a(spec: AdapterSpec, module: str, in_features: int) -> torch.Tensor:
    values, step_log2 = fixed_a(spec, module, in_features)
    return torch.as_tensor(np.asarray(values).astype(np.float32) * np.float32(2.0**step_log2))
