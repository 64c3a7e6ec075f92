"""Rows of one task in its first round, as execution would leave them."""

from flockchain.chunks import CHUNK_BYTES, compute_bytes_root
from flockchain.types.rows import (
    Adapter,
    Delegation,
    DelegationPool,
    Phase,
    Seats,
    Stake,
    Submission,
    Task,
    TrainingRound,
    Unbonding,
    UnbondingRef,
    Verdict,
)
from flockchain.types.task import JudgeSpec, ModelSpec, PenaltySpec, PhaseSpec, RewardSpec, TaskSpec
from tests.store.history import ALICE, BOB, START_MS

UPDATE = b"adapter " * (CHUNK_BYTES // 5)
ROOT = compute_bytes_root(UPDATE)

SPEC = TaskSpec(
    name="demo",
    model=ModelSpec(
        name="tiny",
        base_hash=bytes(32),
        tokenizer_hash=bytes(32),
        rank=8,
        alpha=16,
        target_modules=("q_proj",),
        local_steps=12,
        batch_size=1,
        sequence_length=128,
        learning_rate_ppm=3_000,
        update_step_log2=-12,
        norm_cap=0,
    ),
    domains=("code", "law"),
    rounds=3,
    phases=PhaseSpec(
        **dict.fromkeys(
            ("enroll_ms", "train_ms", "publish_ms", "commit_ms", "reveal_ms", "aggregate_ms", "enroll_limit_ms"), 1000
        )
    ),
    trainers_min=1,
    trainers_max=4,
    judge=JudgeSpec(seats=3),
    penalties=PenaltySpec(),
    rewards=RewardSpec(),
    min_bond_uflk=5,
    max_adapter_bytes=10_000_000,
)
TASK = Task(
    id=1,
    creator=ALICE,
    seed=bytes(32),
    spec=SPEC,
    status="open",
    reason="",
    pool_uflk=900,
    deposit_uflk=10,
    round=1,
    settled_rounds=0,
    global_root=b"",
    best_root=b"",
    best_loss_ubpb=(),
    created_ms=START_MS,
)
STAKE = Stake(BOB, "task:1", 50, "trainer", (), False, 0, START_MS)
POOL = DelegationPool(ALICE, "task:1", 500_000, 0, 0, 90, 100, 1, 7, 0, 70_000_000)
"""100 shares of 0.9 uflk, which have earned 0.07 uflk each."""
DELEGATION = Delegation(ALICE, "task:1", BOB, 100, 0, (), (UnbondingRef(START_MS + 9, 3),))
LEAVING = Unbonding(START_MS + 9, BOB, "task:1", 3, 25, START_MS, 1, ALICE)
SUBMISSION = Submission(1, 1, BOB, ROOT, len(UPDATE), b"", 100, "torch 2.13", 2, bytes(32))
ADAPTER = Adapter(ROOT, "update", 1, 1, BOB, len(UPDATE))


def make_round(phase: Phase) -> TrainingRound:
    """The first round, with one trainer that has submitted; settled with a verdict."""
    is_settled = phase == "settled"
    verdict = Verdict(ROOT, BOB, "reject", "harms law", (), ("law",), 5, 0, 0)
    values = {
        "task": 1,
        "number": 1,
        "phase": phase,
        "deadline_ms": START_MS + 9_000,
        "started_ms": START_MS,
        "trainers": (BOB,),
        "committee": (Seats(ALICE, 3),),
        "second_deadline": False,
        "verdicts": (verdict,) if is_settled else (),
        "outcome": "nothing accepted" if is_settled else "",
    }
    empty = {"roots": b"", "numbers": 0, "lists": ()}
    for name in TrainingRound.__struct_fields__:
        if name not in values:
            kind = "roots" if name.endswith("_root") else "numbers"
            kind = "lists" if name in ("candidates", "published", "assignments", "coefficients") else kind
            values[name] = empty[kind]
    return TrainingRound(**values)  # type: ignore[arg-type]
