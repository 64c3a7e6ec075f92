"""Drives the consensus core: verified events in, effects out through signer, network, clock and log.

The order that keeps a crash harmless (flockchain/consensus/core.py): an event is in the write-ahead log, and the log
on disk, before a signature that follows from it leaves. A restart feeds the log to a fresh core and the signer answers
with the signatures given before. Events that changed nothing are not logged, so what peers repeat costs no disk.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from flockchain.codec import decode, encode
from flockchain.consensus.core import Core
from flockchain.consensus.effects import (
    Decide,
    Effect,
    ReportEquivocation,
    RequestValue,
    ScheduleTimeout,
    SendProposal,
    SendVote,
)
from flockchain.consensus.events import (
    CertificateReceived,
    Event,
    ProposalReceived,
    StartHeight,
    Timeout,
    ValueReady,
    VoteReceived,
)
from flockchain.consensus.messages import PolkaCertificate, Proposal, Step, Vote
from flockchain.consensus.proposals import FUTURE_ROUNDS
from flockchain.errors import Refused
from flockchain.node.builder import build_next_block
from flockchain.node.height_book import HeightBook, to_proposal, to_proposal_body, to_vote, to_vote_body
from flockchain.node.late_precommits import LatePrecommits
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Mempool
from flockchain.node.messages import ProposalMessage, VoteMessage
from flockchain.node.ports import Channel, Clock, Network, Signer
from flockchain.node.records import (
    PolkaRecord,
    ProposalRecord,
    Record,
    StartRecord,
    TimeoutRecord,
    ValueRecord,
    VoteRecord,
    decode_record,
)
from flockchain.node.wal import WriteAheadLog
from flockchain.types.chain import Block, Commit, SignedProposal, SignedVote

log = structlog.get_logger()
STEPS = (Step.PROPOSE, Step.PREVOTE, Step.PRECOMMIT)
Signed = SignedVote | SignedProposal


class ConsensusDriver:
    """One validator's (or, without a signer, one observer's) part in deciding the next height."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        mempool: Mempool,
        network: Network,
        clock: Clock,
        signer: Signer | None,
        wal: WriteAheadLog,
        on_decided: Callable[[Block, Commit], None],
        on_equivocation: Callable[[Signed, Signed], None],
    ) -> None:
        self.late = LatePrecommits(ledger)
        self._ledger = ledger
        self._mempool = mempool
        self._network = network
        self._clock = clock
        self._signer = signer
        self._wal = wal
        self._on_decided = on_decided
        self._on_equivocation = on_equivocation
        self.core = Core(signer.address if signer else None, ledger.proposer_of)
        self.book = HeightBook(0)
        self._queue: deque[tuple[Event, Record | None]] = deque()
        self._is_draining = False
        self._is_replaying = False
        self._wanted_round: int | None = None

    @property
    def is_active(self) -> bool:
        """Whether the next height is in progress; otherwise it waits for work."""
        return self.core.height == self._ledger.height + 1

    # -- events -------------------------------------------------------------------------------------------------------

    def replay(self) -> None:
        """After a start: repeat the height that was in progress when the last process ended."""
        records = [decode_record(record) for record in self._wal.records]
        start = StartRecord(self._ledger.height + 1)
        if start not in records:
            self._wal.reset()
            return
        records = records[records.index(start) :]
        self._is_replaying = True
        for record in records:
            if self._ledger.height + 1 != self.book.height and not isinstance(record, StartRecord):
                break  # decided meanwhile
            self._replay_record(record)
        self._is_replaying = False
        if not self.is_active:
            self._wal.reset()
        log.info("log-replayed", height=self.core.height, round=self.core.round, records=len(records))
        if self.is_active and self._wanted_round == self.core.round:
            self._build(self.core.height, self.core.round)

    def begin_height(self) -> None:
        """Start the next height: there is work, or others have started it."""
        assert not self.is_active
        height = self._ledger.height + 1
        self.book = HeightBook(height)
        self.feed(StartHeight(height, self._ledger.powers(height)), StartRecord(height))

    def leave_height(self) -> None:
        """The height in progress was decided, here or elsewhere, and persisted: its log is worthless."""
        if not self._is_replaying:
            self._wal.reset()
        self._wanted_round = None
        self.late.prune()

    # -- the core -----------------------------------------------------------------------------------------------------

    def feed(self, event: Event, record: Record | None) -> None:
        """Step the core, log what changed it, perform its effects; never from within another step."""
        self._queue.append((event, record))
        if self._is_draining:
            return
        self._is_draining = True
        try:
            while self._queue:
                self._step(*self._queue.popleft())
        finally:
            self._is_draining = False
            self._queue.clear()

    def _step(self, event: Event, record: Record | None) -> None:
        before = (self.core.height, self.core.round, self.core.current_step)
        effects = self.core.step(event)
        is_changed = bool(effects) or before != (self.core.height, self.core.round, self.core.current_step)
        is_worth_a_record = self.is_active and (is_changed or self._is_kept(event))
        if record is not None and not self._is_replaying and is_worth_a_record:
            self._append(record)
        for effect in effects:
            self._perform(effect)

    def _is_kept(self, event: Event) -> bool:
        """Whether the core remembers the event; a message beyond its limits leaves no trace."""
        match event:
            case VoteReceived(vote):
                return vote in self.core.votes_of(vote.round, vote.kind)
            case ProposalReceived(proposal=proposal):
                return proposal in self.core.proposals_of(proposal.round)
            case CertificateReceived(certificate):
                return self.core.polka(certificate.height, certificate.round) is not None
            case _:
                return False

    def _append(self, record: Record) -> None:
        """Log a record; a block's bytes only once."""
        if isinstance(record, ProposalRecord):
            block_id = record.proposal.body.block_id
            if block_id in self.book.logged_blocks:
                record = msgspec.structs.replace(record, block=b"")
            self.book.logged_blocks.add(block_id)
        self._wal.append(encode(record))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SendVote(vote):
                self._send_vote(vote)
            case SendProposal(proposal):
                self._send_proposal(proposal)
            case ScheduleTimeout(step, height, round):
                delay_ms = self._ledger.timeout_ms(step, round)
                self._clock.call_later(delay_ms, partial(self._on_timeout, step, height, round))
            case RequestValue(height, round):
                self._wanted_round = round
                if not self._is_replaying:
                    self._build(height, round)
            case Decide(height, round, value_id):
                self._decide(round, value_id)
            case ReportEquivocation(first, second):
                self._report(first, second)

    def _on_timeout(self, step: Step, height: int, round: int) -> None:
        if (height, round) == (self.core.height, self.core.round) and self.is_active:
            self.feed(Timeout(step, height, round), TimeoutRecord(STEPS.index(step), height, round))

    def _build(self, height: int, round: int) -> None:
        """Answer `RequestValue`, once our clock has passed the last block's time by the least interval."""
        if not self.is_active or (height, round) != (self.core.height, self.core.round) or self._signer is None:
            return
        wait_ms = self._ledger.earliest_next_ms() - self._clock.now_ms()
        if wait_ms > 0:
            self._clock.call_later(wait_ms, partial(self._build, height, round))
            return
        try:
            block = build_next_block(self._ledger, self._mempool, self.late, self._signer, self._clock.now_ms())
            self._ledger.check(block, self._mempool.hashes)
        except Refused as refusal:
            log.error("cannot-propose", height=height, round=round, reason=refusal.message)
            return
        data, block_id = encode(block), block.block_id()
        self.add_block(block_id, block, data, is_valid=True)
        self.feed(ValueReady(height, round, block_id), ValueRecord(height, round, data))

    def _decide(self, round: int, block_id: bytes) -> None:
        certificate = self.core.commit_certificate()
        assert certificate is not None
        if block_id not in self.book.blocks:
            log.warning("decided-block-dropped", height=self.book.height, block=block_id.hex())
            return  # a peer that sees our status sends it with its commit
        commit = self.book.make_commit(round, block_id, certificate.votes)
        powers = self._ledger.powers(self.book.height)
        if not powers.is_quorum(sum(powers.power_of(signature.validator) for signature in commit.signatures)):
            # The core counted a vote that our signer refused (a log lost beside its signer state): no certificate.
            log.error("decided-without-quorum", height=self.book.height, block=block_id.hex())
            return  # a peer that sees our status sends the block with a whole commit
        self._on_decided(self.book.blocks[block_id][0], commit)

    def _report(self, first: Vote | Proposal, second: Vote | Proposal) -> None:
        pair = [
            self.book.vote(message) if isinstance(message, Vote) else self.book.proposal(message)
            for message in (first, second)
        ]
        if pair[0] is not None and pair[1] is not None:
            self._on_equivocation(pair[0], pair[1])

    # -- speaking -----------------------------------------------------------------------------------------------------

    def _send_vote(self, vote: Vote) -> None:
        assert self._signer is not None
        self._wal.sync()
        try:
            signed = self._signer.sign_vote(to_vote_body(vote))
        except Refused as refusal:
            log.error("signer-refused", height=vote.height, round=vote.round, reason=refusal.message)
            return
        self.book.add_vote(signed)
        self._network.broadcast(Channel.CONSENSUS, encode(VoteMessage((signed,))))

    def _send_proposal(self, proposal: Proposal) -> None:
        assert self._signer is not None
        self._wal.sync()
        try:
            signed = self._signer.sign_proposal(to_proposal_body(proposal))
        except Refused as refusal:
            log.error("signer-refused", height=proposal.height, round=proposal.round, reason=refusal.message)
            return
        self.book.add_proposal(signed)
        data = self.book.blocks[proposal.value_id][1]
        message = ProposalMessage(signed, data, self.signed_polka(proposal))
        self._network.broadcast(Channel.CONSENSUS, encode(message))

    def signed_polka(self, proposal: Proposal) -> tuple[SignedVote, ...]:
        """The proof of lock of a re-proposal; empty for a fresh one, and for one that lies about its valid round."""
        polka = self.core.polka(proposal.height, proposal.valid_round)
        return self.book.signed_votes(polka.votes) if polka and polka.value_id == proposal.value_id else ()

    # -- what intake and replay share ----------------------------------------------------------------------------------

    def add_block(self, block_id: bytes, block: Block, data: bytes, is_valid: bool) -> None:
        """Hold a block of this height with our verdict."""
        rounds = range(self.core.round, self.core.round + FUTURE_ROUNDS + 1) if self.is_active else ()
        kept = {proposal.value_id for round in rounds for proposal in self.core.proposals_of(round)}
        needed = {self.core.valid_value, self.core.locked_value, *kept}
        self.book.add_block(block_id, block, data, is_valid, needed)

    def feed_polka(self, height: int, round: int, block_id: bytes, votes: tuple[SignedVote, ...]) -> None:
        """Feed verified prevotes as the proof of lock that they are said to be."""
        certificate = PolkaCertificate(height, round, block_id, tuple(to_vote(vote) for vote in votes))
        self.feed(CertificateReceived(certificate), PolkaRecord(round, block_id, votes))

    # -- replay -------------------------------------------------------------------------------------------------------

    def _replay_record(self, record: Record) -> None:
        match record:
            case StartRecord():
                self.begin_height()
            case VoteRecord(vote):
                self.book.add_vote(vote)
                self.feed(VoteReceived(to_vote(vote)), None)
            case PolkaRecord(round, block_id, votes):
                for vote in votes:
                    self.book.add_vote(vote)
                self.feed_polka(self.book.height, round, block_id, votes)
            case ProposalRecord(proposal, data, is_valid, is_timely):
                if data:
                    self._replay_block(data, is_valid)
                self.book.add_proposal(proposal)
                self.feed(ProposalReceived(to_proposal(proposal), is_valid, is_timely), None)
            case ValueRecord(height, round, data):
                block_id = self._replay_block(data, is_valid=True)
                self._wanted_round = None
                self.feed(ValueReady(height, round, block_id), None)
            case TimeoutRecord(step, height, round):
                self.feed(Timeout(STEPS[step], height, round), None)

    def _replay_block(self, data: bytes, is_valid: bool) -> bytes:
        block = decode(Block, data)
        block_id = block.block_id()
        self.add_block(block_id, block, data, is_valid)
        self.book.logged_blocks.add(block_id)
        return block_id
