"""What happened on the chain, told once to everyone who listens; all on the node's one loop.

The node calls `publish_block` after it persisted a block. Subscribers get events of these kinds:

    block        height, id, time, state root, number of transactions
    phase        a training round entered a phase
    submission   an adapter was submitted      vote         a sealed or open vote was cast
    settlement   a training round settled      slash        stake was taken
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from api.errors import Overloaded
from api.json import render
from flockchain.crypto import format_address
from flockchain.store.writing import Outcome
from flockchain.types.chain import Block
from flockchain.types.rows import TrainingRound
from flockchain.types.tx import OK

MAX_SUBSCRIBERS = 256
MAX_QUEUED_EVENTS = 1_024
MAX_WAITERS = 8_192
MAX_KNOWN_ROUNDS = 4_096
_TX_EVENTS = {"submit-adapter": "submission", "vote": "vote"}


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    height: int
    body: dict[str, Any]


class Subscription:
    """Events from now on, in order. One that reads too slowly is ended, never waited for."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(MAX_QUEUED_EVENTS + 1)
        self.is_lagging = False

    def put(self, event: Event) -> None:
        if self.is_lagging:
            return
        if self._queue.qsize() >= MAX_QUEUED_EVENTS:
            self.is_lagging = True
            self._queue.put_nowait(None)
        else:
            self._queue.put_nowait(event)

    def end(self) -> None:
        """No further event comes: the listener is let go after those that wait."""
        if not self.is_lagging:
            self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event


class EventHub:
    """Fans events out to subscribers, and wakes those who wait for a transaction."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._waiters: dict[bytes, list[asyncio.Future[None]]] = {}
        self._waiting = 0
        self._phases: dict[tuple[int, int], str] = {}
        self._is_closed = False

    def close(self) -> None:
        """The node stops: let go everyone who listens or waits, or its stop would wait for them."""
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.end()
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def publish_block(self, block: Block, outcome: Outcome) -> None:
        """Tell of a block that is persisted and visible to readers."""
        for result in outcome.results:
            for waiter in self._waiters.get(result.hash, ()):
                if not waiter.done():
                    waiter.set_result(None)
        for event in self._compute_events(block, outcome):
            for subscription in self._subscriptions:
                subscription.put(event)

    def subscribe(self) -> Subscription:
        """Raises `Overloaded` when too many listen already; give it back with `unsubscribe`."""
        if self._is_closed:
            raise Overloaded("this node is stopping: ask another one")
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise Overloaded(f"{MAX_SUBSCRIBERS} listeners are connected, the most this node serves")
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    async def wait_for_tx(self, tx_hash: bytes, is_final: Callable[[], bool], timeout_s: float) -> None:
        """Return when a block with this transaction is persisted, at once when `is_final`, or after `timeout_s`.

        Returns as well when the node stops: whoever asked looks again and finds what there is.
        """
        if self._waiting >= MAX_WAITERS:
            raise Overloaded(f"{MAX_WAITERS} requests wait for transactions, the most this node serves")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(tx_hash, [])
        waiters.append(waiter)
        self._waiting += 1
        try:
            if not self._is_closed and not is_final():  # looked up after the waiter stands: no block slips between
                await asyncio.wait([waiter], timeout=timeout_s)
        finally:
            waiters.remove(waiter)
            self._waiting -= 1
            if not waiters:
                del self._waiters[tx_hash]

    def _compute_events(self, block: Block, outcome: Outcome) -> Iterator[Event]:
        height = block.height
        yield Event(
            "block",
            height,
            {
                "block_id": block.block_id().hex(),
                "time_ms": block.header.time_ms,
                "state_root": outcome.state_root.hex(),
                "tx_count": len(block.txs),
            },
        )
        for result in outcome.results:
            kind = _TX_EVENTS.get(result.kind)
            if kind is not None and result.code == OK:
                yield Event(kind, height, {"hash": result.hash.hex(), "sender": format_address(result.sender)})
        for receipt in outcome.receipts:
            if receipt.kind == "slash":
                yield Event("slash", height, render(receipt))
        yield from self._compute_phase_events(height, list(outcome.write_set.values()))

    def _compute_phase_events(self, height: int, rows: Sequence[msgspec.Struct | None]) -> Iterator[Event]:
        for row in rows:
            if not isinstance(row, TrainingRound) or self._phases.get((row.task, row.number)) == row.phase:
                continue
            if len(self._phases) >= MAX_KNOWN_ROUNDS:
                del self._phases[next(iter(self._phases))]
            self._phases[row.task, row.number] = row.phase
            body = {"task": row.task, "round": row.number, "phase": row.phase, "deadline_ms": row.deadline_ms}
            yield Event("phase", height, body)
            if row.phase == "settled":
                result_root = row.result_root.hex() or None
                yield Event("settlement", height, {**body, "outcome": row.outcome, "result_root": result_root})
