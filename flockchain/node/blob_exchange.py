"""Adapter files spread from whoever uploaded them to every node, chunk by chunk, each proven against its root.

Wanted are the files that the chain has recorded, from PUBLISH on: submissions, attested candidates, global adapters;
and revealed final sets.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from flockchain.codec import encode
from flockchain.errors import Refused
from flockchain.execution.state import State
from flockchain.node.messages import MAX_ROOTS, BlobHave, BlobMessage, BlobWant, ChunkRequest, ChunkResponse
from flockchain.node.ports import Blobs, Channel, Clock, Network, PeerId
from flockchain.types.rows import Attestation, FinalSet, Row, Submission, Task, TrainingRound

log = structlog.get_logger()

MAX_IN_FLIGHT = 16
MAX_IN_FLIGHT_PER_PEER = 6
CHUNK_TIMEOUT_MS = 5_000
ASK_INTERVAL_MS = 1_000
MAX_WANTED = 4_096
BAD_CHUNK_POINTS = 50
UNPUBLISHED = frozenset({"enroll", "train"})


@dataclass(slots=True)
class _Wanted:
    size_bytes: int
    holders: set[PeerId] = field(default_factory=set)
    unasked: deque[int] = field(default_factory=deque)
    """Chunks to ask for. What is lost on the way is found missing once all have been asked for."""


class BlobExchange:
    """Asks who holds what is wanted, then asks holders for chunks; serves both to others."""

    def __init__(self, state: State, blobs: Blobs, network: Network, clock: Clock, *, replicate: bool) -> None:
        self._state = state
        self._blobs = blobs
        self._network = network
        self._clock = clock
        self._replicate = replicate
        self._wanted: dict[bytes, _Wanted] = {}
        self._in_flight: dict[tuple[bytes, int], tuple[PeerId, int]] = {}
        """(root, chunk) -> peer asked, time at which it is given up."""
        self._asked_ms = 0

    def start(self) -> None:
        """Want everything that the state names and that is not here."""
        for training in self._state.iterate(TrainingRound):
            self._want_round(training.task, training.number)
        for final in self._state.iterate(FinalSet):
            self._want(find_revealed_final(self._state, final.task))

    def on_block(self, write_set: Mapping[bytes, Row | None]) -> None:
        """Want what a block recorded."""
        touched: set[tuple[int, int]] = set()
        for row in write_set.values():
            if isinstance(row, TrainingRound):
                touched.add((row.task, row.number))
            elif isinstance(row, Submission | Attestation):
                touched.add((row.task, row.round))
            elif isinstance(row, FinalSet):
                self._want(find_revealed_final(self._state, row.task))
        for task, number in sorted(touched):
            self._want_round(task, number)

    def tick(self) -> None:
        """Notice files that clients uploaded, give up on silent peers, ask on."""
        arrived = [root for root in self._wanted if self._blobs.has(root)]
        for root in arrived:
            self._complete(root)
        now_ms = self._clock.now_ms()
        for key, (peer, until_ms) in list(self._in_flight.items()):
            if now_ms >= until_ms:
                del self._in_flight[key]
                self._drop_holder(key[0], peer)
        unheld = [root for root, wanted in self._wanted.items() if not wanted.holders]
        if unheld and now_ms >= self._asked_ms + ASK_INTERVAL_MS:
            self._asked_ms = now_ms
            for batch in _batches(unheld):
                self._network.broadcast(Channel.BLOBS, encode(BlobWant(batch)))
        self._pump()

    def receive(self, peer: PeerId, message: BlobMessage) -> None:
        match message:
            case BlobWant(roots):
                held = tuple(root for root in roots if self._blobs.has(root))
                if held:
                    self._network.send(peer, Channel.BLOBS, encode(BlobHave(held)))
            case BlobHave(roots):
                for root in roots:
                    if root in self._wanted:
                        self._wanted[root].holders.add(peer)
                self._pump()
            case ChunkRequest(root, index):
                self._serve(peer, root, index)
            case ChunkResponse():
                self._take(peer, message)

    def forget(self, peer: PeerId) -> None:
        """A peer is gone: others are asked for what it owed."""
        for wanted in self._wanted.values():
            wanted.holders.discard(peer)
        for key in [key for key, (asked, _) in self._in_flight.items() if asked == peer]:
            del self._in_flight[key]
        self._pump()

    # -- what is wanted -----------------------------------------------------------------------------------------------

    def _want_round(self, task: int, number: int) -> None:
        self._want(find_recorded_blobs(self._state, task, number))

    def _want(self, recorded: Iterable[tuple[bytes, int]]) -> None:
        for root, size_bytes in recorded:
            if root in self._wanted or self._blobs.has(root) or len(self._wanted) >= MAX_WANTED:
                continue
            try:
                self._blobs.expect(root, size_bytes)
            except Refused as refusal:
                log.warning("blob-not-taken", root=root.hex(), size_bytes=size_bytes, reason=refusal.message)
                continue
            self._wanted[root] = _Wanted(size_bytes)
            self._asked_ms = 0

    # -- fetching -----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Keep the window of requests full."""
        if not self._replicate:
            return
        for root, wanted in list(self._wanted.items()):
            if not wanted.holders:
                continue
            if not wanted.unasked and all(asked != root for asked, _ in self._in_flight):
                wanted.unasked.extend(self._blobs.missing(root))
            while wanted.unasked:
                if len(self._in_flight) >= MAX_IN_FLIGHT:
                    return
                peer = self._choose_holder(wanted)
                if peer is None:
                    break
                index = wanted.unasked[0]
                if not self._network.send(peer, Channel.BLOBS, encode(ChunkRequest(root, index))):
                    wanted.holders.discard(peer)
                    break
                wanted.unasked.popleft()
                self._in_flight[root, index] = (peer, self._clock.now_ms() + CHUNK_TIMEOUT_MS)

    def _choose_holder(self, wanted: _Wanted) -> PeerId | None:
        """The least burdened holder with room."""
        burden = {peer: sum(asked == peer for asked, _ in self._in_flight.values()) for peer in sorted(wanted.holders)}
        peer = min(burden, key=lambda p: burden[p], default=None)
        return peer if peer is not None and burden[peer] < MAX_IN_FLIGHT_PER_PEER else None

    def _take(self, peer: PeerId, response: ChunkResponse) -> None:
        key = (response.root, response.index)
        if self._in_flight.get(key, (b"", 0))[0] != peer:
            return  # late, or never asked
        del self._in_flight[key]
        if not response.data:
            self._drop_holder(response.root, peer)
        elif response.root in self._wanted:
            try:
                self._blobs.put_chunk(response.root, response.index, response.data, response.proof)
            except Refused as refusal:
                self._drop_holder(response.root, peer)
                if refusal.code == "bad-chunk":  # a full disk is our own affair
                    self._network.penalize(peer, BAD_CHUNK_POINTS, f"bad chunk: {refusal.message}")
        if response.root in self._wanted and self._blobs.has(response.root):
            self._complete(response.root)
        self._pump()

    def _drop_holder(self, root: bytes, peer: PeerId) -> None:
        if root in self._wanted:
            self._wanted[root].holders.discard(peer)

    def _complete(self, root: bytes) -> None:
        """A file is whole here: tell everyone."""
        del self._wanted[root]
        for key in [key for key in self._in_flight if key[0] == root]:
            del self._in_flight[key]
        log.info("blob-complete", root=root.hex())
        self._network.broadcast(Channel.BLOBS, encode(BlobHave((root,))))

    # -- serving ------------------------------------------------------------------------------------------------------

    def _serve(self, peer: PeerId, root: bytes, index: int) -> None:
        try:
            data, proof = self._blobs.chunk(root, index)
        except Refused:
            data, proof = b"", ()
        self._network.send(peer, Channel.BLOBS, encode(ChunkResponse(root, index, data, tuple(proof))))


def find_recorded_blobs(state: State, task: int, number: int) -> Iterator[tuple[bytes, int]]:
    """(root, size in bytes) of every file that a training round made public; none before PUBLISH."""
    training = state.find(TrainingRound, task, number)
    if training is None or training.phase in UNPUBLISHED or state.find(Task, task) is None:
        return
    for submission in state.iterate(Submission, task, number):
        yield submission.root, submission.size_bytes
    # Only the settled candidate: before that, one attester's word for its size would bind every node.
    if training.candidate_root:
        yield training.candidate_root, training.candidate_size_bytes


def find_revealed_final(state: State, task: int) -> Iterator[tuple[bytes, int]]:
    """(root, size in bytes) of a task's final set, once its creator has revealed it."""
    final = state.find(FinalSet, task)
    if final is not None and final.phase in ("draw", "judge"):
        yield final.terms.root, final.terms.size_bytes


def _batches(roots: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    batch: list[bytes] = []
    for root in roots:
        batch.append(root)
        if len(batch) == MAX_ROOTS:
            yield tuple(batch)
            batch = []
    if batch:
        yield tuple(batch)
