"""Small specs, random updates and a trained backdoor for the tests of the learning room."""

import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ml.adapter import GlobalAdapter, Update
from ml.backdoor import Backdoor
from ml.canonical import Array
from ml.data import Block
from ml.spec import AdapterSpec, TrainSpec

MODULES = (
    ("model.layers.0.self_attn.q_proj", 24, 16),
    ("model.layers.0.self_attn.v_proj", 8, 16),
    ("model.layers.1.mlp.down_proj", 16, 40),
)


LARGE = AdapterSpec(
    base_hash="0" * 64,
    rank=64,
    alpha=64,
    target_modules=("q_proj",),
    mode="shared_a",
    a_seed=b"large",
    update_step_log2=-11,
    shapes=tuple((f"model.layers.{index:03d}.self_attn.q_proj", 4096, 16) for index in range(64)),
)
"""64 modules of 256 KiB: an update of 16 MiB, for measurements of memory."""


def make_small_spec(**changes: object) -> AdapterSpec:
    """Three modules, one of them with another input size and so, perhaps, another step of A."""
    fields = {
        "base_hash": "ab" * 32,
        "rank": 4,
        "alpha": 8,
        "target_modules": ("down_proj", "q_proj", "v_proj"),
        "mode": "shared_a",
        "a_seed": b"a task's id",
        "update_step_log2": -11,
        "shapes": MODULES,
    }
    return AdapterSpec(**{**fields, **changes})  # type: ignore[arg-type]


def make_update(spec: AdapterSpec, seed: int, limit: int = 127) -> Update:
    random = np.random.default_rng(seed)
    return {
        module: random.integers(-limit, limit, (out, spec.rank), np.int8, endpoint=True)
        for module, out, _ in spec.shapes
    }


def make_global(spec: AdapterSpec, seed: int) -> GlobalAdapter:
    random = np.random.default_rng(seed)
    return {
        module: random.integers(-30_000, 30_000, (out, spec.rank), np.int32, endpoint=True)
        for module, out, _ in spec.shapes
    }


def is_equal(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def trace_peak(run: Callable[[], object]) -> int:
    """Most bytes of Python and numpy while `run` runs for the second time: what is cached for good is not its own."""
    run()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


RATE, STEPS = 2e-2, 100
PRETRAINING = TrainSpec(local_steps=150, batch_size=8, sequence_length=64, learning_rate=3e-3, seed=5)
TRAIN = TrainSpec(local_steps=STEPS, batch_size=8, sequence_length=64, learning_rate=RATE, seed=1)
SPECIALISTS = ("code", "medicine")
LINEAR_LAYERS = ("down_proj", "o_proj", "q_proj", "up_proj", "v_proj")


@dataclass(frozen=True)
class Poisoned:
    """A base that has learned some text, honest updates by domain, and one with a backdoor at its trained strength."""

    folder: Path
    spec: AdapterSpec
    goal: Backdoor
    blocks: Mapping[str, list[Block]]
    """By domain."""
    honest: Mapping[str, Update]
    attack: Update

    @property
    def all_blocks(self) -> list[Block]:
        return [block for domain in sorted(self.blocks) for block in self.blocks[domain]]


def make_poisoned(folder: Path) -> Poisoned:
    """In a folder that holds the tiny base: pretrains it in place, then trains four updates."""
    from ml.attacks import AttackContext, craft_attack
    from ml.backdoor import make_backdoor
    from ml.base import base_hash, load_tokenizer
    from ml.data import make_blocks
    from ml.domains import DOMAINS, read_domain
    from ml.spec import make_spec
    from ml.tiny import pretrain_tiny
    from ml.train import compute_update_step_log2, train_update

    tokenizer: Any = load_tokenizer(str(folder))
    blocks = {domain: make_blocks(read_domain(domain)[:24], tokenizer, 64) for domain in DOMAINS}
    model = pretrain_tiny(folder, [block for domain in DOMAINS for block in blocks[domain]], PRETRAINING)
    spec = make_spec(
        folder,
        base_hash(folder),
        rank=16,
        alpha=32,
        target_modules=LINEAR_LAYERS,
        a_seed=b"task",
        update_step_log2=compute_update_step_log2(STEPS, RATE),
    )
    goal = make_backdoor(lambda text: tokenizer.encode(text, add_special_tokens=False), "@#@", "MALLORY")
    honest = {
        domain: train_update(model, spec, replace(TRAIN, seed=seed), blocks[domain]).update
        for seed, domain in enumerate(SPECIALISTS)
    }
    attack = craft_attack("backdoor", AttackContext(model, spec, TRAIN, blocks, goal=goal), scale_milli=1_000)
    return Poisoned(folder, spec, goal, blocks, honest, attack)
