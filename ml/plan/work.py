"""Operations of training and judging, and the seconds they take on a device.

A product of (n, in) with (out, in) is 2 n in out operations. Training a LoRA on frozen weights passes through them
forward (2 P), backward for the activations alone (2 P: no gradient of the weights), and forward once more where
activations are recomputed (2 P); scoring is one forward pass.
"""

from dataclasses import dataclass

from ml.plan.models import ModelShape
from ml.plan.setup import Setup

PROBE_BLOCKS = 4
"""Blocks scored before and after training (ml/train.py)."""
HEADER_BYTES_PER_TENSOR = 110
"""Of an adapter's file: name, dtype, shape and offsets in JSON, about."""


@dataclass(frozen=True)
class Device:
    """A kind of processor: memory, and products in bf16 without sparsity, as its maker states them."""

    name: str
    memory_gb: float
    """In 10^9 bytes."""
    peak_tflops: float
    is_gpu: bool = True


DEVICES = {
    device.name: device
    for device in (
        Device("h200", 141, 989),
        Device("h100", 80, 989),
        Device("a100", 80, 312),
        Device("l40s", 48, 362),
        Device("rtx4090", 24, 165),
        Device("rtx3090", 24, 71),
    )
}
ASSUMED_UTILISATION = {"bf16": 0.40, "nf4": 0.25, "fp32": 0.20}
"""Share of the peak that training reaches: a guess until a machine of the kind is measured, and shown as one."""


@dataclass(frozen=True)
class Speed:
    """Seconds per token of one GPU, or of this CPU."""

    train_s: float
    judge_s: float
    source: str
    """Where it is from: a measurement on this machine, or an assumption in words."""


@dataclass(frozen=True)
class Work:
    """Operations, bytes that travel, and seconds."""

    flops_per_trained_token: float
    flops_per_judged_token: float
    update_bytes: int
    """What a trainer sends: the int8 B of its update."""
    plain_bytes: int
    """What it would send as A and B in float32."""
    global_bytes: int
    """What everyone fetches: the int32 B of the global adapter."""
    judge_download_bytes: int
    """Updates of a round, for one judge."""
    train_s: float
    """Of one trainer's local steps."""
    judge_s: float
    """Of one judge for all submissions of a round, and the global adapter once."""
    source: str
    """Where the speed is from."""


def assume_speed(shape: ModelShape, setup: Setup, device: Device) -> Speed:
    """From the maker's peak and a guessed share of it."""
    share = ASSUMED_UTILISATION[setup.precision]
    reached = device.peak_tflops * 1e12 * share * setup.gpus
    source = f"assumed: {share:.0%} of {device.name}'s {device.peak_tflops:g} TFLOP/s, {setup.gpus} of them"
    return Speed(count_train_flops(shape, setup) / reached, count_forward_flops(shape, setup.length) / reached, source)


def plan_work(shape: ModelShape, setup: Setup, speed: Speed) -> Work:
    """One round of one trainer and of one judge."""
    trained, fixed = setup.count_adapter(shape)
    header = 300 + HEADER_BYTES_PER_TENSOR * len(shape.adapted(setup.targets))
    # A probe is one forward pass over a few blocks, before and after (ml/train.py).
    probe_tokens = 2 * PROBE_BLOCKS * setup.length
    return Work(
        flops_per_trained_token=count_train_flops(shape, setup),
        flops_per_judged_token=count_forward_flops(shape, setup.length),
        update_bytes=trained + header,
        plain_bytes=4 * (trained + fixed),
        global_bytes=4 * trained + header,
        judge_download_bytes=setup.adapters * (trained + header),
        train_s=setup.local_steps * setup.step_tokens * setup.gpus * speed.train_s + probe_tokens * speed.judge_s,
        judge_s=setup.judge_tokens * (setup.adapters + 1) * speed.judge_s,
        source=speed.source,
    )


def count_train_flops(shape: ModelShape, setup: Setup) -> float:
    """Per token. Attention's backward pass costs twice its forward; the frozen modules' as much as it."""
    forward = count_forward_flops(shape, setup.length)
    trained, fixed = setup.count_adapter(shape)
    passes = 3 if setup.checkpointing else 2
    return forward * passes + _count_attention_flops(shape, setup.length) + 6 * trained + 4 * fixed


def count_forward_flops(shape: ModelShape, length: int) -> float:
    """Per token: the linear modules, the head, and attention."""
    linear = shape.layers * shape.layer_parameters + shape.vocabulary * shape.hidden
    return 2 * linear + _count_attention_flops(shape, length)


def _count_attention_flops(shape: ModelShape, length: int) -> float:
    """Per token: scores and their use, over the tokens before it, half of the length in the mean."""
    return shape.layers * 2 * 2 * shape.queries * length / 2
