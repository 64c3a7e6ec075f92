"""Transactions on their way: checked, held, and passed on in batches."""

from flockchain.codec import encode
from flockchain.crypto import sha256
from flockchain.errors import Malformed, Refused
from flockchain.execution.block import check_tx, preview_tx
from flockchain.node.gossip import Gossip
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Mempool
from flockchain.node.messages import MAX_TXS, TxBatch
from flockchain.node.ports import Channel, Clock, Network, PeerId
from flockchain.types.tx import OK

FLUSH_MS = 5
"""Transactions that come within this time of the last batch travel together."""
MAX_BATCH_BYTES = 256 * 1024
MAX_GREETING_BYTES = 2**20
"""Of waiting transactions told to a new peer."""
CHECKED_PER_S = 1_000
"""New transactions of one peer that are checked; those beyond are dropped unread, and others may bring them."""
CHECKED_BURST = 8_000
"""A peer that was quiet, or greets with all that waits at it, may send so many at once."""
FAULTY = frozenset({"malformed", "bad-signature", "wrong-chain", "wrong-key"})
"""Refusals that an honest peer never causes, whatever it has not heard yet."""


class TxGossip:
    """The way into the mempool, from the API and from peers."""

    def __init__(self, ledger: Ledger, mempool: Mempool, network: Network, clock: Clock, gossip: Gossip) -> None:
        self._ledger = ledger
        self._mempool = mempool
        self._network = network
        self._clock = clock
        self._gossip = gossip
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._flushed_ms = 0
        self._is_flush_set = False
        self._allowances: dict[PeerId, tuple[int, int]] = {}
        """Per peer: thousandths of transactions that may still be checked, and as of when in milliseconds."""

    def submit(self, data: bytes) -> bytes:
        """Take a transaction from a client; returns its hash, raises `Refused` with what the next block would say."""
        now_ms = self._clock.now_ms()
        tx_hash = sha256(data)
        if tx_hash in self._mempool:
            return tx_hash
        checked = check_tx(self._ledger.state, data, now_ms)
        if checked.nonce == self._ledger.next_nonce(checked.sender):
            result = preview_tx(self._ledger.state, data, now_ms, verified=(tx_hash,))
            if result.code != OK:
                raise Refused(result.code, result.message)
        self._mempool.add(checked, data)
        self._send(data)
        return tx_hash

    def receive(self, peer: PeerId, batch: TxBatch) -> bool:
        """Take a peer's transactions; True when any was new. Raises `Refused` when the peer is at fault.

        What only our state refuses is nobody's fault, so it costs a peer nothing to send it: the allowance bounds it.
        """
        new: list[bytes] = []
        fault: Refused | None = None
        for data in batch.txs:
            tx_hash = sha256(data)
            if self._mempool.is_seen(tx_hash):
                continue
            if not self._is_allowed(peer):
                break
            try:
                self._mempool.add(check_tx(self._ledger.state, data, self._clock.now_ms()), data)
                self._mempool.note_seen(tx_hash)
                new.append(data)
            except Refused as refusal:
                # What only our state refuses may be fine a block later: it is taken when it comes again.
                if refusal.code in FAULTY:
                    self._mempool.note_seen(tx_hash)
                    fault = Malformed(f"peer sent a bad transaction: {refusal.message}")
        if new:
            self._gossip.relay(Channel.MEMPOOL, TxBatch(tuple(new)), peer)
        if fault is not None:
            raise fault
        return bool(new)

    def forget(self, peer: PeerId) -> None:
        """A peer is gone."""
        self._allowances.pop(peer, None)

    def _is_allowed(self, peer: PeerId) -> bool:
        """A token bucket in integers, for one more transaction."""
        now_ms = self._clock.now_ms()
        left, since_ms = self._allowances.get(peer, (1_000 * CHECKED_BURST, now_ms))
        left = min(1_000 * CHECKED_BURST, left + max(0, now_ms - since_ms) * CHECKED_PER_S)
        is_allowed = left >= 1_000
        self._allowances[peer] = (left - 1_000 if is_allowed else left, now_ms)
        return is_allowed

    def greet(self, peer: PeerId) -> None:
        """Tell a new peer what waits here."""
        batch: list[bytes] = []
        size = total = 0
        for data in self._mempool:
            total += len(data)
            if total > MAX_GREETING_BYTES:
                break
            if size + len(data) > MAX_BATCH_BYTES or len(batch) >= MAX_TXS:
                self._network.send(peer, Channel.MEMPOOL, encode(TxBatch(tuple(batch))))
                batch, size = [], 0
            batch.append(data)
            size += len(data)
        if batch:
            self._network.send(peer, Channel.MEMPOOL, encode(TxBatch(tuple(batch))))

    def _send(self, data: bytes) -> None:
        """Pass on at once when the line was quiet, else with others a moment later."""
        if self._outgoing_bytes + len(data) > MAX_BATCH_BYTES or len(self._outgoing) >= MAX_TXS:
            self._flush()
        self._outgoing.append(data)
        self._outgoing_bytes += len(data)
        if self._is_flush_set:
            return
        if self._clock.now_ms() > self._flushed_ms + FLUSH_MS:
            self._flush()
        else:
            self._is_flush_set = True
            self._clock.call_later(FLUSH_MS, self._flush_timer)

    def _flush_timer(self) -> None:
        self._is_flush_set = False
        self._flush()

    def _flush(self) -> None:
        if self._outgoing:
            self._network.broadcast(Channel.MEMPOOL, encode(TxBatch(tuple(self._outgoing))))
        self._outgoing, self._outgoing_bytes = [], 0
        self._flushed_ms = self._clock.now_ms()
