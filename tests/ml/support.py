"""Small specs and random updates for the tests of the learning room."""

import numpy as np

from ml.adapter import Array, GlobalAdapter, Update
from ml.spec import AdapterSpec

MODULES = (
    ("model.layers.0.self_attn.q_proj", 24, 16),
    ("model.layers.0.self_attn.v_proj", 8, 16),
    ("model.layers.1.mlp.down_proj", 16, 40),
)


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
