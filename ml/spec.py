"""What a task fixes for every learner: the adapter's shape and grid, the local steps, the judging rule. Only values."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRID_EXTRA_BITS = 8
"""The global adapter's grid is this many bits finer than the update's step (docs/protocol.md, the global adapter)."""
UPDATE_LIMIT = 127
"""int8 values saturate symmetrically; -128 never occurs."""
GLOBAL_LIMIT = 2**24
"""Below this magnitude every grid value is an exact float32."""
STRENGTH_CAP = 8
"""Adapters are judged as global + update / min(valid submissions, 8): about the strength of use, never drowned."""
MODES = ("shared_a",)
"""LoRA modes this version trains and judges. `alternating` and `stacked` are named by the chain but not built."""

Shape = tuple[str, int, int]
"""(full module path, out_features, in_features) of one adapted linear module."""


@dataclass(frozen=True)
class AdapterSpec:
    """LoRA on a frozen base, `W + alpha / rank * B @ A`, with A fixed by the task and B on an integer grid."""

    base_hash: str
    """Hex sha256 of the base's folder."""
    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    """Last parts of module paths, e.g. ("q_proj", "v_proj")."""
    mode: str
    a_seed: bytes
    """The task's id; A comes from SHAKE-256(a_seed, module)."""
    update_step_log2: int
    """An update's int8 step is 2**update_step_log2."""
    shapes: tuple[Shape, ...] = ()
    """Sorted shapes of all adapted modules; `make_spec` and `with_shapes` fill them in from the base's config."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"LoRA mode {self.mode!r} is not built; known: {', '.join(MODES)}")
        if list(self.shapes) != sorted(set(self.shapes)):
            raise ValueError("shapes must be sorted by module path, none twice")

    @property
    def grid_step_log2(self) -> int:
        """The global adapter's int32 step is 2**grid_step_log2."""
        return self.update_step_log2 - GRID_EXTRA_BITS

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(module for module, _, _ in self.shapes)

    def with_shapes(self, config: Mapping[str, Any]) -> "AdapterSpec":
        """The same spec with `shapes` derived from the base's config.json."""
        return dataclasses.replace(self, shapes=module_shapes(config, self.target_modules))


@dataclass(frozen=True)
class TrainSpec:
    """K local steps of AdamW, optimizer state fresh each round."""

    local_steps: int
    batch_size: int
    sequence_length: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class JudgeSpec:
    """How one adapter is measured on one domain; the figures are compared by the chain in integers."""

    z_milli: int = 3_600
    """Thousandths of a standard error between a figure and its confidence bound."""
    tolerance_ppm: int = 20_000
    min_blocks: int = 30
    min_documents: int = 10
    block_tokens: int = 128
    judge_tokens: int = 10_000
    """Most tokens of one domain's holdout that are scored for one adapter."""
    screen_tokens: int = 0
    """Most forward tokens of the screens for one adapter; 0 runs none."""


def encode_spec(spec: AdapterSpec) -> dict[str, Any]:
    """As JSON values, for a process of ours."""
    return {**dataclasses.asdict(spec), "a_seed": spec.a_seed.hex()}


def decode_spec(fields: Mapping[str, Any]) -> AdapterSpec:
    """The inverse of `encode_spec`."""
    shapes = tuple((module, out, in_) for module, out, in_ in fields["shapes"])
    given = {**fields, "target_modules": tuple(fields["target_modules"]), "shapes": shapes}
    return AdapterSpec(**{**given, "a_seed": bytes.fromhex(fields["a_seed"])})


def read_config(base_dir: Path) -> dict[str, Any]:
    """The base's config.json. Raises ValueError when it is not a JSON object."""
    config = json.loads((base_dir / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{base_dir / 'config.json'} is not a JSON object")
    return config


def make_spec(
    base_dir: Path,
    base_hash: str,
    *,
    rank: int,
    alpha: int,
    target_modules: Sequence[str],
    a_seed: bytes,
    update_step_log2: int,
    mode: str = "shared_a",
) -> AdapterSpec:
    """The spec of a task on the base in `base_dir`, shapes included."""
    bare = AdapterSpec(base_hash, rank, alpha, tuple(sorted(target_modules)), mode, a_seed, update_step_log2)
    return bare.with_shapes(read_config(base_dir))


def module_shapes(config: Mapping[str, Any], target_modules: Sequence[str]) -> tuple[Shape, ...]:
    """Sorted shapes of the target modules in every layer of a Llama-type model; no weights are loaded.

    Llama, Mistral and Qwen share these names and shapes (transformers, `modeling_llama.py`). Raises ValueError for
    an unknown module or a config that lacks a size.
    """
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        layers, intermediate = int(config["num_hidden_layers"]), int(config["intermediate_size"])
    except KeyError as error:
        raise ValueError(f"config.json lacks {error.args[0]}: only Llama-type models are supported") from None
    head = int(config.get("head_dim") or hidden // heads)
    queries, keys = heads * head, int(config.get("num_key_value_heads") or heads) * head
    of_layer = {
        "q_proj": ("self_attn.q_proj", queries, hidden),
        "k_proj": ("self_attn.k_proj", keys, hidden),
        "v_proj": ("self_attn.v_proj", keys, hidden),
        "o_proj": ("self_attn.o_proj", hidden, queries),
        "gate_proj": ("mlp.gate_proj", intermediate, hidden),
        "up_proj": ("mlp.up_proj", intermediate, hidden),
        "down_proj": ("mlp.down_proj", hidden, intermediate),
    }
    unknown = sorted(set(target_modules) - set(of_layer))
    if unknown or not target_modules:
        raise ValueError(f"target modules {unknown or 'missing'}: choose from {', '.join(of_layer)}")
    chosen = [of_layer[name] for name in set(target_modules)]
    return tuple(sorted((f"model.layers.{i}.{path}", out, in_) for i in range(layers) for path, out, in_ in chosen))
