"""What must never happen, checked while it would happen. Arithmetic of its own: a broken core must not judge itself."""

from collections.abc import Callable

from flockchain.consensus.core import Core
from flockchain.consensus.effects import ReportEquivocation
from flockchain.consensus.messages import CommitCertificate, Proposal, Vote


class Violation(Exception):
    """An invariant broke; `invariant` is its short name."""

    def __init__(self, invariant: str, sentence: str) -> None:
        super().__init__(f"{invariant}: {sentence}")
        self.invariant = invariant
        self.sentence = sentence

    def __reduce__(self) -> tuple[type["Violation"], tuple[str, str]]:
        return Violation, (self.invariant, self.sentence)


class Invariants:
    """Watches all honest nodes of one network."""

    def __init__(self, powers_at: Callable[[int], dict[bytes, int]], equivocator: bytes) -> None:
        self._powers_at = powers_at
        self._equivocator = equivocator
        self._decisions: dict[int, bytes] = {}
        self._roots: dict[int, bytes] = {}
        self._signed: dict[tuple[bytes, int, int, object], Vote | Proposal] = {}
        self._locks: dict[bytes, tuple[int, int]] = {}

    def check_signature(self, message: Vote | Proposal) -> None:
        """A signature of an honest node is about to leave."""
        key: tuple[bytes, int, int, object]
        if isinstance(message, Vote):
            key = (message.validator, message.height, message.round, message.kind)
        else:
            key = (message.proposer, message.height, message.round, Proposal)
        earlier = self._signed.setdefault(key, message)
        if earlier != message:
            raise Violation("one signature", f"an honest node signed {earlier} and then {message}")

    def check_lock(self, address: bytes, core: Core) -> None:
        """A lock never goes back within a height."""
        height, locked_round = self._locks.get(address, (0, -1))
        if height == core.height and core.locked_round < locked_round:
            raise Violation("locks grow", f"lock at height {height} fell from {locked_round} to {core.locked_round}")
        self._locks[address] = (core.height, core.locked_round)

    def check_evidence(self, report: ReportEquivocation) -> None:
        """Evidence convicts the equivocator alone."""
        first, second = report.first, report.second
        offenders = {
            message.validator if isinstance(message, Vote) else message.proposer for message in (first, second)
        }
        if offenders != {self._equivocator} or first.value_id == second.value_id:
            raise Violation("evidence", f"{first} and {second} convict an honest node or nobody")

    def check_decision(self, height: int, value_id: bytes, is_valid: bool, commit: CommitCertificate) -> None:
        """An honest node decides."""
        other = self._decisions.setdefault(height, value_id)
        if other != value_id:
            raise Violation("agreement", f"height {height} decided {other.hex()[:8]} and {value_id.hex()[:8]}")
        if not is_valid:
            raise Violation("validity", f"height {height} decided an invalid value")
        self.check_commit(height, value_id, commit)

    def check_commit(self, height: int, value_id: bytes, commit: CommitCertificate) -> None:
        """The proof of a decision would convince a stranger."""
        powers = self._powers_at(height)
        voters = {vote.validator for vote in commit.votes if vote.value_id == value_id}
        if 3 * sum(powers.get(voter, 0) for voter in voters) <= 2 * sum(powers.values()):
            raise Violation("commit", f"height {height} decided by {len(voters)} validators, not by more than 2/3")

    def check_state(self, height: int, root: bytes) -> None:
        """An honest node applied a block."""
        if self._roots.setdefault(height, root) != root:
            raise Violation("state", f"two state roots after height {height}")
