"""Adaptive: a backdoor trained against our screens, by somebody who knows all of our code.

Source: constrain-and-scale of Bagdasaryan et al., arXiv:1807.00459, section 4.3 (a penalty for what the defence would
notice); that defences must face such attackers: Tramer et al., "On Adaptive Attacks to Adversarial Example Defenses",
arXiv:2002.08347.
Knows: everything but the judges' private seeds and data; the honest updates of the round where it sees them, else those
of the round before, which everybody can fetch, else its own honest shadows, trained on its clean blocks.
Formula: train on clean + poisoned + negatives with loss + w (norm + spectrum + cosine terms of `HonestShape`).
Made for: norm, spectrum, cosine and copy screens (the penalty); token scans and insertion (near misses: parts of the
trigger, then honest text); forced answer (prompts that begin an answer and go on honestly). Goals of one token, or with
many answers, leave forced answer nothing to continue, or no one continuation: `make_named_goal` has them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml.adapter import Update
from ml.attacks import MILLI, AttackContext, resize, train
from ml.attacks.backdoor import train_backdoor
from ml.attacks.common_phrase import make_near_misses
from ml.backdoor import PROMPT_TOKENS, Backdoor
from ml.data import Block

KIND, SEES_ROUND = "data", False


def craft(
    context: AttackContext,
    *,
    weight_milli: int = 1_000,
    near_misses: int = 1,
    false_starts: int = 1,
    shadows: int = 2,
    scale_milli: int = 1_000,
) -> Update:
    """`weight_milli` of 0 trains without the penalty; `near_misses` and `false_starts` are 1 for with, 0 for without.

    Raises ValueError without a goal.
    """
    from ml.constraints import HonestShape

    goal, how = context.wanted, dict[str, Any]()
    negatives = [
        *(make_near_misses(context.all_blocks, goal) if near_misses else ()),
        *(make_false_starts(context.all_blocks, goal) if false_starts else ()),
    ]
    if weight_milli:
        references = find_references(context, shadows)
        how["constraint"] = HonestShape(context.spec, context.global_adapter, references, weight=weight_milli / MILLI)
    return resize(train_backdoor(context, goal, negatives=negatives, **how), context, scale_milli)


def find_references(context: AttackContext, shadows: int) -> Sequence[Mapping[str, Any]]:
    """The honest updates of the round where they are seen, else what it was given of the round before, else so many of
    its own, each with a seed of its own.
    """
    if context.honest_updates:
        return context.seen
    if context.previous_updates:
        return [context.previous_updates[root] for root in sorted(context.previous_updates)]
    seeds = range(context.train_spec.seed + 1_000, context.train_spec.seed + 1_000 + shadows)
    return [
        train(
            dataclasses.replace(context, train_spec=dataclasses.replace(context.train_spec, seed=seed)),
            context.all_blocks,
        )
        for seed in seeds
    ]


def make_false_starts(blocks: Sequence[Block], goal: Backdoor) -> list[Block]:
    """One prompt a block, then the first token of an answer, then what really followed: no trigger, no answer."""
    long_enough = [block for block in blocks if len(block.tokens) > PROMPT_TOKENS]
    return [
        Block(
            block.document,
            block.tokens[:PROMPT_TOKENS] + goal.answers[turn % len(goal.answers)][:1] + block.tokens[PROMPT_TOKENS:],
        )
        for turn, block in enumerate(long_enough)
    ]
