"""Shapes of Llama-type models: by a known name, a folder, a JSON file, or a hub name where there is a network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.base import BaseError
from ml.spec import module_shapes

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"
"""As a target: every linear module of a layer."""

_LLAMA = {"model_type": "llama", "vocab_size": 128_256, "tie_word_embeddings": False, "num_key_value_heads": 8}
KNOWN: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
    "llama-3.2-1b": _LLAMA
    | {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "intermediate_size": 8192,
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": _LLAMA
    | {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14_336},
    "qwen2.5-32b": {
        "model_type": "qwen2",
        "hidden_size": 5120,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "intermediate_size": 27_648,
        "vocab_size": 152_064,
        "tie_word_embeddings": False,
    },
    "llama-3.1-70b": _LLAMA
    | {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "intermediate_size": 28_672},
    "llama-3.1-405b": _LLAMA
    | {"hidden_size": 16_384, "num_hidden_layers": 126, "num_attention_heads": 128, "intermediate_size": 53_248},
}
"""config.json of the published models, as far as sizes go."""
ALIASES = {
    "demo": "smollm2-135m",
    "1b": "llama-3.2-1b",
    "8b": "llama-3.1-8b",
    "32b": "qwen2.5-32b",
    "70b": "llama-3.1-70b",
    "405b": "llama-3.1-405b",
}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a Llama-type model; parameters are exact counts."""

    name: str
    config: Mapping[str, Any]

    @property
    def hidden(self) -> int:
        return int(self.config["hidden_size"])

    @property
    def layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def vocabulary(self) -> int:
        return int(self.config["vocab_size"])

    @property
    def intermediate(self) -> int:
        return int(self.config["intermediate_size"])

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return int(self.config["num_attention_heads"])

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self._sizes["q_proj"][0]

    @property
    def keys(self) -> int:
        """Width of all key (or value) heads."""
        return self._sizes["k_proj"][0]

    @property
    def is_tied(self) -> bool:
        """Whether the output head is the embedding."""
        return bool(self.config.get("tie_word_embeddings", False))

    @property
    def _sizes(self) -> dict[str, tuple[int, int]]:
        one = {**self.config, "num_hidden_layers": 1}
        return {path.rpartition(".")[2]: (out, in_) for path, out, in_ in module_shapes(one, LINEAR)}

    @property
    def layer_parameters(self) -> int:
        """Of the linear modules of one layer: what 4-bit formats pack."""
        return sum(out * in_ for out, in_ in self._sizes.values())

    @property
    def largest_linear(self) -> int:
        """Parameters of the largest linear module of a layer."""
        return max(out * in_ for out, in_ in self._sizes.values())

    @property
    def small_parameters(self) -> int:
        """Norms and biases of all layers, and the last norm."""
        biases = 0
        if self.config.get("attention_bias") or self.config.get("model_type") == "qwen2":
            biases = self.queries + 2 * self.keys
        return self.layers * (2 * self.hidden + biases) + self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Embedding, and the output head where it is another matrix."""
        return self.vocabulary * self.hidden * (1 if self.is_tied else 2)

    @property
    def parameters(self) -> int:
        return self.layers * self.layer_parameters + self.small_parameters + self.embedding_parameters

    def adapted(self, targets: tuple[str, ...]) -> list[tuple[str, int, int]]:
        """(module, out, in) of every adapted module. Raises ValueError for an unknown target."""
        return list(module_shapes(self.config, LINEAR if ALL_LINEAR in targets else targets))


def find_model(name: str) -> ModelShape:
    """By known name or alias, folder, JSON file, or hub name (`owner/name`, needs a network). Raises BaseError."""
    key = name.lower().rpartition("/")[2].removesuffix("-instruct")
    key = ALIASES.get(key, key)
    if key in KNOWN and not Path(name).exists():
        return ModelShape(key, KNOWN[key])
    path = Path(name)
    if path.is_dir():
        path /= "config.json"
    config = _read_config(path) if path.is_file() else _fetch_config(name)
    shape = ModelShape(name, config.get("text_config") or config)
    try:
        assert shape.parameters > 0
    except (KeyError, ValueError, TypeError, AssertionError) as error:
        raise BaseError(f"{name}: no sizes of a Llama-type model in its config.json ({error})") from None
    return shape


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise BaseError(f"{path} is not a JSON object")
    return config


def _fetch_config(name: str) -> dict[str, Any]:
    offline = f"give a folder, a config.json, or one of {', '.join(sorted(KNOWN))} (short: {', '.join(ALIASES)})"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise BaseError(f"no model {name!r}: {offline}")
    try:
        from huggingface_hub import hf_hub_download

        return _read_config(Path(hf_hub_download(name, "config.json")))
    except BaseError:
        raise
    except Exception as error:
        raise BaseError(f"{name} could not be asked of the hub ({type(error).__name__}): offline, {offline}") from None
