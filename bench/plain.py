"""What the learning room is measured beside: the loops that transformers and peft show in their own examples."""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ml.libraries import import_peft
from ml.lora import fixed_a
from ml.spec import AdapterSpec
from ml.train_setup import set_gradient_checkpointing

Rows = Sequence[Sequence[Sequence[int]]]
"""Batches of rows of tokens, all of one length."""


def wrap(base: Any, spec: AdapterSpec, *, a_is_trained: bool = False) -> Any:
    """peft's own LoRA on the base, with the task's A; B alone is trained unless told otherwise."""
    peft = import_peft()
    config = peft.LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, target_modules=list(spec.modules), task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for module, _, in_features in spec.shapes:
            layer = base.get_submodule(module).lora_A["default"]
            values, step_log2 = fixed_a(spec, module, in_features)
            layer.weight.copy_(torch.as_tensor(values.astype(np.float32) * np.float32(2.0**step_log2)))
            layer.weight.requires_grad_(a_is_trained)
    return model


def train(
    model: Any, batches: Rows, learning_rate: float, *, checkpointing: bool = False, paged: bool = False
) -> list[float]:
    """Seconds of each step: forward with labels, backward, AdamW."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: Any = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    if paged:
        from bitsandbytes.optim import PagedAdamW8bit

        optimizer = PagedAdamW8bit(trained, lr=learning_rate, weight_decay=0.0)
    if checkpointing:
        set_gradient_checkpointing(model.get_base_model(), True)
    model.train()
    seconds = []
    for rows in batches:
        began = time.perf_counter()
        tokens = torch.tensor([list(row) for row in rows], device=model.device)
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())
        seconds.append(time.perf_counter() - began)
    if checkpointing:
        set_gradient_checkpointing(model.get_base_model(), False)
    return seconds


@torch.no_grad()
def score(model: Any, base: Any, spec: AdapterSpec, adapters: Sequence[Mapping[str, Any]], batches: Rows) -> float:
    """Seconds to give every adapter's loss on every batch, B set in place."""
    model.eval()
    began = time.perf_counter()
    for factors in adapters:
        for module in spec.modules:
            layer = base.get_submodule(module).lora_B["default"]
            layer.weight.copy_(torch.as_tensor(factors[module]))
        for rows in batches:
            tokens = torch.tensor([list(row) for row in rows], device=model.device)
            float(model(input_ids=tokens, labels=tokens, use_cache=False).loss)
    return time.perf_counter() - began
