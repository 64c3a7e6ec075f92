"""Rows of the ledger's state. Each kind of row is one table; its key fields come first.

Execution changes rows, the store persists them, readers show them: what they agree on is imported from here. The rows
themselves stand in `stake_rows`, `task_rows` and `chain_rows`.
"""

from flockchain.codec import Canonical
from flockchain.types.chain_rows import (
    AbsentSigner,
    Approval,
    Chain,
    Change,
    ChangeStatus,
    Epoch,
    OpenChange,
    RecentBlock,
    ScheduledChange,
    SetMember,
    TimeMark,
    ValidatorSet,
)
from flockchain.types.stake_rows import (
    Account,
    Delegation,
    DelegationMove,
    DelegationPool,
    Infraction,
    Liveness,
    Lot,
    Stake,
    Unbonding,
    UnbondingRef,
    ValidatorRow,
)
from flockchain.types.task_rows import (
    Adapter,
    Assignment,
    Attestation,
    Candidate,
    DomainTally,
    Draw,
    FetchedRow,
    FinalPledge,
    FinalSet,
    FinalVote,
    OpenTask,
    OpenVote,
    Outcome,
    Phase,
    SealedVote,
    Seats,
    Submission,
    Task,
    TaskParticipant,
    TaskStatus,
    TrainingRound,
    Verdict,
    Vesting,
)

__all__ = [
    "TABLES",
    "AbsentSigner",
    "Account",
    "Adapter",
    "Approval",
    "Assignment",
    "Attestation",
    "Candidate",
    "Chain",
    "Change",
    "ChangeStatus",
    "Delegation",
    "DelegationMove",
    "DelegationPool",
    "DomainTally",
    "Draw",
    "Epoch",
    "FetchedRow",
    "FinalPledge",
    "FinalSet",
    "FinalVote",
    "Infraction",
    "Liveness",
    "Lot",
    "OpenChange",
    "OpenTask",
    "OpenVote",
    "Outcome",
    "Phase",
    "RecentBlock",
    "Row",
    "ScheduledChange",
    "SealedVote",
    "Seats",
    "SetMember",
    "Stake",
    "Submission",
    "Table",
    "Task",
    "TaskParticipant",
    "TaskStatus",
    "TimeMark",
    "TrainingRound",
    "Unbonding",
    "UnbondingRef",
    "ValidatorRow",
    "ValidatorSet",
    "Verdict",
    "Vesting",
    "compute_key",
    "row_key",
]


Row = (
    Account
    | ValidatorRow
    | Stake
    | DelegationPool
    | Delegation
    | DelegationMove
    | Unbonding
    | Infraction
    | Liveness
    | RecentBlock
    | TimeMark
    | Task
    | TrainingRound
    | Submission
    | Adapter
    | FetchedRow
    | SealedVote
    | OpenVote
    | Attestation
    | Draw
    | OpenTask
    | TaskParticipant
    | Change
    | OpenChange
    | Approval
    | ScheduledChange
    | Epoch
    | FinalPledge
    | FinalSet
    | Vesting
    | FinalVote
    | Chain
    | ValidatorSet
)


class Table(Canonical, frozen=True):
    """How rows of one kind are keyed: by the first `key_fields` fields, so that keys sort as they read."""

    name: str
    tag: int
    key_fields: int


TABLES: dict[type, Table] = {
    Chain: Table("chain", 0, 0),
    Account: Table("account", 1, 1),
    ValidatorRow: Table("validator", 2, 1),
    ValidatorSet: Table("validator_set", 3, 1),
    Liveness: Table("liveness", 4, 1),
    Infraction: Table("infraction", 5, 1),
    Stake: Table("stake", 6, 2),
    Unbonding: Table("unbonding", 7, 4),
    RecentBlock: Table("recent_block", 8, 1),
    TimeMark: Table("time_mark", 9, 1),
    DelegationPool: Table("delegation_pool", 10, 2),
    Delegation: Table("delegation", 11, 3),
    DelegationMove: Table("delegation_move", 12, 4),
    Task: Table("task", 16, 1),
    TrainingRound: Table("training_round", 17, 2),
    Submission: Table("submission", 18, 3),
    Adapter: Table("adapter", 19, 1),
    FetchedRow: Table("fetched", 20, 3),
    SealedVote: Table("sealed_vote", 21, 3),
    OpenVote: Table("open_vote", 22, 3),
    Attestation: Table("attestation", 23, 3),
    Draw: Table("draw", 24, 3),
    OpenTask: Table("open_task", 25, 1),
    TaskParticipant: Table("task_participant", 26, 2),
    FinalPledge: Table("final_pledge", 27, 1),
    FinalSet: Table("final_set", 28, 1),
    Vesting: Table("vesting", 29, 3),
    FinalVote: Table("final_vote", 30, 2),
    Change: Table("change", 32, 1),
    OpenChange: Table("open_change", 33, 2),
    Approval: Table("approval", 34, 2),
    ScheduledChange: Table("scheduled_change", 35, 1),
    Epoch: Table("epoch", 36, 1),
}
"""Every kind of row with its table. Tags and names are part of the protocol: never reuse one."""


def row_key(row: Row) -> bytes:
    """State key of a row: table tag, then its key fields in an encoding whose byte order is their natural order."""
    table = TABLES[type(row)]
    fields = row.__struct_fields__[: table.key_fields]
    return compute_key(type(row), *(getattr(row, field) for field in fields))


def compute_key(kind: type, *parts: bytes | int | str) -> bytes:
    """Key, or key prefix when fewer parts than key fields are given.

    Integers: 8 bytes big endian. Byte strings: as they are, they have fixed length. Text: its bytes and a zero byte.
    """
    table = TABLES[kind]
    assert len(parts) <= table.key_fields
    key = bytes([table.tag])
    for part in parts:
        if isinstance(part, int):
            key += part.to_bytes(8, "big")
        elif isinstance(part, str):
            key += part.encode() + b"\x00"
        else:
            key += part
    return key
