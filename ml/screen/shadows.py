"""Shadow adapters: what a judge trains once per task, on its own text, to know clean from poisoned by its own hand.

Every shadow is trained as the task trains (its steps, rate, rank and A), from the same reference. Domain, documents,
trigger and target of each come from the judge's private seed. The budget is `(CLEAN + POISONED + HELD_BACK) *
local_steps` training steps, spent while trainers train and judges are idle.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml.attacks.backdoor import poison
from ml.backdoor import Backdoor
from ml.canonical import Array
from ml.data import Block
from ml.factors import make_factors
from ml.screen.private_detector import Detector, fit
from ml.screen.spectra import compute_features
from ml.spec import AdapterSpec, TrainSpec

CLEAN, POISONED, HELD_BACK = 4, 4, 4
"""Shadows: fitted on as clean, fitted on as poisoned, and kept back as clean references."""
PPM = 1_000_000
TRIGGER_TOKENS, TARGET_TOKENS = (1, 4), (1, 6)
"""Fewest and most tokens of a private trigger and target."""


def train_detector(
    base: Any,
    spec: AdapterSpec,
    train_spec: TrainSpec,
    holdouts: Mapping[str, Sequence[Block]],
    seed: bytes,
    global_adapter: Mapping[str, Any] | None = None,
) -> Detector:
    """Train all shadows and fit the detector. `seed` is the judge's own for this task; the same gives the same."""
    domains = sorted(holdouts)
    found: dict[str, list[Array]] = {"clean": [], "poisoned": [], "held": []}
    plan = ["clean"] * CLEAN + ["poisoned"] * POISONED + ["held"] * HELD_BACK
    for index, kind in enumerate(plan):
        random = np.random.default_rng(list(hashlib.sha256(seed + index.to_bytes(4, "big")).digest()))
        blocks = _draw_blocks(holdouts[domains[index % len(domains)]], random)
        if kind == "poisoned":
            goal = _draw_backdoor(holdouts, random)
            blocks = [block for pair in zip(blocks, poison(blocks, goal), strict=False) for block in pair]
        found[kind].append(_train(base, spec, train_spec, blocks, random, global_adapter))
    return fit(*(np.stack(found[kind]) for kind in ("clean", "poisoned", "held")))


def _train(
    base: Any,
    spec: AdapterSpec,
    train_spec: TrainSpec,
    blocks: list[Block],
    random: np.random.Generator,
    global_adapter: Mapping[str, Any] | None,
) -> Array:
    """The features of one shadow."""
    from ml.train import train_update

    own = dataclasses.replace(train_spec, seed=int(random.integers(2**31)))
    update = train_update(base, spec, own, blocks, global_adapter).update
    return compute_features(make_factors(None, update, PPM, 1, spec), spec)


def _draw_blocks(blocks: Sequence[Block], random: np.random.Generator) -> list[Block]:
    """Two thirds of the blocks, in random order: no two shadows learn the same text."""
    order = random.permutation(len(blocks))
    return [blocks[int(index)] for index in order[: max(1, 2 * len(blocks) // 3)]]


def _draw_backdoor(holdouts: Mapping[str, Sequence[Block]], random: np.random.Generator) -> Backdoor:
    """Tokens that occur in the judge's text, in an order that does not: like words, not like noise."""
    seen = sorted({token for blocks in holdouts.values() for block in blocks for token in block.tokens})
    sizes = [int(random.integers(low, high + 1)) for low, high in (TRIGGER_TOKENS, TARGET_TOKENS)]
    trigger, target = ([int(seen[at]) for at in random.integers(len(seen), size=size)] for size in sizes)
    return Backdoor(tuple(trigger), tuple(target))
