"""From blocks to tensors: which blocks a step trains on, and how they share rows.

Packing puts several short blocks into one row, so that no product is spent on padding. Positions restart at each block;
transformers takes the restarts as borders that attention does not cross, so the loss is that of separate rows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from ml.spec import TrainSpec

IGNORED = -100
"""Targets of this value are no targets (the value that `cross_entropy` skips)."""


class Block(Protocol):
    @property
    def tokens(self) -> Sequence[int]: ...


AnyBlock = TypeVar("AnyBlock", bound=Block)
Rows = list[list[Sequence[int]]]
"""Rows of pieces, each piece the tokens of one block."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads, int64 (rows, length) each. Padding stands on the right, behind the causal mask."""

    tokens: torch.Tensor
    targets: torch.Tensor
    """The next token of the same block, or IGNORED."""
    positions: torch.Tensor | None
    """Within each block; None when no row holds two blocks, for which attention has its fastest path."""


def choose_blocks(blocks: Sequence[AnyBlock], train_spec: TrainSpec) -> list[list[AnyBlock]]:
    """The batch of each step: passes over all blocks, each in an order drawn from the seed."""
    needed, order = train_spec.local_steps * train_spec.batch_size, list[int]()
    while len(order) < needed:
        turn = len(order) // len(blocks)
        order += sorted(range(len(blocks)), key=lambda index: _rank(train_spec.seed, turn, index))
    size = train_spec.batch_size
    return [[blocks[index] for index in order[at : at + size]] for at in range(0, needed, size)]


def make_batches(
    blocks: Sequence[Block], sequence_length: int, device: torch.device, *, packing: bool, rows_at_once: int = 0
) -> list[Batch]:
    """The blocks, cut to `sequence_length`, in as many batches as `rows_at_once` asks for (0: one).

    Packed only where that leaves less padding: blocks of about one length need none as they are.
    """
    pieces = [block.tokens[:sequence_length] for block in blocks]
    rows: Rows = [[piece] for piece in pieces]
    if packing:
        rows = min(rows, pack_rows(pieces, sequence_length), key=_count_places)
    size = rows_at_once or len(rows)
    return [_make_batch(rows[at : at + size], device) for at in range(0, len(rows), size)]


def pack_rows(pieces: Sequence[Sequence[int]], sequence_length: int) -> Rows:
    """First fit, longest first: at most 11/9 of the least possible number of rows (Johnson 1973)."""
    rows: Rows = []
    for piece in sorted(pieces, key=len, reverse=True):
        fitting = (row for row in rows if sum(map(len, row)) + len(piece) <= sequence_length)
        row = next(fitting, None)
        if row is None:
            rows.append([piece])
        else:
            row.append(piece)
    return rows


def count_targets(blocks: Sequence[Block], sequence_length: int) -> int:
    """Every token but the first of a block is a target."""
    return sum(len(block.tokens[:sequence_length]) - 1 for block in blocks)


def _count_places(rows: Rows) -> int:
    """Tokens and padding."""
    return len(rows) * max(sum(map(len, row)) for row in rows)


def _make_batch(rows: Rows, device: torch.device) -> Batch:
    tokens = torch.zeros((len(rows), _count_places(rows) // len(rows)), dtype=torch.int64)
    targets = torch.full_like(tokens, IGNORED)
    positions = torch.zeros_like(tokens)
    for number, row in enumerate(rows):
        start = 0
        for piece in row:
            end = start + len(piece)
            tokens[number, start:end] = torch.tensor(piece)
            targets[number, start : end - 1] = tokens[number, start + 1 : end]
            positions[number, start:end] = torch.arange(len(piece))
            start = end
    is_packed = any(len(row) > 1 for row in rows)
    return Batch(tokens.to(device), targets.to(device), positions.to(device) if is_packed else None)


def _rank(seed: int, turn: int, index: int) -> bytes:
    return hashlib.sha256(f"flockchain/order/1 {seed} {turn} {index}".encode()).digest()
