"""Everything a core can ask its node to do, to be performed in the order given."""

from dataclasses import dataclass
from typing import TypeAlias

from flockchain.consensus.messages import Proposal, Step, Vote


@dataclass(frozen=True, slots=True)
class RequestValue:
    """Build a value for this round and answer with `ValueReady`."""

    height: int
    round: int


@dataclass(frozen=True, slots=True)
class SendProposal:
    """Sign and send; a re-proposal (`valid_round` >= 0) goes out with `Core.polka(height, valid_round)`."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class SendVote:
    """Sign and send; both the event log and the signer's state are on disk before the signature leaves."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class ScheduleTimeout:
    """Feed `Timeout` with the same fields after the duration of this step, which grows with the round."""

    step: Step
    height: int
    round: int


@dataclass(frozen=True, slots=True)
class Decide:
    """This height is final; `Core.commit_certificate()` holds the proof."""

    height: int
    round: int
    value_id: bytes


@dataclass(frozen=True, slots=True)
class ReportEquivocation:
    """One validator signed two different ids (nil included) for one height, round and step."""

    first: Vote | Proposal
    second: Vote | Proposal


Effect: TypeAlias = RequestValue | SendProposal | SendVote | ScheduleTimeout | Decide | ReportEquivocation
