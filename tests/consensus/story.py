"""Shorthand for stories about one core among four equal validators A, B, C, D; the story is A's.

Rounds are proposed by B, C, D, A in turn, so A begins as a listener.
"""

from flockchain.consensus.core import Core
from flockchain.consensus.effects import Effect, SendVote
from flockchain.consensus.events import Event, ProposalReceived, StartHeight, Timeout, VoteReceived
from flockchain.consensus.messages import PolkaCertificate, Proposal, Step, Vote, VoteKind
from flockchain.consensus.powers import ValidatorPowers

A, B, C, D = (bytes([letter]) * 20 for letter in b"abcd")
FOUR = ValidatorPowers((A, B, C, D), (1, 1, 1, 1))
X, Y, Z = (bytes([letter]) * 32 for letter in b"xyz")
HEIGHT = 1


def proposer_of(height: int, round: int) -> bytes:
    return (B, C, D, A)[round % 4]


def started(address: bytes | None = A, validators: ValidatorPowers = FOUR) -> Core:
    """A core that has just entered round 0 of height 1."""
    core = Core(address, proposer_of)
    core.step(StartHeight(HEIGHT, validators))
    return core


def tell(core: Core, *events: Event) -> tuple[Effect, ...]:
    """Feed events; all their effects in order."""
    return tuple(effect for event in events for effect in core.step(event))


def proposal(
    round: int, value_id: bytes, valid_round: int = -1, is_valid: bool = True, is_timely: bool = True
) -> Event:
    proposed = Proposal(HEIGHT, round, value_id, valid_round, proposer_of(HEIGHT, round))
    return ProposalReceived(proposed, is_valid, is_timely)


def prevotes(round: int, value_id: bytes | None, *voters: bytes) -> list[Event]:
    return [VoteReceived(Vote(VoteKind.PREVOTE, HEIGHT, round, value_id, voter)) for voter in voters]


def precommits(round: int, value_id: bytes | None, *voters: bytes) -> list[Event]:
    return [VoteReceived(Vote(VoteKind.PRECOMMIT, HEIGHT, round, value_id, voter)) for voter in voters]


def my_prevote(round: int, value_id: bytes | None) -> SendVote:
    return SendVote(Vote(VoteKind.PREVOTE, HEIGHT, round, value_id, A))


def my_precommit(round: int, value_id: bytes | None) -> SendVote:
    return SendVote(Vote(VoteKind.PRECOMMIT, HEIGHT, round, value_id, A))


def timeout(step: Step, round: int) -> Timeout:
    return Timeout(step, HEIGHT, round)


def polka(round: int, value_id: bytes, *voters: bytes) -> PolkaCertificate:
    votes = tuple(Vote(VoteKind.PREVOTE, HEIGHT, round, value_id, voter) for voter in voters)
    return PolkaCertificate(HEIGHT, round, value_id, votes)


def locked_on_x(core: Core) -> Core:
    """Round 0 ends undecided with A locked on X; A stands at the start of round 1."""
    tell(core, proposal(0, X), *prevotes(0, X, B, C), *precommits(0, None, B, C), timeout(Step.PRECOMMIT, 0))
    assert (core.round, core.locked_round, core.locked_value) == (1, 0, X)
    return core
