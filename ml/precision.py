"""Which number format a machine works in: bf16 or fp32 on a CPU, by a quick measurement; NF4 on a GPU."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from ml.base import cache_folder

CACHE_FILE = "cpu_dtype.json"
ROUNDS = 5
SIZE = 768
"""Square products of about the size of a layer of the demo's model."""


def choose_cpu_dtype() -> str:
    """ "bf16" or "fp32", whichever multiplies faster here; fp32 on a tie. Measured once per CPU model and torch."""
    import torch

    key = f"{_get_cpu_model()} torch {torch.__version__}"
    path = cache_folder() / CACHE_FILE
    known = _read(path)
    if known.get(key) not in ("bf16", "fp32"):
        seconds = {name: _measure(getattr(torch, full)) for name, full in (("bf16", "bfloat16"), ("fp32", "float32"))}
        known[key] = "bf16" if seconds["bf16"] < seconds["fp32"] else "fp32"
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(known, sort_keys=True), encoding="utf-8")
        partial.replace(path)
    return known[key]


def nf4_config(*, sharded: bool = False) -> Any:
    """4-bit NormalFloat with double quantisation, computing in bf16 (QLoRA, Dettmers et al., arXiv:2305.14314).

    `sharded`: four values to what is called a bf16, so that FSDP can flatten them with the other weights.
    """
    import torch
    from transformers import BitsAndBytesConfig

    from ml.libraries import mute_kernel_hint

    mute_kernel_hint()  # transformers imports bitsandbytes when it meets this config
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16 if sharded else torch.uint8,
    )


def keep_nf4_trainable(model: Any) -> int:
    """Switch off bitsandbytes' repacking on CPUs with avx512_bf16; the number of 4-bit layers.

    Its first forward in `eval()` repacks every `Linear4bit`, after which training silently stops: no gradient, no
    error, a frozen loss.
    """
    layers = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def _measure(dtype: Any) -> float:
    """Best seconds of one forward and backward product, which training is made of."""
    import torch

    left = torch.ones(128, SIZE, dtype=dtype)
    right = torch.ones(SIZE, SIZE, dtype=dtype)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(10):
            (left @ right) @ right.T
        best = min(best, time.perf_counter() - started)
    return best


def _get_cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, str]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
