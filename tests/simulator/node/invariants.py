"""What must never happen, checked while it would, with arithmetic of its own: a broken node does not judge itself.

Signatures are verified by libsodium directly; validator sets and state roots are those of the first node that persisted
a height, and every later one must match.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from flockchain.codec import encode
from flockchain.crypto import is_signature_valid, signing_context
from flockchain.execution.genesis import build_state
from flockchain.genesis import Genesis
from flockchain.node.node import Node
from flockchain.node.ports import Decided
from flockchain.types.chain import PRECOMMIT, VOTE_PURPOSE, Block, Commit, SignedProposal, SignedVote, VoteBody
from flockchain.types.rows import SetMember, ValidatorRow, ValidatorSet

from ..invariants import Violation


@dataclass(frozen=True)
class Fork:
    """Two decided blocks of one height, each with its commit."""

    height: int
    commits: tuple[Commit, Commit]


class Forked(Violation):
    """Agreement broke; `fork` holds the proof."""

    def __init__(self, sentence: str, fork: Fork) -> None:
        super().__init__("agreement", sentence)
        self.fork = fork


class Invariants:
    """Watches all honest nodes of one network."""

    def __init__(self, genesis: Genesis, honest: Collection[bytes], tolerated_lead_ms: int) -> None:
        """`tolerated_lead_ms`: how far a decided block's time may be ahead of the true time."""
        state = build_state(genesis)
        self.sets: dict[int, tuple[SetMember, ...]] = {row.height: row.members for row in state.iterate(ValidatorSet)}
        self.tombstoned: set[bytes] = set()
        self.commits: dict[int, Commit] = {}
        self.times_ms: dict[int, int] = {}
        self._honest = honest
        self._tolerated_lead_ms = tolerated_lead_ms
        self._bonds = {row.address: row.bond_uflk for row in state.iterate(ValidatorRow)}
        self._outcomes: dict[int, tuple[bytes, bytes]] = {}
        self._context = signing_context(VOTE_PURPOSE, genesis.hash())
        self._signed: dict[tuple[bytes, int, int, int], Any] = {}
        self._locks: dict[bytes, tuple[int, int]] = {}

    def check_signature(self, message: SignedVote | SignedProposal) -> None:
        """A signature of an honest node leaves it."""
        body = message.body
        is_vote = isinstance(message, SignedVote)
        who, step = (message.validator, message.body.kind) if is_vote else (message.proposer, 0)
        earlier = self._signed.setdefault((who, body.height, body.round, step), body)
        if earlier != body:
            raise Violation("one signature", f"an honest node signed {earlier} and then {body}")

    def check_lock(self, address: bytes, node: Node) -> None:
        """Within a height a lock never goes back, through crashes too: looked at whenever a signature leaves."""
        core = node.driver.core
        height, locked_round = self._locks.get(address, (0, -1))
        if height == core.height and core.locked_round < locked_round:
            raise Violation("locks grow", f"lock at height {height} fell from {locked_round} to {core.locked_round}")
        self._locks[address] = (core.height, core.locked_round)

    def check_evidence(self, offender: bytes, is_proof: bool) -> None:
        """A node is about to report an equivocation."""
        if offender in self._honest or not is_proof:
            raise Violation("evidence", f"{offender.hex()[:8]} is accused and is honest, or the proof is none")

    def check_decided(self, decided: Decided, now_ms: int) -> None:
        """A node is about to persist a block."""
        block, commit, outcome = decided
        height = block.height
        self._check_commit(block, commit)
        earlier = self.commits.setdefault(height, commit)
        if earlier.block_id != commit.block_id:
            sentence = f"height {height} decided {earlier.block_id.hex()[:8]} and {commit.block_id.hex()[:8]}"
            raise Forked(sentence, Fork(height, (earlier, commit)))
        mine = (outcome.state_root, outcome.results_root)
        if self._outcomes.setdefault(height, mine) != mine:
            raise Violation("state", f"two state roots after height {height}")
        self._check_header(block, now_ms)
        for row in outcome.write_set.values():
            if isinstance(row, ValidatorSet):
                self.sets[row.height] = row.members
            elif isinstance(row, ValidatorRow):
                self._check_validator(row)

    def _check_commit(self, block: Block, commit: Commit) -> None:
        """The commit would convince a stranger."""
        if commit.height != block.height or commit.block_id != block.block_id():
            raise Violation("commit", f"height {block.height} came with a commit for something else")
        body = encode(VoteBody(PRECOMMIT, commit.height, commit.round, commit.block_id))
        members = self.sets[block.height]
        given = {one.validator: one.signature for one in commit.signatures}
        power = sum(
            member.power
            for member in members
            if member.address in given
            and is_signature_valid(member.public_key, self._context, body, given[member.address])
        )
        if 3 * power <= 2 * sum(member.power for member in members):
            raise Violation("commit", f"height {block.height} was decided by power {power}, not by more than 2/3")

    def _check_header(self, block: Block, now_ms: int) -> None:
        header = block.header
        if header.height in self.times_ms:
            return
        self.times_ms[header.height] = header.time_ms
        if header.time_ms <= self.times_ms.get(header.height - 1, 0):
            raise Violation("time", f"height {header.height} is not later than the one before")
        if header.time_ms > now_ms + self._tolerated_lead_ms:
            raise Violation("time", f"height {header.height} is of {header.time_ms - now_ms} ms in the future")
        if header.height > 1 and header.prev_state_root != self._outcomes[header.height - 1][0]:
            raise Violation("validity", f"height {header.height} names another state root than was reached")
        if all(member.address != header.proposer for member in self.sets[header.height]):
            raise Violation("validity", f"height {header.height} was proposed by nobody of its validator set")

    def _check_validator(self, row: ValidatorRow) -> None:
        if row.tombstoned:
            self.tombstoned.add(row.address)
        is_harmed = row.tombstoned or row.jailed_until_ms or row.bond_uflk < self._bonds[row.address]
        if row.address in self._honest and is_harmed:
            raise Violation("honest slashed", f"{row.name} was punished: {row}")
