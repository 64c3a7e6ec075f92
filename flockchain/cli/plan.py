"""`flockchain plan`: memory, bytes and time of a task, before anything is staked."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flockchain.cli.common import JsonFlag, console, print_json
from flockchain.errors import Refused

if TYPE_CHECKING:
    from ml.plan import HostMemory, Memory, ModelShape, Setup, Speed, Work

GB = 1e9


def plan(
    model: Annotated[
        str, typer.Option("--model", help="demo, 1b, 8b, 32b, 70b, 405b, a folder, a config.json, or owner/name.")
    ],
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of the LoRA.")] = 16,
    targets: Annotated[
        str, typer.Option("--targets", help="Adapted modules, by commas, or all-linear.")
    ] = "q_proj,v_proj",
    length: Annotated[int, typer.Option("--length", min=2, help="Tokens of a sequence.")] = 512,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Sequences of a step on each GPU.")] = 1,
    precision: Annotated[str, typer.Option("--precision", help="nf4, bf16 or fp32.")] = "nf4",
    optimizer: Annotated[str, typer.Option("--optimizer", help="adamw or paged_adamw_8bit.")] = "adamw",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing/--no-checkpointing", help="Recompute activations.")
    ] = True,
    gpus: Annotated[int, typer.Option("--gpus", min=1, max=64, help="GPUs that share the model.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Local steps of a round.")] = 24,
    adapters: Annotated[int, typer.Option("--adapters", min=1, help="Submissions of a round.")] = 10,
    judge_tokens: Annotated[int, typer.Option("--judge-tokens", min=1, help="Scored for each adapter.")] = 30_000,
    device: Annotated[str, typer.Option("--device", help="h200, h100, a100, l40s, rtx4090, rtx3090, or cpu.")] = "h200",
    measure: Annotated[
        bool, typer.Option("--measure", help="Time three layers of the model on this machine, instead of assuming.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """What a task costs before anything is staked: memory by part, bytes to send, time to train and to judge.

    Example: flockchain plan --model 70b --rank 16 --length 2048 --device h200
    """
    from ml.base import BaseError
    from ml.plan import Setup, find_model, plan_host, plan_memory, plan_work

    try:
        shape = find_model(model)
        setup = Setup(
            rank=rank,
            targets=tuple(name.strip() for name in targets.split(",")),
            length=length,
            batch=batch,
            precision=precision,
            optimizer=optimizer,
            checkpointing=checkpointing,
            gpus=gpus,
            local_steps=steps,
            judge_tokens=judge_tokens,
            adapters=adapters,
        )
        memory = plan_memory(shape, setup, on_gpu=device != "cpu")
        work = plan_work(shape, setup, _find_speed(shape, setup, device, measure))
    except (BaseError, ValueError) as error:
        raise Refused("bad-plan", str(error)) from None
    host, verdict = plan_host(shape, setup), _judge_fit(memory.total, device, gpus)
    if json:
        parameters = {"parameters": shape.parameters, **asdict(setup)}
        parts = {"memory_bytes": {**asdict(memory), "total": memory.total}, "host_bytes": asdict(host)}
        print_json({"model": shape.name, **parameters, **parts, "work": asdict(work), "verdict": verdict})
        return
    _print(shape, setup, memory, host, work, verdict)


def _find_speed(shape: "ModelShape", setup: "Setup", device: str, measure: bool) -> "Speed":
    from ml.plan import DEVICES, assume_speed

    if measure:
        import torch

        from ml.plan.measure import measure_speed

        return measure_speed(shape, setup, "cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda")
    if device == "cpu":
        raise ValueError("the speed of a CPU is not assumed: add --measure (half a minute for a small model)")
    if device not in DEVICES:
        raise ValueError(f"device {device!r}: choose from {', '.join(DEVICES)}, cpu")
    return assume_speed(shape, setup, DEVICES[device])


def _judge_fit(total_bytes: int, device: str, gpus: int) -> str:
    """Whether it fits, and if not, what would."""
    from ml.plan import DEVICES

    each = f"{total_bytes / GB:.1f} GB" + (" on each GPU" if gpus > 1 else "")
    if device not in DEVICES:
        return f"needs {each} of memory"
    kind = DEVICES[device]
    # A tenth is left for the allocator's gaps.
    if total_bytes <= 0.9 * kind.memory_gb * GB:
        return f"fits: {each} of the {kind.memory_gb:g} GB of one {kind.name}"
    others = sorted(other.memory_gb for other in DEVICES.values() if total_bytes <= 0.9 * other.memory_gb * GB)
    advice = f"it needs a GPU of {others[0]:g} GB" if others else "no known GPU is large enough"
    return (
        f"does not fit {kind.name} ({kind.memory_gb:g} GB): {each}; {advice}, more --gpus, nf4, or a shorter --length"
    )


def _print(
    shape: "ModelShape", setup: "Setup", memory: "Memory", host: "HostMemory", work: "Work", verdict: str
) -> None:
    out = console()
    out.print(
        f"[bold]{shape.name}[/bold]: {shape.parameters / GB:.2f} billion parameters, {shape.layers} layers; "
        f"LoRA of rank {setup.rank} on {', '.join(setup.targets)}; {setup.precision}, {setup.batch} x {setup.length} "
        f"tokens a step, {setup.gpus} GPU(s)"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for field in fields(memory):
        table.add_row(field.name, _show_bytes(getattr(memory, field.name)), NOTES[field.name])
    table.add_row("in all", _show_bytes(memory.total), verdict)
    table.add_section()
    for name, value, note in _list_rest(host, work, setup):
        table.add_row(name, value, note)
    out.print(table)


NOTES = {
    "weights": "of the frozen base",
    "adapter": "LoRA's A and B in float32",
    "gradients": "of B",
    "optimizer": "two moments of B",
    "activations": "kept for the backward pass",
    "passing": "loss over the vocabulary, or one layer's backward pass",
    "workspace": "unpacked or gathered weights",
    "runtime": "driver and libraries",
}


def _list_rest(host: "HostMemory", work: "Work", setup: "Setup") -> list[tuple[str, str, str]]:
    less = work.plain_bytes / work.update_bytes
    return [
        ("host", _show_bytes(host.total), "main memory of the machine"),
        ("disk", _show_bytes(host.disk_base + host.disk_round), "base in its files, updates, global adapters"),
        ("upload", _show_bytes(work.update_bytes), f"one update a round; {less:.1f}x less than A and B in float32"),
        ("download", _show_bytes(work.global_bytes), "the global adapter, each round"),
        ("for judges", _show_bytes(work.judge_download_bytes), f"{setup.adapters} updates a round"),
        ("training", _show_time(work.train_s), f"{setup.local_steps} local steps"),
        ("judging", _show_time(work.judge_s), f"{setup.adapters} updates of {setup.judge_tokens:,} tokens"),
        ("speed", "", work.source),
    ]


def _show_bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _show_time(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.1f} s"
