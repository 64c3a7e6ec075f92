"""What peers say of the height in progress, verified before the core hears of it; what a peer that lags is told."""

import structlog

from flockchain.codec import decode
from flockchain.consensus.events import ProposalReceived, VoteReceived
from flockchain.consensus.messages import Proposal, Vote
from flockchain.consensus.proposals import FUTURE_ROUNDS
from flockchain.errors import Malformed, Refused
from flockchain.execution.validity import compute_last_commit_hash
from flockchain.merkle import compute_root
from flockchain.node.consensus_driver import ConsensusDriver
from flockchain.node.height_book import to_proposal, to_vote
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Mempool
from flockchain.node.messages import ProposalMessage, VoteMessage
from flockchain.node.ports import Clock
from flockchain.node.records import ProposalRecord, VoteRecord
from flockchain.types.chain import PREVOTE, Block, SignedVote, VoteBody

log = structlog.get_logger()


class ConsensusIntake:
    """Signatures, membership, blocks, timeliness: all that the core takes for granted."""

    def __init__(self, driver: ConsensusDriver, ledger: Ledger, mempool: Mempool, clock: Clock) -> None:
        self._driver = driver
        self._ledger = ledger
        self._mempool = mempool
        self._clock = clock

    def receive_vote(self, signed: SignedVote) -> bool:
        """A vote for the next height; True when it was new. Raises `Refused` for a wrong signature.

        New is what the book did not hold, whether or not the core keeps it: a third id of an equivocator, which no
        core keeps, would else be new on every arrival, and two nodes would pass it to and fro for ever.
        """
        vote = to_vote(signed)
        if self._driver.is_active and vote in self._driver.core.votes_of(vote.round, vote.kind):
            return False
        if not self._driver.is_active or self._driver.book.vote(vote) is None:
            self._ledger.check_vote(signed)
        if not self._driver.is_active:
            self._driver.begin_height()
        is_new = self._driver.book.vote(vote) is None
        if is_new and not self._driver.book.add_vote(signed):
            return False
        self._driver.feed(VoteReceived(vote), VoteRecord(signed))
        return is_new

    def receive_proposal(self, message: ProposalMessage) -> ProposalMessage | None:
        """A proposal for the next height; if new, what to pass on. Raises `Refused` when its sender is at fault.

        Passed on is what this node vouches for: the block and the votes that it holds itself. What came with a
        proposal whose block and polka were known already was not looked at, and may be anything.
        """
        signed = message.proposal
        proposal = to_proposal(signed)
        if self._driver.is_active and proposal in self._driver.core.proposals_of(proposal.round):
            return None
        current_round = self._driver.core.round if self._driver.is_active else 0
        if proposal.round > current_round + FUTURE_ROUNDS:
            return None  # peers send it again when we get there
        self._ledger.check_proposal(signed, current_round)
        if not self._driver.is_active:
            self._driver.begin_height()
        if not self._hold_block(signed.body.block_id, message.block):
            return None
        self._receive_polka(proposal, message.polka)
        block, data = self._driver.book.blocks[proposal.value_id]
        is_valid = self._driver.book.verdicts[proposal.value_id]
        is_timely = proposal.valid_round >= 0 or self._is_timely(proposal, block)
        is_new = self._driver.book.proposal(proposal) is None
        if is_new and not self._driver.book.add_proposal(signed):
            return None
        vouched = ProposalMessage(signed, data, self._driver.signed_polka(proposal))
        record = ProposalRecord(signed, data, is_valid, is_timely)
        self._driver.feed(ProposalReceived(proposal, is_valid, is_timely), record)
        return vouched if is_new else None

    def messages_for(self, held_block_ids: tuple[bytes, ...]) -> list[ProposalMessage | VoteMessage]:
        """What to send again to a peer at this height that holds these blocks, most useful first."""
        votes: list[Vote] = []
        proposals: list[ProposalMessage] = []
        for message in self._driver.core.current_messages() if self._driver.is_active else ():
            if isinstance(message, Vote):
                votes.append(message)
            elif isinstance(message, Proposal) and (signed := self._driver.book.proposal(message)) is not None:
                _, data = self._driver.book.blocks.get(message.value_id, (None, b""))
                data = b"" if message.value_id in held_block_ids else data
                proposals.append(ProposalMessage(signed, data, self._driver.signed_polka(message)))
        signed_votes = self._driver.book.signed_votes(votes)
        return [*proposals, VoteMessage(signed_votes)] if signed_votes else [*proposals]

    # -- blocks and proofs --------------------------------------------------------------------------------------------

    def _hold_block(self, block_id: bytes, data: bytes) -> bool:
        """Whether the block is held, now judged; raises `Refused` when `data` is not the block of that id.

        The id covers the header alone. Contents that do not fit the header are the sender's fault, not the
        block's: judged invalid, the true block would be lost to us for this height.
        """
        if block_id in self._driver.book.blocks:
            return True
        if not data:
            return False
        block = decode(Block, data)
        if block.block_id() != block_id or not is_whole(block):
            raise Refused("wrong-block", f"a proposal for block {block_id.hex()} came with another block")
        is_valid = True
        try:
            self._ledger.check(block, self._mempool.hashes)
        except Refused as refusal:
            is_valid = False
            log.warning("invalid-block", height=self._driver.book.height, block=block_id.hex(), reason=refusal.message)
        self._driver.add_block(block_id, block, data, is_valid)
        return True

    def _receive_polka(self, proposal: Proposal, votes: tuple[SignedVote, ...]) -> None:
        """Feed the proof of lock of a re-proposal, unless its polka was seen already."""
        if proposal.valid_round < 0 or self._driver.core.polka(proposal.height, proposal.valid_round) is not None:
            return
        wanted = VoteBody(PREVOTE, proposal.height, proposal.valid_round, proposal.value_id)
        if any(signed.body != wanted for signed in votes):  # foreign votes would fill the book's places
            raise Malformed(f"the proof of lock of height {proposal.height} holds votes for something else")
        for signed in votes:
            if self._driver.book.vote(to_vote(signed)) is None:
                self._ledger.check_vote(signed)
                self._driver.book.add_vote(signed)
        self._driver.feed_polka(proposal.height, proposal.valid_round, proposal.value_id, votes)

    def _is_timely(self, proposal: Proposal, block: Block) -> bool:
        """Proposer-based timestamps: judged at arrival, for fresh proposals; the tolerance grows by a tenth a round."""
        params = self._ledger.params.consensus
        delay_ms = params.message_delay_ms * (10 + proposal.round) // 10
        age_ms = self._clock.now_ms() - block.header.time_ms
        is_timely = -params.precision_ms <= age_ms <= delay_ms + params.precision_ms
        if not is_timely:
            log.warning(
                "untimely-proposal",
                height=proposal.height,
                proposer=proposal.proposer.hex()[:16],
                reason=f"its time is {age_ms} ms behind this node's clock, allowed are {-params.precision_ms} to "
                f"{delay_ms + params.precision_ms} ms: if other proposers are off as well, this machine's clock is "
                "wrong: check NTP",
            )
        return is_timely and block.header.proposer == proposal.proposer


def is_whole(block: Block) -> bool:
    """Whether transactions and commits are those that the header names."""
    header = block.header
    last_commit_hash = compute_last_commit_hash(block.last_commit, block.late_precommits)
    return header.txs_root == compute_root(block.txs) and header.last_commit_hash == last_commit_hash
