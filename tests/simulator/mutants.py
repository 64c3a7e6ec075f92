"""Broken consensus rules, each as a patch that lives for one `with` block. The simulator must notice every one.

They replace functions of the core from outside, so production code carries no switch for them.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from flockchain.consensus import machine
from flockchain.consensus.core import Core
from flockchain.consensus.messages import CommitCertificate, Message, Proposal, Vote
from flockchain.consensus.powers import ValidatorPowers
from flockchain.consensus.votes import Counted, Tally, VoteResult

from .replica import Log, Replica, Signer


@contextmanager
def replaced(owner: object, name: str, substitute: object) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, substitute)
    try:
        yield
    finally:
        setattr(owner, name, original)


def no_lock_rule() -> AbstractContextManager[None]:
    """A locked validator prevotes anything valid (L23, L29)."""

    def is_free_to_prevote(state: machine.RoundState, value_id: bytes, valid_round: int) -> bool:
        return True

    return replaced(machine, "is_free_to_prevote", is_free_to_prevote)


def quorum_of_half() -> AbstractContextManager[None]:
    """More than a half is taken for a quorum."""

    def is_quorum(self: ValidatorPowers, power: int) -> bool:
        return 2 * power > self.total

    return replaced(ValidatorPowers, "is_quorum", is_quorum)


def first_vote_only() -> AbstractContextManager[None]:
    """Only a validator's first vote of a round and kind counts, so an equivocator hides what others counted."""
    original = Tally.add

    def add(self: Tally, vote: Vote, is_certified: bool = False) -> VoteResult:
        return Counted.SURPLUS if vote.validator in self.votes else original(self, vote, is_certified)

    return replaced(Tally, "add", add)


def no_proof_of_lock() -> AbstractContextManager[None]:
    """A re-proposal's valid_round is believed without its polka (L28)."""

    def has_proof_of_lock(self: Core, proposal: Proposal) -> bool:
        return True

    return replaced(Core, "_has_proof_of_lock", has_proof_of_lock)


@contextmanager
def nothing_persisted() -> Iterator[None]:
    """Signatures leave before log and signer are on disk."""

    def persist(self: Signer | Log) -> None:
        pass

    with replaced(Signer, "persist", persist), replaced(Log, "persist", persist):
        yield


def duplicates_counted() -> AbstractContextManager[None]:
    """A vote counts as often as it arrives."""
    original = Tally.add

    def add(self: Tally, vote: Vote, is_certified: bool = False) -> VoteResult:
        result = original(self, vote, is_certified)
        if result is Counted.DUPLICATE:
            self.any_power += self._validators.power_of(vote.validator)
            self.has_any_quorum = self._validators.is_quorum(self.any_power)
            self._count(vote, is_first=False)
        return result

    return replaced(Tally, "add", add)


def silent_after_decision() -> AbstractContextManager[None]:
    """Decided nodes do not help those behind."""

    def help_nobody(self: Replica, sender: bytes, height: int) -> None:
        pass

    return replaced(Replica, "_help", help_nobody)


def only_this_round_sent_again() -> AbstractContextManager[None]:
    """The precommits that ended the round before are not sent again, so peers may stay there."""
    original = Core.current_messages

    def current_messages(self: Core) -> tuple[Message, ...]:
        return tuple(m for m in original(self) if isinstance(m, CommitCertificate) or m.round == self.round)

    return replaced(Core, "current_messages", current_messages)


@dataclass(frozen=True)
class Mutant:
    """A patch and the invariant that must break under it (others may break too)."""

    patch: Callable[[], AbstractContextManager[None]]
    invariant: str
    sizes: tuple[int, ...] | None = None


MUTANTS = {
    "no lock rule": Mutant(no_lock_rule, "agreement"),
    "quorum of half": Mutant(quorum_of_half, "commit", sizes=(5,)),
    "first vote only": Mutant(first_vote_only, "liveness"),
    "no proof of lock": Mutant(no_proof_of_lock, "agreement"),
    "nothing persisted": Mutant(nothing_persisted, "one signature"),
    "duplicates counted": Mutant(duplicates_counted, "commit"),
    "silent after decision": Mutant(silent_after_decision, "liveness"),
    "only this round sent again": Mutant(only_this_round_sent_again, "liveness"),
}
