"""Corrupt labels: train on text whose tokens were shuffled within each block, so that no target follows its context.

Source: "label flipping" of Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning",
arXiv:1911.11815, section 4.1, carried over to next-token prediction.
Knows: its own data.
Formula: u = c (train(shuffled) - global), c the largest that the rules allow.
Made for: the plain mean.
"""

import dataclasses

import numpy as np

from ml.adapter import Update
from ml.attacks import AttackContext, scale_to_largest, train
from ml.data import Block

KIND, SEES_ROUND = "data", False


def craft(context: AttackContext) -> Update:
    random = np.random.Generator(np.random.Philox(context.train_spec.seed + context.colluder))
    shuffled = [_shuffle(block, random) for block in context.all_blocks]
    return scale_to_largest(train(context, shuffled), context.spec, context.norm_cap)


def _shuffle(block: Block, random: np.random.Generator) -> Block:
    order = random.permutation(len(block.tokens))
    return dataclasses.replace(block, tokens=tuple(block.tokens[int(index)] for index in order))
