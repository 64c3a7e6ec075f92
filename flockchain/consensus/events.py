"""Everything that can happen to a core. The node appends each to its write-ahead log before the core sees it.

Events of another height than the core's have no effect: the node keeps those of the next height until `StartHeight`.
"""

from dataclasses import dataclass
from typing import TypeAlias

from flockchain.consensus.messages import Certificate, Proposal, Step, Vote
from flockchain.consensus.powers import ValidatorPowers


@dataclass(frozen=True, slots=True)
class StartHeight:
    """The height before is decided and applied; begin this one at round 0."""

    height: int
    validators: ValidatorPowers


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A signed proposal whose value the node holds and has checked.

    `is_valid` judges the value alone and must not depend on the clock; `is_timely` judges its time and counts for a
    fresh proposal's prevote only. An untimely value that 2/3 of the others accepted must still be locked and decided.
    """

    proposal: Proposal
    is_valid: bool
    is_timely: bool = True


@dataclass(frozen=True, slots=True)
class VoteReceived:
    """A vote whose signature the node has verified."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class CertificateReceived:
    """Votes (all verified by the node) that are said to be more than 2/3 for one value in one round.

    Once they are, they count even where a validator's votes were already at their limit, so an equivocator cannot
    crowd out the proof. Feed a re-proposal's polka before the proposal.
    """

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class ValueReceived:
    """A value came without its proposal, from a decided peer that helps; feed its commit certificate first."""

    height: int
    value_id: bytes
    is_valid: bool


@dataclass(frozen=True, slots=True)
class Timeout:
    """A timeout asked for by `ScheduleTimeout` has passed."""

    step: Step
    height: int
    round: int


@dataclass(frozen=True, slots=True)
class ValueReady:
    """The node built the value asked for by `RequestValue`."""

    height: int
    round: int
    value_id: bytes


Event: TypeAlias = (
    StartHeight | ProposalReceived | VoteReceived | CertificateReceived | ValueReceived | Timeout | ValueReady
)
