"""Training in processes of their own: one, or one for each GPU (`processes`), that work together through accelerate.

Every process holds the whole adapter; on GPUs the frozen base is sharded over them (ml/team.py). The folder keeps the
job's checkpoint, so that the same job, started again after a kill, goes on where it stood.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ml.adapter import make_global_manifest, read_update, write_global
from ml.data import Block
from ml.environment import make_environment
from ml.spec import AdapterSpec, TrainSpec, encode_spec
from ml.train import CHECKPOINT_S, Progress, TrainingFailed, TrainResult
from ml.train_job import JOB, RESULT, START, UPDATE


@dataclass(frozen=True)
class Job:
    """What the processes are to train, beside the adapter from which they start."""

    base_dir: Path
    dtype: str
    spec: AdapterSpec
    train_spec: TrainSpec
    blocks: Sequence[Block]
    device: str = "cpu"
    processes: int = 1
    threads: int = 1
    """Each."""
    shard: bool = True
    """On GPUs: the base over all of them, rather than whole on each."""
    setup: Mapping[str, Any] = field(default_factory=dict)
    """What to change of the setup that is chosen for the base: fields of `TrainSetup`."""
    checkpoint_s: float = CHECKPOINT_S


def train_in_processes(
    job: Job, folder: Path, global_adapter: Mapping[str, Any] | None = None, *, progress: Progress | None = None
) -> TrainResult:
    """Like `train_update`, the base loaded by the processes. Raises TrainingFailed."""
    _write_job(job, folder, global_adapter)
    child = _start(job, folder)
    assert child.stdout is not None
    try:
        failed = _follow(child.stdout, progress)
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            stream.close()
    if failed or code or not (folder / RESULT).exists():
        raise TrainingFailed(failed or f"the training ended with code {code}: see {folder / 'training.log'}")
    return _read_result(job, folder)


def _write_job(job: Job, folder: Path, global_adapter: Mapping[str, Any] | None) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (START, UPDATE, RESULT):
        (folder / name).unlink(missing_ok=True)
    if global_adapter is not None:
        write_global(folder / START, dict(global_adapter), make_global_manifest(job.spec, task=0, round=0))
    document = {
        "base_dir": str(job.base_dir),
        "dtype": job.dtype,
        "spec": encode_spec(job.spec),
        "train_spec": asdict(job.train_spec),
        "blocks": [[block.document, [int(token) for token in block.tokens]] for block in job.blocks],
        "device": job.device,
        "processes": job.processes,
        "threads": job.threads,
        "shard": job.shard,
        "setup": dict(job.setup),
        "checkpoint_s": job.checkpoint_s,
    }
    with os.fdopen(os.open(folder / JOB, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file)  # private text, as tokens


def _start(job: Job, folder: Path) -> "subprocess.Popen[bytes]":
    environment = make_environment(job.threads)
    if job.device == "cpu":
        environment |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    elif job.processes > 1 and job.shard:
        # As `accelerate launch --use_fsdp --fsdp_cpu_ram_efficient_loading true` sets it: transformers reads these too.
        names = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING", "FSDP_SYNC_MODULE_STATES")
        environment |= dict.fromkeys(names, "true") | {"FSDP_VERSION": "1"}
    command = [sys.executable, "-m", "ml.train_job", str(folder)]
    with (folder / "training.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
        )


def _follow(stream: IO[bytes], progress: Progress | None) -> str:
    """Pass each step on until the stream ends; the sentence of a failure, or nothing."""
    failed = ""
    for line in stream:
        try:
            told = json.loads(line)
        except ValueError:
            continue  # a library's own words
        failed = failed or told.get("failed", "")
        if progress is not None and "step" in told:
            progress(told["step"], told["steps"], told["loss"])
    return failed


def _read_result(job: Job, folder: Path) -> TrainResult:
    figures = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    update, _ = read_update(folder / UPDATE, job.spec)
    figures["losses"] = tuple(figures["losses"])
    return TrainResult(update=update, **figures)
