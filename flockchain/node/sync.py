"""Catching up: a node that fell behind asks peers for decided blocks, checks each commit, and executes in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from flockchain.codec import decode, encode
from flockchain.errors import Refused
from flockchain.node.ledger import Ledger
from flockchain.node.messages import BlockRequest, BlockResponse, BlocksPruned
from flockchain.node.ports import Channel, Clock, Decided, Network, PeerId
from flockchain.types.chain import Block, Commit

log = structlog.get_logger()

BLOCKS_PER_REQUEST = 32
BLOCKS_PER_COMMIT = 64
"""At most so many blocks are persisted together."""
MAX_REQUESTS = 4
"""In flight or answered and waiting for their turn: bounds memory to as many responses."""
MAX_RESPONSE_BYTES = 6 * 2**20
REQUEST_TIMEOUT_MS = 5_000
SLICE_MS = 50
"""Longest run of blocks applied before the loop serves others."""
BAD_BLOCK_POINTS = 100
EMPTY_POINTS = 20
"""For a claim without the blocks: others must not wait for heights that nobody has."""
SILENT_POINTS = 1
"""Slow is no offence; for ever silent is one."""
SERVED_BURST = 16
SERVED_PER_S = 50
"""Block requests of one peer that are answered: reading blocks costs more than asking for them."""


@dataclass(slots=True)
class _Range:
    """Blocks `first` to `last`, asked of one peer."""

    first: int
    last: int
    peer: PeerId
    asked_ms: int
    decisions: tuple[tuple[bytes, Commit], ...] | None = None


class BlockSync:
    """Asks several peers at once, applies in order."""

    def __init__(
        self, ledger: Ledger, network: Network, clock: Clock, on_decided: Callable[[Sequence[Decided]], None]
    ) -> None:
        """`on_decided` hears of blocks once they are persisted."""
        self._ledger = ledger
        self._network = network
        self._clock = clock
        self._on_decided = on_decided
        self._heights: dict[PeerId, int] = {}
        self._ranges: dict[int, _Range] = {}
        self._held_from: dict[PeerId, int] = {}
        """Of peers that have forgotten older blocks: the lowest they hold."""
        self._warned_height = 0
        self._silences: dict[PeerId, int] = {}
        """Requests that a peer left unanswered since its last answer: such peers are asked last."""
        self._is_applying = False
        self._allowances: dict[PeerId, tuple[int, int]] = {}
        """Per peer: milliseconds' worth of requests that it may still make, and as of when."""

    @property
    def target(self) -> int:
        """Highest height that a connected peer claims to have decided."""
        return max(self._heights.values(), default=0)

    @property
    def is_catching_up(self) -> bool:
        """Whether peers are ahead by more than the height that consensus is about to finish."""
        return self.target > self._ledger.height + 1 and self._ledger.upgrade_needed is None

    def note(self, peer: PeerId, height: int) -> None:
        """A peer says, or lets us see, that it decided `height`."""
        self._heights[peer] = max(height, self._heights.get(peer, 0))
        if self.is_catching_up:
            self._ask()

    def forget(self, peer: PeerId) -> None:
        """A peer is gone: others are asked for what it owed."""
        self._heights.pop(peer, None)
        self._allowances.pop(peer, None)
        self._held_from.pop(peer, None)
        self._silences.pop(peer, None)
        for first in [first for first, asked in self._ranges.items() if asked.peer == peer and not asked.decisions]:
            del self._ranges[first]
        self._ask()

    def tick(self) -> None:
        """Give up on silent peers; ask on."""
        now_ms = self._clock.now_ms()
        for asked in list(self._ranges.values()):
            if asked.decisions is None and now_ms >= asked.asked_ms + REQUEST_TIMEOUT_MS:
                self._network.penalize(asked.peer, SILENT_POINTS, "block request was not answered in time")
                self._heights.pop(asked.peer, None)  # its next status brings it back
                self._silences[asked.peer] = self._silences.get(asked.peer, 0) + 1
                del self._ranges[asked.first]
        self._ask()

    def serve(self, peer: PeerId, request: BlockRequest) -> None:
        """Answer a peer with as many decided blocks as fit."""
        if not self._is_allowed(peer):
            return
        decisions: list[tuple[bytes, Commit]] = []
        size = 0
        last = min(request.last, request.first + BLOCKS_PER_REQUEST - 1, self._ledger.height)
        for height in range(max(1, request.first), last + 1):
            block, commit = self._ledger.store.block(height), self._ledger.store.commit(height)
            if block is None or commit is None:
                break
            data = encode(block)
            size += len(data)
            if decisions and size > MAX_RESPONSE_BYTES:
                break
            decisions.append((data, commit))
        held_from = self._ledger.store.first_height if not decisions else 0
        if request.first < held_from:
            self._network.send(peer, Channel.SYNC, encode(BlocksPruned(request.first, held_from)))
            return
        self._network.send(peer, Channel.SYNC, encode(BlockResponse(request.first, tuple(decisions))))

    def receive_pruned(self, peer: PeerId, answer: BlocksPruned) -> None:
        """The peer keeps no block so old: ask it for none below what it says it holds."""
        asked = self._ranges.get(answer.first)
        if asked is None or asked.peer != peer or asked.decisions is not None:
            return
        del self._ranges[answer.first]
        self._held_from[peer] = max(answer.held_from, answer.first + 1)
        self._ask()

    def _is_allowed(self, peer: PeerId) -> bool:
        """A token bucket in integers: a request costs 1000 / SERVED_PER_S ms of the time that passed."""
        cost_ms, now_ms = 1_000 // SERVED_PER_S, self._clock.now_ms()
        full_ms = SERVED_BURST * cost_ms
        left_ms, since_ms = self._allowances.get(peer, (full_ms, now_ms))
        left_ms = min(full_ms, left_ms + now_ms - since_ms)
        is_allowed = left_ms >= cost_ms
        self._allowances[peer] = (left_ms - cost_ms if is_allowed else left_ms, now_ms)
        return is_allowed

    def receive(self, peer: PeerId, response: BlockResponse) -> None:
        """Keep what was asked for; the rest nobody wanted."""
        asked = self._ranges.get(response.first)
        if asked is None or asked.peer != peer or asked.decisions is not None:
            return
        if not response.decisions:
            self._network.penalize(peer, EMPTY_POINTS, f"claimed height {asked.last} and has no block {asked.first}")
            del self._ranges[response.first]
            self._heights.pop(peer, None)
            self._ask()
            return
        self._silences.pop(peer, None)
        asked.decisions = response.decisions[: asked.last - asked.first + 1]
        asked.last = asked.first + len(asked.decisions) - 1
        if not self._is_applying:
            self._is_applying = True
            self._apply_slice()

    # -- asking -------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Fill the window with requests to the peers that hold the blocks, least burdened first."""
        self._drop_passed()
        if not self.is_catching_up:
            return
        first = self._ledger.height + 1
        while len(self._ranges) < MAX_REQUESTS and first <= self.target:
            covering = next((r for r in self._ranges.values() if r.first <= first <= r.last), None)
            if covering is not None:
                first = covering.last + 1
                continue
            starts = [r.first for r in self._ranges.values() if r.first > first]
            last = min([first + BLOCKS_PER_REQUEST - 1, self.target, *(start - 1 for start in starts)])
            peer = self._choose_peer(first)
            if peer is None:
                self._warn_if_pruned(first)
                return
            if not self._network.send(peer, Channel.SYNC, encode(BlockRequest(first, last))):
                return
            self._ranges[first] = _Range(first, last, peer, self._clock.now_ms())
            first = last + 1

    def _choose_peer(self, first: int) -> PeerId | None:
        connected = set(self._network.peers())
        able = sorted(
            peer
            for peer, height in self._heights.items()
            if self._held_from.get(peer, 0) <= first <= height and peer in connected
        )
        burden = {peer: sum(r.peer == peer and r.decisions is None for r in self._ranges.values()) for peer in able}
        return min(able, key=lambda peer: (self._silences.get(peer, 0), burden[peer]), default=None)

    def _warn_if_pruned(self, first: int) -> None:
        """Say, once for a height, that nobody connected can help, and what can."""
        held_from = min((self._held_from[peer] for peer in self._heights if peer in self._held_from), default=0)
        if first < held_from and first != self._warned_height and first == self._ledger.height + 1:
            self._warned_height = first
            log.warning(
                "blocks-pruned",
                height=first,
                held_from=held_from,
                reason=f"no connected peer holds block {first} any more: join again from a snapshot (move the folder "
                "data away except signer_state.json, then start), or connect to a node that keeps all blocks",
            )

    def _drop_passed(self) -> None:
        for first in [first for first, asked in self._ranges.items() if asked.last <= self._ledger.height]:
            del self._ranges[first]

    # -- applying -----------------------------------------------------------------------------------------------------

    def _apply_slice(self) -> None:
        """Apply what is in order, for a short while; come back for the rest."""
        self._is_applying = False
        self._apply_ready(self._clock.now_ms() + SLICE_MS)
        if self._next_ready() is not None:
            self._is_applying = True
            self._clock.call_later(0, self._apply_slice)
        self._ask()

    def _apply_ready(self, end_ms: int) -> None:
        """Execute blocks one by one and persist them together: one fsync for all. A crash leaves none or all."""
        decided: list[Decided] = []
        while (ready := self._next_ready()) is not None:
            asked, (data, commit) = ready
            try:
                decided.append(self._ledger.execute(self._check(data, commit), commit))
            except Refused as refusal:
                log.warning("bad-block-in-sync", height=self._ledger.height + 1, reason=refusal.message)
                self._network.penalize(asked.peer, BAD_BLOCK_POINTS, f"bad block in sync: {refusal.message}")
                self._heights.pop(asked.peer, None)
                self._ranges.pop(asked.first, None)
            if len(decided) == BLOCKS_PER_COMMIT or self._clock.now_ms() >= end_ms:
                break
        if decided:
            self._ledger.persist(decided)
            self._on_decided(decided)

    def _next_ready(self) -> tuple[_Range, tuple[bytes, Commit]] | None:
        height = self._ledger.height + 1
        if self._ledger.upgrade_needed is not None:
            return None
        for asked in self._ranges.values():
            if asked.decisions is not None and asked.first <= height <= asked.last:
                return asked, asked.decisions[height - asked.first]
        return None

    def apply_decision(self, data: bytes, commit: Commit) -> None:
        """Apply the next block, decided by others; raises `Refused` when block or commit is not sound."""
        self._on_decided([self._ledger.apply(self._check(data, commit), commit)])

    def _check(self, data: bytes, commit: Commit) -> Block:
        """The next block; raises `Refused`."""
        block = decode(Block, data)
        self._ledger.check_commit(block, commit)
        self._ledger.check(block, ())
        return block
