"""Bytes in use at the peak of a training step, by part.

Weights frozen, LoRA's A frozen in the base's format, B trained in float32 (ml/lora.py). A frozen linear module keeps
nothing for its backward pass, so what a layer holds are the inputs of its non-linear parts: norms, attention, and the
gate. The loss holds a few rows of logits (ml/head_loss.py).
"""

from dataclasses import dataclass, fields

from ml.head_rows import choose_rows
from ml.plan.models import ModelShape
from ml.plan.setup import Setup

GIB = 2**30
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per parameter: 4 bits, an 8-bit scale for each 64, a float32 for each 256 of those (QLoRA, arXiv:2305.14314, 3)."""
PARAMETER_BYTES = {"nf4": NF4_BYTES, "bf16": 2.0, "fp32": 4.0}
OPTIMIZER_BYTES = {"adamw": 8.0, "paged_adamw_8bit": 2 + 2 * 4 / 256}
"""Two moments per trained value: float32, or 8 bits with a float32 scale for each 256 (arXiv:2110.02861)."""
CUDA_RUNTIME_BYTES = 0.7 * GIB
"""Context, cuBLAS workspaces and kernels; of the order reported for CUDA 12 and 13, to be measured."""
HOST_RUNTIME_BYTES = 0.6 * GIB
"""Python with torch, transformers and peft: 218 to 385 MiB when idle (measured), and buffers."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, or of the process where there is none."""

    weights: int
    adapter: int
    """LoRA's A, and B in float32."""
    gradients: int
    optimizer: int
    activations: int
    """Kept for the backward pass: each layer's input where checkpointing is on, else all that a layer keeps."""
    passing: int
    """The loss over the vocabulary, or one layer's backward pass, recomputed or not: they come one after the other."""
    workspace: int
    """The largest 4-bit module unpacked; a whole layer gathered from other GPUs."""
    runtime: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class HostMemory:
    """Bytes of main memory beside a GPU, and of disk."""

    runtime: int
    staging: int
    """The largest tensor of the base on its way to the GPU."""
    adapter_work: int
    """Factors before and after training, and the update, module by module."""
    disk_base: int
    disk_round: int
    """Updates of a round and two global adapters."""

    @property
    def total(self) -> int:
        return self.runtime + self.staging + self.adapter_work


def plan_memory(shape: ModelShape, setup: Setup, *, on_gpu: bool = True) -> Memory:
    """The peak of a training step."""
    trained, fixed = setup.count_adapter(shape)
    share = 1 / setup.gpus
    linear = shape.layers * shape.layer_parameters
    dense_bytes = 4 if setup.precision == "fp32" else 2
    weights = linear * PARAMETER_BYTES[setup.precision]
    weights += (shape.small_parameters + shape.embedding_parameters) * dense_bytes
    return Memory(
        weights=round(weights * share),
        adapter=round((trained * 4 + fixed * setup.compute_bytes) * share),
        gradients=round(trained * 4 * share),
        optimizer=round(trained * OPTIMIZER_BYTES[setup.optimizer] * share),
        activations=_count_activations(shape, setup),
        passing=_count_passing(shape, setup, on_gpu=on_gpu),
        workspace=_count_workspace(shape, setup),
        runtime=round(CUDA_RUNTIME_BYTES if on_gpu else HOST_RUNTIME_BYTES),
    )


def plan_host(shape: ModelShape, setup: Setup) -> HostMemory:
    """What the machine around the GPU needs, and the disk for the base and one round."""
    trained, _ = setup.count_adapter(shape)
    update, global_adapter = trained, 4 * trained
    base = shape.parameters * (4 if setup.precision == "fp32" else 2)
    return HostMemory(
        runtime=round(HOST_RUNTIME_BYTES),
        staging=2 * max(shape.largest_linear, shape.vocabulary * shape.hidden),
        adapter_work=3 * 4 * trained + update,
        disk_base=base,
        disk_round=setup.adapters * update + 2 * global_adapter,
    )


def _count_activations(shape: ModelShape, setup: Setup) -> int:
    of_layer = shape.hidden * setup.compute_bytes if setup.checkpointing else _count_layer_bytes(shape, setup)
    last_norm = 4 * shape.hidden
    return setup.step_tokens * (shape.layers * of_layer + last_norm)


def _count_passing(shape: ModelShape, setup: Setup, *, on_gpu: bool) -> int:
    # Gradients of the product, of gate and of up stand beside what the layer keeps.
    backward = 3 * shape.intermediate * setup.compute_bytes
    recomputed = _count_layer_bytes(shape, setup) if setup.checkpointing else 0
    return max(setup.step_tokens * (recomputed + backward), _count_loss_bytes(shape, setup, on_gpu=on_gpu))


def _count_loss_bytes(shape: ModelShape, setup: Setup, *, on_gpu: bool) -> int:
    """Logits of some rows and their gradient, probabilities of fewer, and three times the hidden states."""
    rows, reduced = (min(count, setup.step_tokens) for count in choose_rows(shape.vocabulary, on_gpu=on_gpu))
    slices = shape.vocabulary * (2 * rows * setup.compute_bytes + 4 * reduced)
    return slices + 3 * setup.step_tokens * shape.hidden * setup.compute_bytes


def _count_layer_bytes(shape: ModelShape, setup: Setup) -> int:
    """Per token that one layer keeps; transformers' Llama with `sdpa`, each term seen by saved-tensor hooks."""
    norms = 2 * 4 * shape.hidden + 2 * 4
    attention = (2 * shape.queries + 2 * shape.keys) * setup.compute_bytes + 4 * shape.heads
    gate = 3 * shape.intermediate * setup.compute_bytes
    inner = setup.compute_bytes * setup.rank * (len(shape.adapted(setup.targets)) // shape.layers)
    return norms + attention + gate + inner


def _count_workspace(shape: ModelShape, setup: Setup) -> int:
    unpacked = shape.largest_linear * 2 if setup.precision == "nf4" else 0
    gathered = 2 * shape.layer_parameters * PARAMETER_BYTES[setup.precision] if setup.gpus > 1 else 0
    return round(unpacked + gathered)
