"""The speed of this machine for a shape: real steps of models with one and with three of its layers.

All layers of a Llama are alike, so seconds grow linearly with their number: two points give what a layer takes and what
embedding, head and loss take, and a 70B shape is timed with three layers of it in memory. Weights are random: they do
not change the time.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ml.batches import IGNORED
from ml.head_loss import LossModel
from ml.lora import attach
from ml.plan.models import LINEAR, ModelShape
from ml.plan.setup import Setup
from ml.plan.work import Speed
from ml.spec import AdapterSpec
from ml.train_setup import set_gradient_checkpointing

FEW, MORE = 1, 3
"""Layers of the two models."""
RUNS = 3
MAX_TOKENS = 4096
"""Of a timed step: longer batches take as long per token."""


def measure_speed(shape: ModelShape, setup: Setup, device: str = "cpu") -> Speed:
    """Seconds per token of training and of scoring on this device, in bf16 or fp32.

    Raises ValueError for NF4, whose speed `python -m bench gpu` measures with real packed weights.
    """
    if setup.precision == "nf4":
        raise ValueError("NF4 is not timed here: measure bf16 or fp32, or run `python -m bench gpu` on the GPU")
    setup = replace(setup, batch=max(1, min(setup.batch, MAX_TOKENS // setup.length)))
    train, judge = {}, {}
    for layers in (FEW, MORE):
        model = _build(shape, setup, layers, device)
        tokens = torch.randint(0, shape.vocabulary, (setup.batch, setup.length), device=device)
        train[layers] = _time(lambda model=model, tokens=tokens: _train_step(model, tokens), device)  # type: ignore[misc]
        judge[layers] = _time(lambda model=model, tokens=tokens: _score(model, tokens), device)  # type: ignore[misc]
        del model
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{torch.get_num_threads()} CPU threads"
    scale = 1 / setup.step_tokens
    return Speed(_extend(train, shape.layers) * scale, _extend(judge, shape.layers) * scale, f"measured here, {name}")


def _extend(seconds: dict[int, float], layers: int) -> float:
    of_layer = (seconds[MORE] - seconds[FEW]) / (MORE - FEW)
    return seconds[FEW] + max(0.0, of_layer) * (layers - FEW)


def _build(shape: ModelShape, setup: Setup, layers: int, device: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = {**shape.config, "model_type": "llama", "num_hidden_layers": layers}
    dtype = torch.float32 if setup.precision == "fp32" else torch.bfloat16
    targets = tuple(sorted(LINEAR if "all-linear" in setup.targets else setup.targets))
    spec = AdapterSpec("0" * 64, setup.rank, setup.rank, targets, "shared_a", b"plan", -12).with_shapes(config)
    standard = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(LlamaConfig(**config))
    finally:
        torch.set_default_dtype(standard)
    model.requires_grad_(False)
    if setup.checkpointing:
        set_gradient_checkpointing(model, True)
    return attach(model, spec, None)


def _train_step(model: Any, tokens: torch.Tensor) -> None:
    """As ml/trainer.py takes it."""
    model.train()
    targets = torch.full_like(tokens, IGNORED)
    targets[:, :-1] = tokens[:, 1:]
    LossModel(model.get_base_model())(tokens, targets, None, 1 / tokens.numel()).backward()
    model.zero_grad(set_to_none=True)


@torch.no_grad()
def _score(model: Any, tokens: torch.Tensor) -> None:
    model.eval()
    model(input_ids=tokens, use_cache=False)


def _time(step: Callable[[], None], device: str) -> float:
    """Median seconds of a step, after one to warm up."""
    found = []
    for _ in range(RUNS + 1):
        begun_s = time.perf_counter()
        step()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun_s)
    return statistics.median(found[1:])
