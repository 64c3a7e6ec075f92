"""The proposal keeper: what was proposed in each round of one height, and how the node judged it.

Bounded: two different proposals a round (enough to prove equivocation), plus one whose value already has a quorum
there; rounds from `PAST_ROUNDS` below ours to `FUTURE_ROUNDS` above.
"""

from dataclasses import dataclass

from flockchain.consensus.messages import Proposal
from flockchain.consensus.votes import PAST_ROUNDS

PROPOSALS_PER_ROUND = 2
FUTURE_ROUNDS = 10
"""A proposal further ahead is dropped: finding its proposer costs time, and peers send it again when we get there."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A proposal with the node's verdict on its value and on its time."""

    proposal: Proposal
    is_valid: bool
    is_timely: bool


class ProposalKeeper:
    """All proposals of one height."""

    def __init__(self) -> None:
        self.round = 0
        self.helped_value: bytes | None = None
        """A valid value that came with a commit certificate instead of a proposal."""
        self._rounds: dict[int, tuple[Judgement, ...]] = {}

    def admits(self, round: int) -> bool:
        """Whether the round is within the limits."""
        return max(0, self.round - PAST_ROUNDS) <= round <= self.round + FUTURE_ROUNDS

    def add(self, proposal: Proposal, is_valid: bool, is_timely: bool, is_wanted: bool) -> Proposal | None:
        """Keep a proposal of the round's proposer; returns the earlier one that convicts it, once per round.

        `is_wanted`: its value has a quorum in that round, so it is kept whatever came before.
        """
        assert self.admits(proposal.round)
        kept = self._rounds.get(proposal.round, ())
        if any(judgement.proposal == proposal for judgement in kept):
            return None
        others = {judgement.proposal.value_id for judgement in kept}
        if len(kept) >= PROPOSALS_PER_ROUND and not (is_wanted and proposal.value_id not in others):
            return None
        self._rounds[proposal.round] = (*kept, Judgement(proposal, is_valid, is_timely))
        is_first_conflict = len(others) == 1 and proposal.value_id not in others
        return kept[0].proposal if is_first_conflict else None

    def advance(self, round: int) -> None:
        """Enter a round: forget rounds that fell out of the window."""
        self.round = round
        for old in [old for old in self._rounds if not self.admits(old)]:
            del self._rounds[old]

    def judgements(self, round: int) -> tuple[Judgement, ...]:
        """What the round's proposer proposed, in the order of arrival."""
        return self._rounds.get(round, ())

    def of_round(self, round: int) -> tuple[Proposal, ...]:
        """The round's proposals without the verdicts."""
        return tuple(judgement.proposal for judgement in self.judgements(round))

    def is_valid_in(self, round: int, value_id: bytes) -> bool:
        """Whether the value was proposed in this round and is valid."""
        return any(j.proposal.value_id == value_id and j.is_valid for j in self.judgements(round))

    def is_valid_value(self, value_id: bytes) -> bool:
        """Whether the value is valid and known from any round, or came with a commit certificate."""
        return value_id == self.helped_value or any(self.is_valid_in(round, value_id) for round in self._rounds)
