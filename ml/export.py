"""The global adapter as a standard PEFT folder, and back.

Tensors are float32 of exact grid values (A and B), so nothing is rounded on the way out. The folder carries a card that
names the very bytes of the base, and a script that needs only torch, transformers and peft and compares the loss.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml.adapter import GlobalAdapter
from ml.canonical import Array, write_tensors
from ml.data import Block
from ml.factors import make_global_factors
from ml.figures import compute_bits_per_byte
from ml.lora import fixed_a
from ml.spec import GLOBAL_LIMIT, AdapterSpec

PREFIX = "base_model.model."
SAMPLE_TOKENS = 128
CHECK_SCRIPT = Path(__file__).with_name("export_check.py")
"""Copied into the folder as check.py."""


@dataclass(frozen=True)
class Card:
    """What the README of the folder says."""

    name: str
    base_name: str
    license: str
    """Of the base, e.g. apache-2.0; the adapter is derived from it."""
    losses_ubpb: dict[str, tuple[int, int]]
    """Domain -> (before, after), in millionths of a bit per byte."""
    origin: str
    """One sentence: chain id, task, round, root."""


def export_peft(
    adapter: GlobalAdapter,
    spec: AdapterSpec,
    base_dir: Path,
    out_dir: Path,
    *,
    card: Card,
    sample: Sequence[str],
    scoring_base: Any = None,
    dtype: str = "fp32",
) -> float:
    """Write the folder; returns the recorded bits per byte on `sample`, public texts that travel with the folder.

    `scoring_base` is a loaded ml.score.ScoringBase of the same base and dtype; by default it is loaded here.
    """
    if scoring_base is None:
        from ml.score import ScoringBase

        scoring_base = ScoringBase.load(base_dir, spec, dtype)
    blocks = _cut_sample(base_dir, sample)
    losses = scoring_base.score(blocks, make_global_factors(adapter, spec))
    loss = compute_bits_per_byte(losses)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_tensors(out_dir / "adapter_model.safetensors", make_peft_tensors(adapter, spec), {"format": "pt"})
    _write_json(out_dir / "adapter_config.json", make_peft_config(spec, base_dir))
    files = list_base_files(base_dir)
    check = {
        "bits_per_byte": round(loss, 9),
        "dtype": dtype,
        "tokens": SAMPLE_TOKENS,
        "targets": sum(item.targets for item in losses),
        "target_bytes": sum(item.target_bytes for item in losses),
        "base_files": [{"name": name, "size": size, "sha256": digest} for name, size, digest in files],
    }
    _write_json(out_dir / "check.json", check)
    lines = (json.dumps({"text": text}) + "\n" for text in sample)
    (out_dir / "sample.jsonl").write_text("".join(lines), encoding="utf-8")
    (out_dir / "check.py").write_text(CHECK_SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    (out_dir / "README.md").write_text(make_card(card, spec, files, loss, dtype), encoding="utf-8")
    return loss


def import_peft(folder: Path, spec: AdapterSpec) -> GlobalAdapter:
    """A PEFT folder as the first global adapter of a task; raises ValueError with a sentence where it cannot be.

    In mode `shared_a` only an adapter on the task's own fixed A and grid can be represented exactly.
    """
    from safetensors.numpy import load_file

    _refuse_config(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")), spec)
    tensors = load_file(folder / "adapter_model.safetensors")
    expected = {f"{PREFIX}{module}.lora_{side}.weight" for module in spec.modules for side in "AB"}
    if tensors.keys() != expected:
        odd = sorted(tensors.keys() ^ expected)
        raise ValueError(f"tensors differ from the task's modules in {len(odd)} names, first {odd[0]}")
    adapter = {}
    for module, out_features, in_features in spec.shapes:
        a, b = (tensors[f"{PREFIX}{module}.lora_{side}.weight"] for side in "AB")
        if a.shape != (spec.rank, in_features) or not np.array_equal(a, _float_a(spec, module, in_features)):
            raise ValueError(f"A of {module} is not this task's fixed A: start from an adapter of the same seed")
        grid = np.asarray(b, np.float64) * 2.0**-spec.grid_step_log2
        if b.shape != (out_features, spec.rank) or not np.all(np.abs(grid) < GLOBAL_LIMIT):
            raise ValueError(f"B of {module} has shape {b.shape} or values beyond {GLOBAL_LIMIT} grid steps")
        if not np.array_equal(grid, np.rint(grid)):
            raise ValueError(f"B of {module} is not on the task's grid of 2^{spec.grid_step_log2}")
        adapter[module] = grid.astype(np.int32)
    return adapter


def make_peft_tensors(adapter: Mapping[str, Any], spec: AdapterSpec) -> dict[str, Array]:
    """float32 A (rank, in) and B (out, rank) under peft's names."""
    factors = make_global_factors(adapter, spec)
    assert factors is not None
    tensors = {}
    for module, _, in_features in spec.shapes:
        tensors[f"{PREFIX}{module}.lora_A.weight"] = _float_a(spec, module, in_features)
        tensors[f"{PREFIX}{module}.lora_B.weight"] = factors[module]
    return tensors


def make_peft_config(spec: AdapterSpec, base_dir: Path) -> dict[str, Any]:
    """adapter_config.json of a plain LoRA (peft's LoraConfig)."""
    return {
        "base_model_name_or_path": str(base_dir.resolve()),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": spec.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": spec.rank,
        "target_modules": sorted(spec.target_modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def list_base_files(base_dir: Path) -> list[tuple[str, int, str]]:
    """(name, size, hex sha256) of the base's config, tokenizer and weights, sorted."""
    found = []
    for path in sorted(base_dir.iterdir()):
        if path.is_file() and (path.suffix == ".safetensors" or path.name == "config.json" or "token" in path.name):
            with path.open("rb") as file:
                found.append((path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()))
    return found


def make_card(card: Card, spec: AdapterSpec, files: Sequence[tuple[str, int, str]], loss: float, dtype: str) -> str:
    """README.md with the front matter that model hubs read."""
    losses = [
        f"| {domain} | {before / 1e6:.3f} | {after / 1e6:.3f} |"
        for domain, (before, after) in sorted(card.losses_ubpb.items())
    ]
    listing = [f"| `{name}` | {size} | `{digest}` |" for name, size, digest in files]
    head = ["---", "library_name: peft", f"license: {card.license}", f"base_model: {card.base_name}", "---"]
    body = [
        f"# {card.name}",
        "",
        f"{card.origin}",
        "",
        f"LoRA of rank {spec.rank}, alpha {spec.alpha}, on {', '.join(sorted(spec.target_modules))}; "
        "rslora and DoRA off. Tensors are float32 of exact values.",
        "",
        "Holdout loss in bits per byte:",
        "",
        *("| domain | before | after |", "|---|---|---|", *losses),
        "",
        f"## The exact base\n\nBase hash `{spec.base_hash}` over these files:",
        "",
        *("| file | bytes | sha256 |", "|---|---|---|", *listing),
        "",
        "## Check\n\n`python check.py [FOLDER OF THE BASE]` needs torch, transformers and peft. It loads this folder "
        f"and compares the loss on `sample.jsonl` with the recorded {loss:.6f} bits per byte ({dtype}) to 0.001.",
    ]
    return "\n".join([*head, "", *body, ""])


def _cut_sample(base_dir: Path, sample: Sequence[str]) -> list[Block]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_dir, trust_remote_code=False, local_files_only=True)
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"][:SAMPLE_TOKENS] for text in sample]
    if not encoded or min(len(tokens) for tokens in encoded) < 2:
        raise ValueError("the sample needs at least one text, each of two tokens or more")
    return [Block(f"sample {index}", tuple(tokens)) for index, tokens in enumerate(encoded)]


def _refuse_config(config: Mapping[str, Any], spec: AdapterSpec) -> None:
    """What a plain LoRA on an integer grid cannot represent."""
    if config.get("peft_type") != "LORA":
        raise ValueError(f"peft_type is {config.get('peft_type')!r}: only LORA can be imported")
    if config.get("use_dora"):
        raise ValueError("DoRA rescales the base's columns, which B A alone cannot carry: merge or retrain without it")
    if config.get("use_rslora"):
        raise ValueError("rslora scales by alpha / sqrt(rank): export with alpha / rank (use_rslora false)")
    if config.get("modules_to_save") or config.get("trainable_token_indices"):
        raise ValueError("modules_to_save holds whole modules (often resized embeddings): only LoRA factors are taken")
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        raise ValueError("trained biases are not part of B A: train with bias='none'")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise ValueError("rank_pattern and alpha_pattern differ by module: the task has one rank and alpha")
    if (config.get("r"), config.get("lora_alpha")) != (spec.rank, spec.alpha):
        raise ValueError(
            f"rank {config.get('r')} and alpha {config.get('lora_alpha')}, the task has {spec.rank} and {spec.alpha}"
        )


def _float_a(spec: AdapterSpec, module: str, in_features: int) -> Array:
    values, step_log2 = fixed_a(spec, module, in_features)
    exact: Array = np.asarray(values).astype(np.float32) * np.float32(2.0**step_log2)
    return exact


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
