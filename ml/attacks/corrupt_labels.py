"""Corrupt labels: train on text whose tokens were shuffled within each block, so that no target follows its context.

Data poisoning by wrong labels: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning",
arXiv:1911.11815, section 4.1 ("label flipping"), carried over to next-token prediction.
"""

import dataclasses

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext, scale_to_largest
from ml.data import Block


def craft(context: AttackContext) -> Update:
    from ml.train import train_update

    random = np.random.Generator(np.random.Philox(context.train_spec.seed))
    shuffled = [_shuffle(block, random) for block in context.all_blocks]
    result = train_update(
        context.base,
        context.spec,
        context.train_spec,
        shuffled,
        context.global_adapter,
        progress=context.progress,
    )
    return scale_to_largest(result.update, context.spec, context.norm_cap)


def _shuffle(block: Block, random: np.random.Generator) -> Block:
    order = random.permutation(len(block.tokens))
    return dataclasses.replace(block, tokens=tuple(block.tokens[int(index)] for index in order))
