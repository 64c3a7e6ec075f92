"""The node: one loop over five ports.

    what happens                     who takes it
    a consensus message              ConsensusIntake: verified, then fed to
    a timeout, a built block         ConsensusDriver: core, log, signer
    a status, a peer that lags       Gossip
    decided blocks from peers        BlockSync
    questions of peers that join     SnapshotService
    transactions                     TxGossip, Mempool
    adapter files                    BlobExchange
    an equivocation                  Accuser
    a decided block                  Ledger: executed, persisted; then `_settle` tells all of the above
    work, or a deadline              HeightStarter: begins the next height

Synchronous and single-threaded: every entry is a method that returns when the effects are performed. Nothing here
knows asyncio, so a simulator drives many nodes in one process with virtual time; run.py drives one with real time.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import structlog

from flockchain.errors import Refused, UpgradeNeeded
from flockchain.execution.block import BlockOutcome, check_tx
from flockchain.node.blob_exchange import BlobExchange
from flockchain.node.consensus_driver import ConsensusDriver
from flockchain.node.consensus_intake import ConsensusIntake
from flockchain.node.evidence import Accuser
from flockchain.node.gossip import TICK_MS, Gossip
from flockchain.node.height_starter import HeightStarter
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Limits, Mempool
from flockchain.node.messages import (
    BlobHave,
    BlobWant,
    BlockRequest,
    BlockResponse,
    BlocksPruned,
    ChunkRequest,
    ChunkResponse,
    Decision,
    LightBlockRequest,
    LightBlockResponse,
    ManifestRequest,
    ManifestResponse,
    Message,
    PartRequest,
    PartResponse,
    ProposalMessage,
    SnapshotOffers,
    SnapshotsRequest,
    Status,
    TxBatch,
    VoteMessage,
    decode_message,
)
from flockchain.node.ports import (
    Blobs,
    Channel,
    Clock,
    Decided,
    Network,
    NetworkEvent,
    PeerConnected,
    PeerId,
    PeerLost,
    Received,
    Signer,
    Store,
)
from flockchain.node.snapshot_service import SnapshotService
from flockchain.node.sync import BlockSync
from flockchain.node.tx_gossip import TxGossip
from flockchain.node.wal import WriteAheadLog
from flockchain.store.snapshots import SnapshotFolder
from flockchain.types.chain import Block, Commit, SignedVote

log = structlog.get_logger()

EARLY_MESSAGES = 256
EARLY_BYTES = 24 * 2**20
"""Messages of the height after the one in progress, kept until it begins."""
FAULT_POINTS = 50
BlockListener = Callable[[Block, BlockOutcome], None]


@dataclass(frozen=True, slots=True)
class NodeOptions:
    mempool: Limits = field(default_factory=lambda: Limits(max_txs=10_000, max_bytes=32 * 2**20))
    replicate_blobs: bool = True
    protocol_versions: Collection[int] | None = None
    """To run; None: all that this software has."""


class Node:
    """Construct, `start`, then feed `handle` and `submit`; `stop` before the store is closed."""

    def __init__(
        self,
        *,
        clock: Clock,
        network: Network,
        store: Store,
        signer: Signer | None,
        blobs: Blobs,
        wal: WriteAheadLog,
        options: NodeOptions | None = None,
        snapshots: SnapshotFolder | None = None,
    ) -> None:
        options = options or NodeOptions()
        self.ledger = Ledger(store, options.protocol_versions)
        self.mempool = Mempool(options.mempool)
        self.mempool.adopt(self.ledger.params.fees)
        self.driver = ConsensusDriver(
            ledger=self.ledger,
            mempool=self.mempool,
            network=network,
            clock=clock,
            signer=signer,
            wal=wal,
            on_decided=self._apply,
            on_equivocation=lambda first, second: self.accuser.note(first, second),
        )
        self.intake = ConsensusIntake(self.driver, self.ledger, self.mempool, clock)
        self.gossip = Gossip(self.ledger, self.driver, self.intake, network, clock)
        self.sync = BlockSync(self.ledger, network, clock, self._settle)
        self.snapshots = SnapshotService(store, snapshots, network, clock)
        self.txs = TxGossip(self.ledger, self.mempool, network, clock, self.gossip)
        self.accuser = Accuser(self.ledger, self.mempool, signer, clock, self.txs.submit)
        self.blobs = BlobExchange(self.ledger.state, blobs, network, clock, replicate=options.replicate_blobs)
        self.starter = HeightStarter(
            ledger=self.ledger,
            mempool=self.mempool,
            driver=self.driver,
            sync=self.sync,
            network=network,
            clock=clock,
            signer=signer,
        )
        self.listeners: list[BlockListener] = []
        self._clock = clock
        self._network = network
        self._wal = wal
        self._early: deque[tuple[PeerId, Message, int]] = deque()
        self._early_bytes = 0
        self._is_running = False

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Repeat the height that was in progress, then go on."""
        self._is_running = True
        self.starter.start()
        self.blobs.start()
        if self.halt is None:
            self.driver.replay()
        self._clock.call_later(TICK_MS, self._tick)
        self.starter.schedule()

    def stop(self) -> None:
        """Take nothing more; what was begun is complete, for every entry runs to its end."""
        self._is_running = False
        self.starter.stop()
        try:
            self._wal.sync()
        finally:
            self._wal.close()

    # -- entries ------------------------------------------------------------------------------------------------------

    def handle(self, event: NetworkEvent) -> None:
        """Take one network event; a peer at fault is penalised."""
        if not self._is_running:
            return
        match event:
            case PeerConnected(peer):
                self.gossip.greet(peer)
                self.txs.greet(peer)
                self.starter.schedule()
            case PeerLost(peer):
                self.gossip.forget(peer)
                self.sync.forget(peer)
                self.snapshots.forget(peer)
                self.blobs.forget(peer)
                self.txs.forget(peer)
            case Received(peer, channel, data):
                try:
                    self._receive(peer, decode_message(channel, data), len(data))
                except Refused as refusal:
                    log.info("peer-at-fault", peer=peer.hex(), channel=channel.name, reason=refusal.message)
                    self._network.penalize(peer, FAULT_POINTS, refusal.message)

    def submit(self, data: bytes) -> bytes:
        """Take a transaction from a client; returns its hash, raises `Refused`."""
        [answer] = self.submit_all((data,))
        if isinstance(answer, Refused):
            raise answer
        return answer

    def submit_all(self, txs: Sequence[bytes]) -> list[bytes | Refused]:
        """Take transactions from a client, each by itself, in order; returns what `submit` returns or raises."""
        answers: list[bytes | Refused] = []
        for data in txs:
            try:
                answers.append(self.txs.submit(data))
            except Refused as refusal:
                answers.append(refusal)
        self.starter.try_now()
        return answers

    @property
    def halt(self) -> UpgradeNeeded | None:
        """Why this node decides nothing more, and only helps others to where it stands; None while it goes on."""
        return self.ledger.upgrade_needed

    @property
    def is_catching_up(self) -> bool:
        return self.sync.is_catching_up

    # -- messages -----------------------------------------------------------------------------------------------------

    def _receive(self, peer: PeerId, message: Message, size: int) -> None:
        match message:
            case VoteMessage() | ProposalMessage() | Decision() | BlockResponse() if self.halt is not None:
                pass  # of blocks that this software could not judge
            case VoteMessage(votes):
                for vote in votes:
                    self._receive_vote(peer, vote)
            case ProposalMessage():
                self._receive_proposal(peer, message, size)
            case Status():
                self.sync.note(peer, message.decided_height)
                self.gossip.on_status(peer, message)
            case Decision(data, commit):
                if commit.height == self.ledger.height + 1:
                    self.sync.apply_decision(data, commit)
            case TxBatch():
                if self.txs.receive(peer, message):
                    self.starter.try_now()
            case BlockRequest():
                self.sync.serve(peer, message)
            case BlockResponse():
                self.sync.receive(peer, message)
            case BlocksPruned():
                self.sync.receive_pruned(peer, message)
            case SnapshotsRequest() | ManifestRequest() | PartRequest() | LightBlockRequest():
                self.snapshots.serve(peer, message)
            case SnapshotOffers() | ManifestResponse() | PartResponse() | LightBlockResponse():
                pass  # late answers to what we asked while joining
            case BlobWant() | BlobHave() | ChunkRequest() | ChunkResponse():
                self.blobs.receive(peer, message)

    def _receive_vote(self, peer: PeerId, vote: SignedVote) -> None:
        following = self.ledger.height + 1
        height = vote.body.height
        if height < following:
            self.driver.late.add(vote)
        elif height > following:
            self._keep_early(peer, VoteMessage((vote,)), 256, height)
        elif self.intake.receive_vote(vote):
            self.gossip.relay(Channel.CONSENSUS, VoteMessage((vote,)), peer)

    def _receive_proposal(self, peer: PeerId, message: ProposalMessage, size: int) -> None:
        following = self.ledger.height + 1
        height = message.proposal.body.height
        if height > following:
            self._keep_early(peer, message, size, height)
        elif height == following:
            vouched = self.intake.receive_proposal(message)
            if vouched is not None:
                self.gossip.relay(Channel.CONSENSUS, vouched, peer)

    def _keep_early(self, peer: PeerId, message: Message, size: int, height: int) -> None:
        """A peer that speaks of a height has decided those before: ask it, and keep what will be of use next."""
        self.sync.note(peer, height - 1)
        if height == self.ledger.height + 2:
            self._early.append((peer, message, size))
            self._early_bytes += size
            while len(self._early) > EARLY_MESSAGES or self._early_bytes > EARLY_BYTES:
                self._early_bytes -= self._early.popleft()[2]

    def _feed_early(self) -> None:
        early, self._early, self._early_bytes = self._early, deque(), 0
        for peer, message, size in early:
            try:
                self._receive(peer, message, size)
            except Refused as refusal:
                self._network.penalize(peer, FAULT_POINTS, refusal.message)

    # -- a decided block ----------------------------------------------------------------------------------------------

    def _apply(self, block: Block, commit: Commit) -> None:
        """Execute and persist a block that is decided here."""
        self._settle([self.ledger.apply(block, commit)])

    def _settle(self, decided: Sequence[Decided]) -> None:
        """Blocks are persisted: let everyone forget what they settled, and tell of them."""
        self.driver.leave_height()
        now_ms = max(self._clock.now_ms(), self.ledger.chain.time_ms)
        included = [result.hash for _, _, outcome in decided for result in outcome.results]
        self.mempool.update(included, self.ledger.next_nonce, now_ms)
        if self.mempool.due_txs:
            self.mempool.recheck_due(lambda data: check_tx(self.ledger.state, data, now_ms))
        self.mempool.adopt(self.ledger.params.fees)
        self.accuser.report()
        for block, _, outcome in decided:
            self.blobs.on_block(outcome.write_set)
            for listener in self.listeners:
                listener(block, outcome)
        block, commit, _ = decided[-1]
        log.info(
            "block",
            height=block.height,
            txs=len(included),
            id=commit.block_id.hex()[:16],
            round=commit.round,
            signed=len(commit.signatures),
            **({"blocks": len(decided)} if len(decided) > 1 else {}),
        )
        if self.halt is not None:
            log.warning("halted", reason=str(self.halt))
        if self._early:
            self._clock.call_later(0, self._feed_early)
        self.starter.schedule()

    def _tick(self) -> None:
        if not self._is_running:
            return
        self._clock.call_later(TICK_MS, self._tick)
        self.gossip.tick()
        self.sync.tick()
        self.blobs.tick()
        if not self.driver.is_active:
            self.starter.try_now()
