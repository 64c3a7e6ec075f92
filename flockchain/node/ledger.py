"""The tip of the chain: state and state tree in memory, the store beneath, and what the node asks of them."""

from collections.abc import Collection, Container, Mapping, Sequence

from flockchain.codec import encode
from flockchain.consensus.messages import Step
from flockchain.consensus.powers import ValidatorPowers
from flockchain.consensus.proposals import FUTURE_ROUNDS
from flockchain.crypto import format_address, is_signature_valid, signing_context
from flockchain.errors import Refused, UpgradeNeeded
from flockchain.execution.balances import get_account
from flockchain.execution.block import check_block, execute_block, get_rotation, get_validators
from flockchain.execution.commits import check_commit
from flockchain.execution.genesis import load_state
from flockchain.execution.upgrade import find_upgrade_needed, get_supported_versions
from flockchain.node.ports import Decided, Store
from flockchain.params import Params
from flockchain.rotation import compute_proposer
from flockchain.state_tree import StateTree, is_state_proof_valid
from flockchain.types.chain import (
    EMPTY_COMMIT,
    PROPOSAL_PURPOSE,
    VOTE_PURPOSE,
    Block,
    Commit,
    SignedProposal,
    SignedVote,
)
from flockchain.types.light import ProvenRow
from flockchain.types.rows import Chain, Row, SetMember

FIRST_HEIGHTS = 2
"""So many blocks come at once on a new chain: they prove the genesis state, and show that the network lives."""
MS_PER_TX = 5
BUSY_INTERVAL_MS = 100
"""Each transaction of a block puts off the next block by so much, up to this interval since the block's time."""


class Ledger:
    """The state after the newest decided block. `apply` is the only way forward."""

    def __init__(self, store: Store, versions: Collection[int] | None = None) -> None:
        """Load the state of an initialised store. `versions`: protocol versions to run; None: all that we have."""
        self.store = store
        self._versions = get_supported_versions() if versions is None else versions
        self.state, self.tree = load_state(store.load_rows())
        self.last_block = store.block(self.height)
        self.last_commit = store.commit(self.height) or EMPTY_COMMIT
        """That the newest block is decided; verified here."""
        self.had_work = self.height < FIRST_HEIGHTS or (self.last_block is not None and bool(self.last_block.txs))
        """Whether the newest block should be followed by one that proves its state root."""
        genesis_hash = self.chain.genesis_hash
        self.vote_context = signing_context(VOTE_PURPOSE, genesis_hash)
        self.proposal_context = signing_context(PROPOSAL_PURPOSE, genesis_hash)
        self._proposers: dict[tuple[int, int], bytes] = {}
        self._before: tuple[StateTree, Mapping[bytes, Row | None]] | None = None
        """The state that the newest header proves, the one before its block: its tree, and the rows replaced since."""
        assert store.height == self.height, "the store's rows belong to its newest block"

    @property
    def chain(self) -> Chain:
        return self.state.get(Chain)

    @property
    def height(self) -> int:
        """Newest decided height."""
        return self.chain.height

    @property
    def params(self) -> Params:
        return self.chain.params

    def members(self, height: int) -> tuple[SetMember, ...]:
        """The validator set of the newest, the next or the following height."""
        return get_validators(self.state, height)

    def powers(self, height: int) -> ValidatorPowers:
        """The same set as consensus wants it."""
        members = self.members(height)
        return ValidatorPowers(tuple(m.address for m in members), tuple(m.power for m in members))

    def proposer_of(self, height: int, round: int) -> bytes:
        """Whose turn it is in a round of the next height."""
        key = (height, round)
        if key not in self._proposers:
            self._proposers[key] = compute_proposer(get_rotation(self.state, height), round)
        return self._proposers[key]

    @property
    def upgrade_needed(self) -> UpgradeNeeded | None:
        """Why the next block is not for this software; None while it is."""
        return find_upgrade_needed(self.state, self._versions)

    def next_nonce(self, address: bytes) -> int:
        return get_account(self.state, address).nonce

    def check(self, block: Block, verified: Container[bytes]) -> None:
        """Refuse a block that may not come next. `verified`: hashes of transactions with checked signatures."""
        check_block(self.state, block, verified, self.last_commit)

    def check_commit(self, block: Block, commit: Commit) -> None:
        """Refuse unless `commit` decides `block` at the next height."""
        members = self.members(self.height + 1)
        check_commit(commit, members, self.height + 1, block.block_id(), self.chain.genesis_hash)

    def check_vote(self, vote: SignedVote) -> None:
        """Refuse a vote for the next height that no validator of it signed."""
        member = self._member(vote.validator)
        if not is_signature_valid(member.public_key, self.vote_context, encode(vote.body), vote.signature):
            raise Refused("bad-signature", f"vote with a wrong signature of {format_address(vote.validator)}")

    def check_proposal(self, proposal: SignedProposal, current_round: int) -> None:
        """Refuse a proposal for the next height that its round's proposer did not sign.

        Its round is at most `FUTURE_ROUNDS` above ours, for finding the proposer takes time in proportion.
        """
        body = proposal.body
        assert body.round <= current_round + FUTURE_ROUNDS
        if body.valid_round >= body.round:
            raise Refused("bad-proposal", f"valid round {body.valid_round} is not before round {body.round}")
        member = self._member(proposal.proposer)
        if self.proposer_of(body.height, body.round) != proposal.proposer:
            raise Refused("bad-proposal", f"{format_address(proposal.proposer)} does not propose round {body.round}")
        if not is_signature_valid(member.public_key, self.proposal_context, encode(body), proposal.signature):
            raise Refused("bad-signature", f"proposal with a wrong signature of {format_address(proposal.proposer)}")

    def _member(self, address: bytes) -> SetMember:
        """A validator of the next height."""
        for member in self.members(self.height + 1):
            if member.address == address:
                return member
        raise Refused("no-validator", f"{format_address(address)} is no validator of height {self.height + 1}")

    def earliest_next_ms(self) -> int:
        """When we make the next block at the earliest: the more the last one held, the longer others may join it.

        A policy of this node above the chain's least interval. Alone, a transaction is final at once; under load,
        blocks come at a steady pace, so that what each costs beside its transactions does not grow with them.
        """
        txs = len(self.last_block.txs) if self.last_block is not None else 0
        least_ms = max(1, self.params.consensus.min_block_interval_ms)
        return self.chain.time_ms + max(least_ms, min(BUSY_INTERVAL_MS, least_ms + MS_PER_TX * txs))

    def timeout_ms(self, step: Step, round: int) -> int:
        """How long a step of a round may last."""
        params = self.params.consensus
        base_ms, delta_ms = {
            Step.PROPOSE: (params.timeout_propose_ms, params.timeout_propose_delta_ms),
            Step.PREVOTE: (params.timeout_prevote_ms, params.timeout_prevote_delta_ms),
            Step.PRECOMMIT: (params.timeout_precommit_ms, params.timeout_precommit_delta_ms),
        }[step]
        return base_ms + delta_ms * round

    def apply(self, block: Block, commit: Commit) -> Decided:
        """Execute and persist a decided block that passed `check`; raises `Fault` when it cannot be stored."""
        decided = self.execute(block, commit)
        self.persist([decided])
        return decided

    def execute(self, block: Block, commit: Commit) -> Decided:
        """The first half of `apply`. The block exists in memory alone: `persist` before anything else learns of it."""
        assert self.upgrade_needed is None, "callers stop before a block that is not for this software"
        tree_before = self.tree.copy()
        outcome = execute_block(self.state, self.tree, block)
        self.last_block, self.last_commit = block, commit
        self.had_work = outcome.had_work or self.height < FIRST_HEIGHTS
        self._before = (tree_before, outcome.replaced)
        self._proposers.clear()
        return block, commit, outcome

    def persist(self, decided: Sequence[Decided]) -> None:
        """The second half: store the blocks executed since the last call, all or none; raises `Fault`."""
        self.store.persist_blocks(decided)
        assert self.store.height == self.height, "what was executed is persisted"

    def prove(self, key: bytes) -> ProvenRow:
        """What the state before the newest block holds under `key`, proven by its header; raises `Refused`."""
        if self._before is None or self.last_block is None:
            raise Refused("not-proven-yet", "this node has just started: it can prove after the next block, try again")
        tree, replaced = self._before
        row = replaced[key] if key in replaced else self.state.at(key)
        value = None if row is None else encode(row)
        proven = ProvenRow(key, value, tree.prove(key), self.last_block.header, self.last_commit)
        assert is_state_proof_valid(proven.header.prev_state_root, key, value, proven.proof)
        return proven
