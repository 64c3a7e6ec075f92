"""The vote keeper: who voted for what in each round of one height, and which thresholds that reaches.

Votes are counted per (validator, value id), never "first vote only": an equivocator's first vote must not hide the
one that the others counted. In sums over any value a validator counts once.
Memory is bounded: see `IDS_PER_VALIDATOR`, `FUTURE_ROUNDS_PER_VALIDATOR`, `PAST_ROUNDS`; only a shown certificate
(more than 2/3 of the power for one id, so at most a handful exist) goes beyond.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from flockchain.consensus.messages import Certificate, Vote, VoteKind
from flockchain.consensus.powers import ValidatorPowers

IDS_PER_VALIDATOR = 2
"""Different ids kept of one validator per round and kind: enough to prove equivocation."""
FUTURE_ROUNDS_PER_VALIDATOR = 2
"""Rounds above ours in which one validator's votes are kept: its two highest."""
PAST_ROUNDS = 64
"""Rounds below ours that are kept; an older polka comes back as a certificate when it is needed."""


class Counted(Enum):
    """What became of a vote that proves nothing against its sender."""

    NEW = "new"
    DUPLICATE = "duplicate"
    SURPLUS = "surplus"  # a third id, or a round outside the limits


@dataclass(frozen=True, slots=True)
class Conflicting:
    """A second id of one validator for one round and kind; both count, and together they are evidence."""

    first: Vote
    second: Vote


VoteResult: TypeAlias = Counted | Conflicting


class Tally:
    """Votes of one round and kind. `quorum_id` is meaningful once `has_quorum` (None: nil has it)."""

    __slots__ = ("_validators", "any_power", "has_any_quorum", "has_quorum", "power_for", "quorum_id", "votes")

    def __init__(self, validators: ValidatorPowers) -> None:
        self._validators = validators
        self.votes: dict[bytes, tuple[Vote, ...]] = {}
        self.power_for: dict[bytes | None, int] = {}
        self.any_power = 0
        self.has_any_quorum = False
        self.has_quorum = False
        self.quorum_id: bytes | None = None

    def add(self, vote: Vote, is_certified: bool = False) -> VoteResult:
        """Count a vote of a validator of this height. A certified one counts as a third id too."""
        kept = self.votes.get(vote.validator, ())
        for earlier in kept:
            if earlier.value_id == vote.value_id:
                return Counted.DUPLICATE
        if len(kept) >= IDS_PER_VALIDATOR and not is_certified:
            return Counted.SURPLUS
        self.votes[vote.validator] = (*kept, vote)
        self._count(vote, is_first=not kept)
        return Conflicting(kept[0], vote) if len(kept) == 1 else Counted.NEW

    def remove(self, validator: bytes) -> None:
        """Forget a validator's votes and every sum they were part of."""
        votes = [vote for kept in self.votes.values() for vote in kept if vote.validator != validator]
        self.votes, self.power_for, self.any_power = {}, {}, 0
        self.has_any_quorum, self.has_quorum, self.quorum_id = False, False, None
        for vote in votes:
            self.add(vote, is_certified=True)

    def votes_for(self, value_id: bytes | None) -> tuple[Vote, ...]:
        """One vote per validator that voted for this id, in the order of the validator set."""
        return tuple(vote for vote in self.all_votes() if vote.value_id == value_id)

    def all_votes(self) -> tuple[Vote, ...]:
        """Every kept vote, in the order of the validator set."""
        return tuple(vote for address in self._validators.addresses for vote in self.votes.get(address, ()))

    def _count(self, vote: Vote, is_first: bool) -> None:
        power = self._validators.power_of(vote.validator)
        if is_first:
            self.any_power += power
            self.has_any_quorum = self._validators.is_quorum(self.any_power)
        for_value = self.power_for.get(vote.value_id, 0) + power
        self.power_for[vote.value_id] = for_value
        if not self.has_quorum and self._validators.is_quorum(for_value):
            self.has_quorum, self.quorum_id = True, vote.value_id


class VoteKeeper:
    """All tallies of one height."""

    def __init__(self, validators: ValidatorPowers) -> None:
        self.validators = validators
        self.round = 0
        self.commit: tuple[int, bytes] | None = None
        """Round and value of the first quorum of precommits for a value."""
        self._tallies: dict[tuple[int, VoteKind], Tally] = {}
        self._future_rounds: dict[bytes, list[int]] = {}
        self._certified_rounds: set[int] = set()
        self._no_votes = Tally(validators)

    def tally(self, round: int, kind: VoteKind) -> Tally:
        """The tally of a round and kind, to be read only."""
        return self._tallies.get((round, kind), self._no_votes)

    def add(self, vote: Vote) -> VoteResult:
        """Count a vote of this height; one from outside the validator set is surplus."""
        if not self.validators.power_of(vote.validator) or not self._admits(vote):
            return Counted.SURPLUS
        return self._add(vote, is_certified=False)

    def add_certificate(self, certificate: Certificate) -> tuple[VoteResult, ...]:
        """Count the votes of a certificate beyond the limits; nothing at all if it falls short of 2/3."""
        if not self._is_proof(certificate):
            return ()
        self._certified_rounds.add(certificate.round)
        if certificate.round > self.round:
            for vote in certificate.votes:
                self._admits(vote)
        return tuple(self._add(vote, is_certified=True) for vote in certificate.votes)

    def skip_round(self) -> int | None:
        """The highest round that validators with more than 1/3 of the power have reached, if above ours.

        L55 asks for f+1 messages of one round. A validator that votes in a later round has been through that one, so
        rounds at or above it count: with bounded memory its older votes may be gone.
        """
        power = 0
        highest = sorted(((rounds[-1], address) for address, rounds in self._future_rounds.items()), reverse=True)
        for round, address in highest:
            power += self.validators.power_of(address)
            if self.validators.is_one_third(power):
                return round
        return None

    def advance(self, round: int, kept_round: int) -> None:
        """Enter a round: forget rounds that fell out of the window, except `kept_round` and a commit's."""
        assert round >= self.round
        self.round = round
        for address in list(self._future_rounds):
            self._future_rounds[address] = [future for future in self._future_rounds[address] if future > round]
            if not self._future_rounds[address]:
                del self._future_rounds[address]
        kept = {kept_round} if self.commit is None else {kept_round, self.commit[0]}
        for key in [key for key in self._tallies if key[0] < round - PAST_ROUNDS and key[0] not in kept]:
            del self._tallies[key]
        self._certified_rounds = {
            certified for certified in self._certified_rounds if certified >= round - PAST_ROUNDS or certified in kept
        }

    def _add(self, vote: Vote, is_certified: bool) -> VoteResult:
        key = (vote.round, vote.kind)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally(self.validators)
        result = tally.add(vote, is_certified)
        if tally.has_quorum and tally.quorum_id is not None and vote.kind is VoteKind.PRECOMMIT and not self.commit:
            self.commit = (vote.round, tally.quorum_id)
        return result

    def _admits(self, vote: Vote) -> bool:
        """Whether the round is within the limits; a validator's third future round displaces its lowest."""
        if vote.round <= self.round:
            return vote.round >= max(0, self.round - PAST_ROUNDS)
        rounds = self._future_rounds.get(vote.validator, [])
        if vote.round in rounds:
            return True
        rounds = sorted([*rounds, vote.round])
        if len(rounds) > FUTURE_ROUNDS_PER_VALIDATOR:
            dropped = rounds.pop(0)
            if dropped == vote.round:
                return False
            self._forget(vote.validator, dropped)
        self._future_rounds[vote.validator] = rounds
        return True

    def _forget(self, validator: bytes, round: int) -> None:
        if round in self._certified_rounds:
            return
        for kind in VoteKind:
            tally = self._tallies.get((round, kind))
            if tally is not None and validator in tally.votes:
                tally.remove(validator)
                if not tally.votes:
                    del self._tallies[round, kind]

    def _is_proof(self, certificate: Certificate) -> bool:
        voters = {vote.validator for vote in certificate.votes}
        return (
            len(voters) == len(certificate.votes)
            and all(
                (vote.kind, vote.height, vote.round, vote.value_id)
                == (certificate.kind, certificate.height, certificate.round, certificate.value_id)
                for vote in certificate.votes
            )
            and self.validators.is_quorum(sum(self.validators.power_of(voter) for voter in voters))
        )
