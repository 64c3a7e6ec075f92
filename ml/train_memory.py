"""Memory ran out: what took it, and what would fit."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from ml.plan.memory import OPTIMIZER_BYTES, plan_memory
from ml.plan.models import ModelShape
from ml.plan.setup import Setup
from ml.spec import AdapterSpec, TrainSpec
from ml.train_setup import TrainSetup, is_four_bit

GB = 10**9
SHORTEST = 64
"""Tokens of the shortest sequences that are proposed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Of CUDA, of cuBLAS, of the host's allocator or of Python."""
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        phrase in said for phrase in ("out of memory", "can't allocate memory", "alloc_failed")
    )


def describe_memory(base: Any, spec: AdapterSpec, train_spec: TrainSpec, setup: TrainSetup) -> str:
    """One sentence: the parts in GB, and the least change that would fit."""
    weights, adapter = _count_base_bytes(base), _count_adapter_bytes(spec, setup)
    rows = min(setup.rows_at_once or train_spec.batch_size, train_spec.batch_size)
    length, total = train_spec.sequence_length, _get_device_bytes(base.device)
    return (
        f"out of memory while training {rows} rows of {length} tokens: the base takes {weights / GB:.1f} GB, adapter "
        f"and optimizer {adapter / GB:.1f} GB of {total / GB:.1f} GB; {_advise(base, spec, rows, length, setup, total)}"
    )


def _advise(base: Any, spec: AdapterSpec, rows: int, length: int, setup: TrainSetup, total: int) -> str:
    """The first change, of those that cost least, that fits by the planner (ml/plan)."""
    for change, plan in _list_changes(base, spec, rows, length, setup):
        try:
            needed = plan_memory(
                ModelShape("base", base.config.to_dict()), plan, on_gpu=base.device.type != "cpu"
            ).total
        except (KeyError, ValueError, TypeError):  # not a model whose sizes the planner knows
            return f"try {change}"
        if needed < total:
            return f"by the plan it takes {needed / GB:.1f} GB with {change}"
    return "no setup on this device fits: shard the base over more GPUs (--processes), or take a smaller base"


def _list_changes(
    base: Any, spec: AdapterSpec, rows: int, length: int, setup: TrainSetup
) -> Iterator[tuple[str, Setup]]:
    """(words, what the planner calls it), each smaller than what did not fit; what costs no result comes first."""
    precision = "nf4" if is_four_bit(base) else "fp32" if base.dtype == torch.float32 else "bf16"
    plan = Setup(
        rank=spec.rank,
        targets=spec.target_modules,
        length=length,
        batch=rows,
        precision=precision,
        optimizer=setup.optimizer,
        checkpointing=setup.gradient_checkpointing,
    )
    while plan.batch > 1:
        plan = replace(plan, batch=plan.batch // 2)
        yield f"--rows-at-once {plan.batch} (same result)", plan
    if not plan.checkpointing:
        plan = replace(plan, checkpointing=True)
        yield "--rows-at-once 1 --gradient-checkpointing (same result, a third slower)", plan
    if precision != "nf4":
        plan = replace(plan, precision="nf4")
        yield "--rows-at-once 1 --gradient-checkpointing --dtype nf4", plan
    while plan.length > SHORTEST:
        plan = replace(plan, length=plan.length // 2)
        yield f"a task of {plan.length} tokens in a sequence", plan


def _count_base_bytes(base: Any) -> int:
    tensors = [value for name, value in base.named_parameters() if ".lora_" not in name]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _count_adapter_bytes(spec: AdapterSpec, setup: TrainSetup) -> int:
    """A in the base's format (2 bytes), B in float32 with its gradient and moments."""
    a = sum(spec.rank * in_features for _, _, in_features in spec.shapes)
    b = sum(spec.rank * out_features for _, out_features, _ in spec.shapes)
    return 2 * a + round((4 + 4 + OPTIMIZER_BYTES[setup.optimizer]) * b)


def _get_device_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
