"""What to say to whom beyond one's own votes: help for peers that lag, and relays where the network is no full mesh.

Nothing is assumed to arrive. Each node tells regularly where it stands (`Status`); whoever knows more answers with
what the other lacks: the decided block with its commit, or the proposal and votes of the height in progress.
"""

from flockchain.codec import encode
from flockchain.node.consensus_driver import ConsensusDriver
from flockchain.node.consensus_intake import ConsensusIntake
from flockchain.node.ledger import Ledger
from flockchain.node.messages import Decision, Message, Status
from flockchain.node.ports import Channel, Clock, Network, PeerId

TICK_MS = 250
IDLE_TICKS = 12
"""Ticks between two statuses while nothing is stuck."""
HELP_INTERVAL_MS = 200
"""Least time between two answers to one peer's statuses."""
HELP_HEIGHTS = 2
"""A peer further behind asks for blocks by itself (sync.py)."""


class Gossip:
    """Statuses out, help back."""

    def __init__(
        self, ledger: Ledger, driver: ConsensusDriver, intake: ConsensusIntake, network: Network, clock: Clock
    ) -> None:
        self.statuses: dict[PeerId, Status] = {}
        self._ledger = ledger
        self._driver = driver
        self._intake = intake
        self._network = network
        self._clock = clock
        self._helped_ms: dict[PeerId, int] = {}
        self._ticked = (0, 0)
        self._idle_ticks = 0

    def greet(self, peer: PeerId) -> None:
        self._network.send(peer, Channel.CONSENSUS, encode(self.make_status()))

    def forget(self, peer: PeerId) -> None:
        self.statuses.pop(peer, None)
        self._helped_ms.pop(peer, None)

    def tick(self) -> None:
        """Tell where we stand: at once while a height makes no progress, else now and then."""
        position = (self._driver.core.height, self._driver.core.round)
        is_stuck = self._driver.is_active and position == self._ticked
        self._ticked = position
        self._idle_ticks += 1
        if is_stuck or self._idle_ticks >= IDLE_TICKS:
            self._idle_ticks = 0
            self._network.broadcast(Channel.CONSENSUS, encode(self.make_status()))

    def make_status(self) -> Status:
        driver = self._driver
        is_started = driver.is_active
        return Status(
            decided_height=self._ledger.height,
            round=driver.core.round if is_started else 0,
            is_started=is_started,
            block_ids=tuple(driver.book.blocks) if is_started else (),
            peers=len(self._network.peers()),
        )

    def on_status(self, peer: PeerId, status: Status) -> None:
        """Remember where the peer stands and send what it lacks."""
        self.statuses[peer] = status
        now_ms = self._clock.now_ms()
        if now_ms < self._helped_ms.get(peer, 0) + HELP_INTERVAL_MS:
            return
        behind = self._ledger.height - status.decided_height
        if behind < 0:
            self._helped_ms[peer] = now_ms
            self.greet(peer)  # it sees what we lack
        elif 0 < behind <= HELP_HEIGHTS:
            self._helped_ms[peer] = now_ms
            self._send_decision(peer, status.decided_height + 1)
        elif behind == 0 and self._driver.is_active:
            self._helped_ms[peer] = now_ms
            for message in self._intake.messages_for(status.block_ids):
                self._network.send(peer, Channel.CONSENSUS, encode(message))

    def relay(self, channel: Channel, message: Message, source: PeerId | None) -> None:
        """Pass something new on to peers that are connected to few others; a full mesh needs no relays."""
        enough = len(self._ledger.members(self._ledger.height + 1)) - 1
        data: bytes | None = None
        for peer in self._network.peers():
            status = self.statuses.get(peer)
            if peer != source and (status is None or status.peers < enough):
                data = data or encode(message)
                self._network.send(peer, channel, data)

    def _send_decision(self, peer: PeerId, height: int) -> None:
        if height == self._ledger.height:
            block, commit = self._ledger.last_block, self._ledger.last_commit
        else:
            block, stored = self._ledger.store.block(height), self._ledger.store.commit(height)
            if block is None or stored is None:
                return  # we began from a snapshot just above it
            commit = stored
        assert block is not None
        self._network.send(peer, Channel.CONSENSUS, encode(Decision(encode(block), commit)))
