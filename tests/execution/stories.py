"""Chains with seconds instead of weeks, and a small task on them."""

from msgspec.structs import replace

from flockchain.genesis import Genesis
from flockchain.params import ConsensusParams, Params, StakeParams
from flockchain.txs import create_task, stake
from flockchain.types.rows import TrainingRound
from flockchain.types.task import Holdout, JudgeSpec, ModelSpec, PenaltySpec, PhaseSpec, RewardSpec, TaskSpec
from tests.support.ledger import Ledger, make_genesis

UNBONDING_MS = 100_000
EVIDENCE_AGE_MS = 80_000
MIN_BOND_UFLK = 1_000_000_000


def make_quick_genesis(
    *, validators: int = 4, bonds_uflk: tuple[int, ...] = (), consensus: ConsensusParams | None = None, **overrides: int
) -> Genesis:
    """Genesis with quick periods; `overrides` replace single fields of `StakeParams`."""
    quick = replace(
        StakeParams(
            unbonding_ms=UNBONDING_MS,
            evidence_age_ms=EVIDENCE_AGE_MS,
            trusting_period_ms=50_000,
            liveness_window_ms=30_000,
            jail_ms=20_000,
            min_validator_bond_uflk=MIN_BOND_UFLK,
        ),
        **overrides,
    )
    params = Params(stake=quick, consensus=consensus or ConsensusParams(late_precommit_blocks=3))
    return make_genesis(validators=validators, bonds_uflk=bonds_uflk, params=params)


def make_spec() -> TaskSpec:
    """One domain, one trainer, three seats; seconds per phase."""
    return TaskSpec(
        name="story",
        model=ModelSpec(
            name="tiny",
            base_hash=bytes(32),
            tokenizer_hash=bytes(32),
            rank=2,
            alpha=4,
            target_modules=("q_proj",),
            local_steps=1,
            batch_size=1,
            sequence_length=64,
            learning_rate_ppm=3_000,
            update_step_log2=-14,
            norm_cap=0,
        ),
        domains=("code",),
        rounds=2,
        phases=PhaseSpec(
            enroll_ms=10_000,
            train_ms=10_000,
            publish_ms=10_000,
            commit_ms=10_000,
            reveal_ms=10_000,
            aggregate_ms=10_000,
            enroll_limit_ms=60_000,
        ),
        trainers_min=1,
        trainers_max=1,
        judge=JudgeSpec(seats=3, judge_tokens=100, slowest_tokens_per_s=1_000),
        penalties=PenaltySpec(),
        rewards=RewardSpec(),
        min_bond_uflk=1_000_000,
        max_adapter_bytes=1_000_000,
    )


def enroll(ledger: Ledger) -> None:
    """Task 1 of alice; bob trains, carol, dave and erin judge."""
    ledger.must("alice", create_task.Body(make_spec(), 5_000_000))
    ledger.must("bob", stake.Body("task:1", 2_000_000, role="trainer"))
    holdouts = (Holdout("code", bytes(32), 100),)
    for judge in ("carol", "dave", "erin"):
        ledger.must(judge, stake.Body("task:1", 2_000_000, role="voter", holdouts=holdouts))


def wait_for_phase(ledger: Ledger, phase: str) -> TrainingRound:
    """Empty blocks until round 1 of task 1 is in `phase`, drawn."""
    for _ in range(60):
        training = ledger.state.get(TrainingRound, 1, 1)
        if training.phase == phase and not training.draw_height:
            return training
        ledger.produce()
    raise AssertionError(f"round 1 did not reach {phase}, it is {training.phase}: {training.outcome}")
