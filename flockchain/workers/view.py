"""A task and its round as a worker needs them, read from REST's JSON."""

from dataclasses import dataclass
from pathlib import Path

from flockchain.client import Json
from ml.adapter import make_update_manifest
from ml.judge import Submission
from ml.spec import AdapterSpec, JudgeSpec, TrainSpec, make_spec


@dataclass(frozen=True, slots=True)
class Model:
    """What the task fixes for all its learners, with the base that lies in a local folder."""

    base_dir: Path
    spec: AdapterSpec
    precision: str
    aggregator: str
    norm_cap: int
    max_adapter_bytes: int
    domains: tuple[str, ...]


def make_model(task: Json, base_dir: Path) -> Model:
    """The task's adapter spec over the base in `base_dir`, whose hash the caller has checked."""
    spec, model = task["spec"], task["spec"]["model"]
    adapter_spec = make_spec(
        base_dir,
        model["base_hash"],
        rank=model["rank"],
        alpha=model["alpha"],
        target_modules=model["target_modules"],
        a_seed=bytes.fromhex(task["seed"]),
        update_step_log2=model["update_step_log2"],
        mode=model["mode"],
    )
    return Model(
        base_dir=base_dir,
        spec=adapter_spec,
        precision=model["precision"],
        aggregator=model["aggregator"],
        norm_cap=model["norm_cap"],
        max_adapter_bytes=spec["max_adapter_bytes"],
        domains=tuple(spec["domains"]),
    )


def make_train_spec(task: Json, seed: int) -> TrainSpec:
    """Local steps as the task fixes them; `seed` is the trainer's own, per round."""
    model = task["spec"]["model"]
    return TrainSpec(
        local_steps=model["local_steps"],
        batch_size=model["batch_size"],
        sequence_length=model["sequence_length"],
        learning_rate=model["learning_rate_ppm"] / 1_000_000,
        seed=seed,
    )


def make_judge_spec(task: Json) -> JudgeSpec:
    """The task's judging rule; its token budget is shared equally by the domains."""
    judge = task["spec"]["judge"]
    return JudgeSpec(
        z_milli=judge["z_milli"],
        tolerance_ppm=judge["tolerance_ppm"],
        min_blocks=judge["min_blocks"],
        min_documents=judge["min_documents"],
        block_tokens=judge["block_tokens"],
        judge_tokens=judge["judge_tokens"] // len(task["spec"]["domains"]),
        screen_tokens=judge["screen_tokens"],
    )


def make_submission(task: Json, round_: Json, row: Json, spec: AdapterSpec, path: Path | None) -> Submission:
    """One recorded adapter with the manifest that its bytes must carry."""
    manifest = make_update_manifest(
        spec, task=task["id"], round=round_["number"], trainer=row["trainer"], base_root=round_["base_root"] or ""
    )
    return Submission(row["root"], path, manifest)
