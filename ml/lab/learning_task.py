"""The task of an experiment, and its committee: who has how many seats."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flockchain.crypto import sha256
from flockchain.params import UFLK_PER_FLK
from flockchain.types.task import JudgeSpec, ModelSpec, PenaltySpec, PhaseSpec, RewardSpec, TaskSpec
from ml.lab import Json
from ml.lab.learners import Model

PHASE_MS = 3_600_000
MIN_BOND_UFLK = 500 * UFLK_PER_FLK
MAX_ADAPTER_BYTES = 64 * 2**20
LIAR = "liar"


def make_task_spec(
    model: Model, domains: Sequence[str], judge: Mapping[str, Any], *, trainers: int, seats: int, norm_cap: int
) -> TaskSpec:
    """As a creator would state it; phases are long, since nobody waits in process."""
    phases = dict.fromkeys(PhaseSpec.__struct_fields__, PHASE_MS) | {"enroll_limit_ms": 2 * PHASE_MS}
    return TaskSpec(
        name="lab",
        model=ModelSpec(
            name=model.folder.name[:32],
            base_hash=bytes.fromhex(model.spec.base_hash),
            tokenizer_hash=sha256(b"of the base"),
            precision=model.settings["precision"],
            rank=model.spec.rank,
            alpha=model.spec.alpha,
            target_modules=tuple(sorted(model.spec.target_modules)),
            local_steps=model.settings["local_steps"],
            batch_size=model.settings["batch_size"],
            sequence_length=model.settings["sequence_length"],
            learning_rate_ppm=model.settings["learning_rate_ppm"],
            update_step_log2=model.spec.update_step_log2,
            norm_cap=norm_cap,
        ),
        domains=tuple(sorted(domains)),
        rounds=judge.get("rounds", 1),
        phases=PhaseSpec(**phases),
        trainers_min=1,
        trainers_max=trainers,
        judge=JudgeSpec(
            seats=seats,
            z_milli=judge["z_milli"],
            tolerance_ppm=judge["tolerance_ppm"],
            block_tokens=judge["block_tokens"],
            judge_tokens=judge["block_tokens"] * judge["blocks"] * len(domains),
            screen_tokens=judge["screen_tokens"],
            slowest_tokens_per_s=1_000_000,
        ),
        penalties=PenaltySpec(),
        rewards=RewardSpec(),
        min_bond_uflk=MIN_BOND_UFLK,
        max_adapter_bytes=MAX_ADAPTER_BYTES,
    )


def to_json(spec: TaskSpec) -> Json:
    """The task as REST shows it, as far as the workers' code reads it."""
    return {"id": 1, "spec": _name_fields(spec)}


def _name_fields(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _name_fields(getattr(value, name)) for name in value.__struct_fields__}
    return value


def name_judges(count: int) -> list[str]:
    return [f"judge-{index}" for index in range(count)]


def give_seats(judges: int, seats_each: int, liar_seats: int = 0) -> dict[str, int]:
    """Seats by judge; a liar's beside, where there is one."""
    seats = dict.fromkeys(name_judges(judges), seats_each)
    return seats | ({LIAR: liar_seats} if liar_seats else {})
