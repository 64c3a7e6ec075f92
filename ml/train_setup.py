"""How a machine trains. What is learned is the task's: every setup takes the same steps, up to the rounding of sums."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch


@dataclass(frozen=True)
class TrainSetup:
    """By hand, or by `choose_setup`."""

    optimizer: Literal["adamw", "paged_adamw_8bit"] = "adamw"
    """`paged_adamw_8bit` (bitsandbytes, on a GPU): 8-bit moments, in pages that move to the host when memory ends."""
    gradient_checkpointing: bool = False
    """Keep each layer's input alone and compute the rest again on the way back: a third slower, little memory."""
    packing: bool = True
    """Short blocks share rows."""
    rows_at_once: int = 0
    """Rows per forward pass; a batch of more is taken in parts and its gradients summed. 0: the whole batch."""


def choose_setup(model: Any, **changes: Any) -> TrainSetup:
    """QLoRA's (Dettmers et al., arXiv:2305.14314) for a 4-bit base on a GPU, else the plain one; then `changes`."""
    is_qlora = model.device.type != "cpu" and is_four_bit(model)
    chosen = TrainSetup(optimizer="paged_adamw_8bit", gradient_checkpointing=True) if is_qlora else TrainSetup()
    return replace(chosen, **changes)


def is_four_bit(model: Any) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False))


def make_optimizer(setup: TrainSetup, factors: Iterable[torch.Tensor], learning_rate: float) -> torch.optim.Optimizer:
    """AdamW. Constant rate, no warm-up, no weight decay: B starts at the settled global adapter, not at noise."""
    if setup.optimizer == "paged_adamw_8bit":
        from bitsandbytes.optim import PagedAdamW8bit

        paged: torch.optim.Optimizer = PagedAdamW8bit(list(factors), lr=learning_rate, weight_decay=0.0)
        return paged
    return torch.optim.AdamW(list(factors), lr=learning_rate, weight_decay=0.0)


def set_gradient_checkpointing(model: Any, is_on: bool) -> None:
    """Of the kind that keeps no reentrant graph; transformers 5.2x calls it activation checkpointing."""
    if hasattr(model, "activation_checkpointing_enable"):
        enable, disable = model.activation_checkpointing_enable, model.activation_checkpointing_disable
    else:
        enable, disable = model.gradient_checkpointing_enable, model.gradient_checkpointing_disable
    if is_on:
        enable({"use_reentrant": False})
    else:
        disable()


def set_deterministic(is_on: bool = True) -> None:
    """Deterministic kernels where they exist, a warning where not (docs/gpu.md). Before the first CUDA call.

    cuBLAS gives equal bits from run to run only with a workspace of its own per stream, which it reads from the
    environment (torch, "Reproducibility").
    """
    import os

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(is_on, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it writes all memory once more, for bugs we test for
    torch.backends.cudnn.benchmark = False
