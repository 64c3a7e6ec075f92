"""What validators say to each other: proposals, votes, and votes bundled as proof.

Signatures stay outside: the node signs what the core asks to send and verifies before it feeds an event.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import ClassVar, TypeAlias

NO_ROUND = -1
"""The round of a lock or valid value that does not exist (arXiv:1807.04938, L6-L9)."""


class Step(Enum):
    """Where a validator stands within a round."""

    PROPOSE = "propose"
    PREVOTE = "prevote"
    PRECOMMIT = "precommit"


class VoteKind(IntEnum):
    """The two votes of a round; the number is what gets signed."""

    PREVOTE = 1
    PRECOMMIT = 2


@dataclass(frozen=True, slots=True)
class Vote:
    """A prevote or precommit for a value, or for nil (`value_id` None)."""

    kind: VoteKind
    height: int
    round: int
    value_id: bytes | None
    validator: bytes


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposer's value for one round; `valid_round` names the polka behind a re-proposal, -1 for a fresh value."""

    height: int
    round: int
    value_id: bytes
    valid_round: int
    proposer: bytes


@dataclass(frozen=True, slots=True)
class PolkaCertificate:
    """More than 2/3 prevotes for one value in one round: the proof of lock that travels with a re-proposal."""

    kind: ClassVar[VoteKind] = VoteKind.PREVOTE
    height: int
    round: int
    value_id: bytes
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class CommitCertificate:
    """More than 2/3 precommits for one value in one round: the proof that a height is decided."""

    kind: ClassVar[VoteKind] = VoteKind.PRECOMMIT
    height: int
    round: int
    value_id: bytes
    votes: tuple[Vote, ...]


ProofOfLock: TypeAlias = PolkaCertificate
Certificate: TypeAlias = PolkaCertificate | CommitCertificate
Message: TypeAlias = Proposal | Vote | PolkaCertificate | CommitCertificate
