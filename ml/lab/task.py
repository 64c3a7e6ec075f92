"""The task of the lab's experiments on the ledger, as its creator would state it."""

from collections.abc import Mapping, Sequence
from typing import Any

from flockchain.types.task import JudgeSpec, ModelSpec, PenaltySpec, PhaseSpec, RewardSpec, TaskSpec
from ml.spec import JudgeSpec as MeterSpec

PHASE_MS = 600_000


def make_task_spec(task: Mapping[str, Any], domains: Sequence[str], rule: str, min_bond_uflk: int) -> TaskSpec:
    """Judging budget and phases are generous: time is no matter in the lab."""
    names = ("enroll_ms", "train_ms", "publish_ms", "commit_ms", "reveal_ms", "aggregate_ms", "enroll_limit_ms")
    return TaskSpec(
        name="lab",
        model=ModelSpec(
            name="tiny",
            base_hash=bytes(32),
            tokenizer_hash=bytes(32),
            rank=8,
            alpha=16,
            target_modules=("q_proj", "v_proj"),
            local_steps=1,
            batch_size=1,
            sequence_length=64,
            learning_rate_ppm=1,
            update_step_log2=-8,
            norm_cap=0,
        ),
        domains=tuple(sorted(domains)),
        rounds=task["rounds"],
        phases=PhaseSpec(**dict.fromkeys(names, PHASE_MS)),
        trainers_min=1,
        trainers_max=task["trainers_drawn"],
        judge=JudgeSpec(
            seats=task["seats"],
            z_milli=task["z_milli"],
            tolerance_ppm=task["tolerance_ppm"],
            min_blocks=task["min_blocks"],
            min_documents=task["min_documents"],
            judge_tokens=1_000,
            slowest_tokens_per_s=1_000,
        ),
        penalties=PenaltySpec(),
        rewards=RewardSpec(rule=rule),  # type: ignore[arg-type]
        min_bond_uflk=min_bond_uflk,
        max_adapter_bytes=1 << 20,
    )


def make_meter_spec(task: Mapping[str, Any]) -> MeterSpec:
    """The judging rule of the same task, as the meter takes it."""
    return MeterSpec(
        z_milli=task["z_milli"],
        tolerance_ppm=task["tolerance_ppm"],
        min_blocks=task["min_blocks"],
        min_documents=task["min_documents"],
    )
