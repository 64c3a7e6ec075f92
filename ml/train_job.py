"""A training job (`python -m ml.train_job FOLDER`); its other end is ml/train_process.py.

It trains itself, or starts the job's processes by torchrun's own launcher, whose environment accelerate reads. The
first of them tells each step on stdout as a line of JSON and leaves the update in the folder. When stdin ends, whoever
asked for the job is gone, and the job ends too.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.adapter import read_global, write_update
from ml.base import prepare_base
from ml.data import Block
from ml.spec import AdapterSpec, TrainSpec, decode_spec

if TYPE_CHECKING:
    from ml.team import Team

JOB, START, CHECKPOINT, UPDATE, RESULT = (
    "job.json",
    "start.safetensors",
    "checkpoint.safetensors",
    "update.safetensors",
    "result.json",
)
_EXPECTED = (RuntimeError, ValueError, OSError, MemoryError)
"""BaseError and TrainingFailed are RuntimeErrors; the others come from libraries and the system."""


def run_job(folder: Path) -> None:
    """Train as the folder's job says, in each of its processes. Raises BaseError, TrainingFailed."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    prepare_base(job["base_dir"])  # before the seconds that the imports take
    if job["processes"] == 1:
        _train(folder, job)
        return
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _import_all()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=job["processes"],
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=folder.name,
        max_restarts=0,
        # A fork shares the imports; but not CUDA, which a library may have touched on the way.
        start_method="fork" if job["device"] == "cpu" else "spawn",
    )
    elastic_launch(config, _train_and_tell)(folder, job)


def _train_and_tell(folder: Path, job: Mapping[str, Any]) -> None:
    """Of one process of several: the launcher's own report of a failure is a page, not a sentence."""
    try:
        _train(folder, job)
    except _EXPECTED as error:
        _tell_failure(error)
        raise


def _train(folder: Path, job: Mapping[str, Any]) -> None:
    import torch

    from ml.base import load_base
    from ml.train import train_update
    from ml.train_setup import choose_setup

    torch.set_num_threads(job["threads"])
    spec, team = decode_spec(job["spec"]), _join_team(job)
    base = load_base(job["base_dir"], job["dtype"], str(team.device or job["device"]), sharded=team.shard)
    start = read_global(folder / START, spec)[0] if (folder / START).exists() else None
    result = train_update(
        base,
        spec,
        TrainSpec(**job["train_spec"]),
        [Block(document, tuple(tokens)) for document, tokens in job["blocks"]],
        start,
        progress=_tell_step if team.is_first else None,
        setup=choose_setup(base, **job["setup"]),
        team=team,
        checkpoint=folder / CHECKPOINT,
        checkpoint_s=job["checkpoint_s"],
    )
    if team.is_first:
        _leave(folder, spec, result)


def _join_team(job: Mapping[str, Any]) -> "Team":
    from ml.team import AccelerateTeam, Team, make_accelerator

    if job["processes"] == 1:
        return Team()
    is_cpu = job["device"] == "cpu"
    shard = job["shard"] and not is_cpu
    return AccelerateTeam(make_accelerator(cpu=is_cpu, shard=shard), shard=shard)


def _import_all() -> None:
    """What every process needs, once before they are forked."""
    import accelerate  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    from ml.libraries import import_peft

    import_peft()
    torch.set_num_threads(1)  # a fork must not inherit a pool of threads that it does not have


def _leave(folder: Path, spec: AdapterSpec, result: Any) -> None:
    """The update and its figures; the figures last, for they say that the rest is whole."""
    write_update(folder / UPDATE, result.update, {})
    names = ("losses", "loss_before", "loss_after", "saturated", "tokens", "seconds", "resumed_at")
    partial = folder / f"{RESULT}.partial"
    partial.write_text(json.dumps({name: getattr(result, name) for name in names}), encoding="utf-8")
    partial.replace(folder / RESULT)


def _tell_step(step: int, steps: int, loss: float) -> None:
    print(json.dumps({"step": step, "steps": steps, "loss": loss}), flush=True)


def _tell_failure(error: BaseException) -> None:
    sentence = str(error) if type(error).__module__.startswith("ml.") else f"{type(error).__name__}: {error}"
    print(json.dumps({"failed": sentence}), flush=True)


def _end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)  # the launcher's processes end with it (prctl)


def main(folder: Path) -> int:
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        run_job(folder)
    except _EXPECTED as error:
        _tell_failure(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
