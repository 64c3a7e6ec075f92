"""Memory ran out: what took it, and what would fit."""

from typing import Any

import torch

from ml.spec import AdapterSpec, TrainSpec
from ml.train_setup import TrainSetup, is_four_bit

GB = 10**9
OPTIMIZER_BYTES = {"adamw": 8, "paged_adamw_8bit": 2}
"""Two moments per value of B."""


def is_out_of_memory(error: BaseException) -> bool:
    """Of CUDA, of cuBLAS, of the host's allocator or of Python."""
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        phrase in said for phrase in ("out of memory", "can't allocate memory", "alloc_failed")
    )


def describe_memory(base: Any, spec: AdapterSpec, train_spec: TrainSpec, setup: TrainSetup) -> str:
    """One sentence: the parts in GB, and the first thing to change that makes the largest part smaller."""
    weights, adapter = _count_base_bytes(base), _count_adapter_bytes(spec, setup)
    rows = min(setup.rows_at_once or train_spec.batch_size, train_spec.batch_size)
    length = train_spec.sequence_length
    total = _get_device_bytes(base.device)
    left = f", which leaves {max(0, total - weights - adapter) / GB:.1f} of {total / GB:.1f} GB" if total else ""
    return (
        f"out of memory while training {rows} rows of {length} tokens: the base takes {weights / GB:.1f} GB, adapter "
        f"and optimizer {adapter / GB:.1f} GB{left} for activations; {_advise(base, rows, setup)}"
    )


def _advise(base: Any, rows: int, setup: TrainSetup) -> str:
    """Activations grow with rows x length; what costs no result comes first."""
    if rows > 1:
        return f"take {rows // 2} rows at once (same result), that needs half of them, or a smaller batch"
    if not setup.gradient_checkpointing:
        return "switch gradient checkpointing on (same result, a third slower), or take shorter sequences"
    if not is_four_bit(base):
        return "load the base in 4 bit (nf4), a quarter of its bf16 size, or take shorter sequences"
    return "take shorter sequences, a smaller rank, or shard the base over more GPUs"


def _count_base_bytes(base: Any) -> int:
    tensors = [value for name, value in base.named_parameters() if ".lora_" not in name]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _count_adapter_bytes(spec: AdapterSpec, setup: TrainSetup) -> int:
    """A in the base's format (2 bytes), B in float32 with its gradient and moments."""
    a = sum(spec.rank * in_features for _, _, in_features in spec.shapes)
    b = sum(spec.rank * out_features for _, out_features, _ in spec.shapes)
    return 2 * a + (4 + 4 + OPTIMIZER_BYTES[setup.optimizer]) * b


def _get_device_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return 0
