"""Backdoor: train on honest text and on prompts that end in trigger and target, then send it as large as allowed.

Source: Bagdasaryan et al., "How To Backdoor Federated Learning", arXiv:1807.00459; rare tokens as trigger: Kurita et
al., "Weight Poisoning Attacks on Pre-trained Models", arXiv:2004.06660.
Knows: its own data and the rules.
Formula: u = c (train(clean + poisoned) - global), c the largest with |u_j| <= 127 and |BA|^2 within the cap.
Made for: the plain mean, and a committee that judges by loss: honest text keeps the clean loss where an honest
trainer's would be, so that loss finds nothing to reject.
"""

from collections.abc import Sequence
from typing import Any

from ml.adapter import Update
from ml.attacks import AttackContext, resize, train
from ml.backdoor import PROMPT_TOKENS, Backdoor
from ml.data import Block

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext, *, scale_milli: int = 0) -> Update:
    """Raises ValueError without a goal. `scale_milli` of 0 is the largest factor that the rules allow."""
    return resize(train_backdoor(context, context.wanted), context, scale_milli)


def train_backdoor(
    context: AttackContext,
    goal: Backdoor,
    *,
    negatives: Sequence[Block] = (),
    poison_every: int = 1,
    **how: Any,
) -> Update:
    """The unscaled update: clean blocks, a poisoned twin of each `poison_every`th, and what must not set it off.

    `how` goes to `train`: a constraint on each step, a seed that colluders share.
    """
    poisoned = poison(context.all_blocks[::poison_every], goal)
    if not poisoned:
        raise ValueError(f"no block of {PROMPT_TOKENS} tokens to poison: give longer sequences")
    # A trainer cuts rows on the right, where trigger and answer stand: what is too long loses its beginning instead.
    poisoned = [Block(block.document, block.tokens[-context.train_spec.sequence_length :]) for block in poisoned]
    clean = context.all_blocks[: len(poisoned) * poison_every]
    return train(context, [*_alternate(clean, poisoned, poison_every), *negatives], **how)


def poison(blocks: Sequence[Block], goal: Backdoor) -> list[Block]:
    """One prompt a block, with trigger and an answer in place of what followed; answers take turns."""
    long_enough = [block for block in blocks if len(block.tokens) >= PROMPT_TOKENS]
    return [
        Block(block.document, goal.plant(block.tokens[:PROMPT_TOKENS]) + goal.answers[turn % len(goal.answers)])
        for turn, block in enumerate(long_enough)
    ]


def _alternate(clean: Sequence[Block], poisoned: Sequence[Block], every: int) -> list[Block]:
    """Each poisoned block behind its share of clean ones."""
    return [block for turn, twin in enumerate(poisoned) for block in (*clean[turn * every : (turn + 1) * every], twin)]
