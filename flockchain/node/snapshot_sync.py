"""Joining by a snapshot, before the node itself begins: find one, verify the header that proves it, fetch its parts.

    DISCOVER   ask every peer how far its chain is and what it holds (snapshot_offers.py); a short chain is taken by
               blocks at once
    HEADER     the header after the snapshot's block, by light-client rules (header_path.py): it names the state root
    PARTS      the manifest, checked against that root; each chunk against the manifest; the head against the state

Whoever sends something that does not verify is banned, and the rest is asked of others. When a snapshot has nobody
left to give it, the next newest is tried, at most `MAX_CANDIDATES`; then the node takes blocks. A verified header of
a protocol version that this software lacks stops the node before it fetches: no peer is at fault. Driven as the node
is, by network events and a clock, so that the simulator can drive it too.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from flockchain.codec import encode
from flockchain.errors import Fault, Refused
from flockchain.execution.upgrade import check_version, get_supported_versions
from flockchain.genesis import Genesis
from flockchain.light.refusals import NotVerified, TrustExpired
from flockchain.node.header_path import HeaderPath
from flockchain.node.messages import (
    LightBlockRequest,
    LightBlockResponse,
    ManifestRequest,
    ManifestResponse,
    PartRequest,
    PartResponse,
    SnapshotOffers,
    SnapshotsRequest,
    decode_message,
)
from flockchain.node.ports import Channel, Clock, Network, NetworkEvent, PeerConnected, PeerId, PeerLost, Received
from flockchain.node.questions import Questions
from flockchain.node.restore import Snapshot
from flockchain.node.snapshot_offers import NoSnapshot, Offers
from flockchain.node.snapshot_parts import HEAD, Candidate, discard_parts
from flockchain.types.light import LightBlock
from flockchain.types.snapshot import StateManifest

log = structlog.get_logger()

ANSWER_TIMEOUT_MS = 10_000
TICK_MS = 250
MAX_REQUESTS = 8
MAX_REQUESTS_PER_PEER = 4
MAX_SILENCES = 2
"""Unanswered questions after which a peer is not asked for this snapshot any more."""
WRONG_POINTS = 100
EMPTY_POINTS = 20
"""For an offer without the bytes: a snapshot may have been deleted since, so a few are forgiven."""
_HEADER = -1
_MANIFEST = -2
"""Beside the numbers of parts, what a peer may be asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """A whole verified snapshot, on disk, and the state root that a verified header names for it."""

    snapshot: Snapshot
    state_root: bytes


class SnapshotSync:
    """Construct, `start`, feed `handle`; `on_done` is called once, with what was found or None: go on by blocks."""

    def __init__(
        self,
        *,
        genesis: Genesis,
        trust: tuple[int, bytes] | None,
        folder: Path,
        network: Network,
        clock: Clock,
        on_done: Callable[[Found | None], None],
        versions: Collection[int] | None = None,
    ) -> None:
        """`folder` is scratch space on disk for the parts; `trust` a known (height, block id), else genesis;
        `versions`: protocol versions to run; None: all that we have."""
        self._genesis = genesis
        self._trust = trust
        self._folder = folder
        self._network = network
        self._clock = clock
        self._on_done = on_done
        self._versions = get_supported_versions() if versions is None else versions
        self._offers = Offers((trust[0] if trust else 2) - 1)
        self._questions = Questions(ANSWER_TIMEOUT_MS)
        self._banned: set[PeerId] = set()
        self._contradicting: set[PeerId] = set()
        """Peers whose block at the trusted height is another than the one that we were told to trust."""
        self._candidate: Candidate | None = None
        self._is_done = False

    def start(self) -> None:
        self._offers.begin(self._clock.now_ms())
        for peer in self._network.peers():
            self._greet(peer)
        self._clock.call_later(TICK_MS, self._tick)

    def handle(self, event: NetworkEvent) -> None:
        """Take one network event; what is not about snapshots waits for the node."""
        match event:
            case PeerConnected(peer):
                self._greet(peer)
            case PeerLost(peer):
                self._forget(peer)
            case Received(peer, Channel.SYNC, data):
                try:
                    self._receive(peer, decode_message(Channel.SYNC, data))
                except NotVerified as refusal:
                    self._ban(peer, f"bad header for a snapshot: {refusal.message}")
                except Refused as refusal:
                    self._ban(peer, f"bad snapshot: {refusal.message}")
                self._advance()

    # -- answers ------------------------------------------------------------------------------------------------------

    def _receive(self, peer: PeerId, message: object) -> None:
        candidate = self._candidate
        match message:
            case SnapshotsRequest():  # it joins as we do
                self._send(peer, SnapshotOffers(0, ()))
            case SnapshotOffers():
                self._take_offers(peer, message)
            case LightBlockResponse(height, block) if candidate is not None:
                if self._questions.settle(peer, _HEADER) and candidate.path.found is None:
                    self._take_header(candidate, peer, height, block)
            case ManifestResponse(manifest=manifest) if candidate is not None:
                if self._questions.settle(peer, _MANIFEST) and candidate.manifest is None:
                    self._take_manifest(candidate, peer, manifest)
            case PartResponse(height, depth, part, data) if candidate is not None:
                is_wanted = (height, depth) == (candidate.offer.height, candidate.offer.depth)
                if is_wanted and self._questions.settle(peer, part):
                    self._take_part(candidate, peer, part, data)
            case _:
                pass  # for a node that runs

    def _take_offers(self, peer: PeerId, offers: SnapshotOffers) -> None:
        self._offers.take(peer, offers, self._clock.now_ms())
        if self._candidate is not None and self._candidate.offer in offers.offers and peer not in self._banned:
            self._candidate.sources.add(peer)

    def _take_header(self, candidate: Candidate, peer: PeerId, height: int, block: LightBlock | None) -> None:
        if block is None or height != candidate.path.wanted:
            candidate.headerless.add(peer)
            return
        is_root = self._trust is not None and height == self._trust[0]
        try:
            candidate.path.offer(block, self._clock.now_ms())
        except TrustExpired as refusal:
            self._give_up(f"{refusal.message} ([sync] trust)")
            return
        except NotVerified as refusal:
            if not is_root or refusal.code != "wrong-root":
                raise
            self._contradicting.add(peer)
            candidate.headerless.add(peer)
            return
        candidate.headerless.clear()
        if candidate.path.found is not None:
            check_version(block.header.height, candidate.path.found.header.protocol_version, self._versions)

    def _take_manifest(self, candidate: Candidate, peer: PeerId, manifest: StateManifest | None) -> None:
        if manifest is None:
            self._drop_source(candidate, peer)
        else:
            candidate.take_manifest(manifest)

    def _take_part(self, candidate: Candidate, peer: PeerId, part: int, data: bytes) -> None:
        """Keep a part that verifies; else it is missing again, and its sender at fault."""
        if not data:
            candidate.missing.insert(0, part)
            self._drop_source(candidate, peer)
            return
        try:
            candidate.take_part(part, data)
        except Refused:
            candidate.missing.insert(0, part)
            raise
        if part == HEAD:
            log.info("snapshot-fetched", height=candidate.offer.height, chunks=1 << candidate.offer.depth)
            self._end(Found(candidate.make_snapshot(data), candidate.state_root))
        elif not candidate.missing and not self._questions:
            candidate.missing = [HEAD]

    # -- going on -----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._is_done:
            return
        self._clock.call_later(TICK_MS, self._tick)
        now_ms = self._clock.now_ms()
        for peer, what in self._questions.expired(now_ms):
            self._be_silent(peer, what)
        self._advance()

    def _advance(self) -> None:
        """Whatever can be done next."""
        if self._is_done:
            return
        if self._candidate is None:
            self._choose()
        candidate = self._candidate
        if candidate is None or self._is_done:
            return
        if candidate.path.found is None:
            self._ask_header(candidate)
        elif not candidate.sources:
            self._abandon(candidate, "no peer is left that gives it")
        elif candidate.manifest is None:
            self._ask_manifest(candidate)
        else:
            self._ask_parts(candidate)

    def _choose(self) -> None:
        """Begin with the next snapshot, if it is time and there is one."""
        try:
            choice = self._offers.choose(set(self._network.peers()) - self._banned, self._clock.now_ms())
        except NoSnapshot as reason:
            self._give_up(str(reason))
            return
        if choice is not None:
            offer, holders = choice
            path = HeaderPath(self._genesis, self._trust, offer.height + 1)
            self._candidate = Candidate(offer, path, holders, self._genesis, self._folder)
            log.info("snapshot-chosen", height=offer.height, chunks=1 << offer.depth, peers=len(holders))

    def _ask_header(self, candidate: Candidate) -> None:
        if self._questions.is_asked(_HEADER):
            return
        height = candidate.path.wanted
        usable = set(self._network.peers()) - self._banned - candidate.headerless
        able = sorted(usable.intersection(self._offers.holders_of_block(height)))
        peer = min(able, key=lambda one: candidate.silences.get(one, 0), default=None)
        if peer is not None:
            self._ask(peer, _HEADER, LightBlockRequest(height))
            return
        if self._contradicting and self._trust is not None and height == self._trust[0]:
            raise Fault(
                f"[sync] trust names block {self._trust[1].hex()} at height {height}, and {len(self._contradicting)} "
                "peers have another there: correct it, or connect to peers of the chain that you mean"
            )
        self._abandon(candidate, f"no peer gives the header of height {height}")

    def _ask_manifest(self, candidate: Candidate) -> None:
        if self._questions.is_asked(_MANIFEST):
            return
        peer = min(sorted(candidate.sources), key=lambda one: candidate.silences.get(one, 0))
        self._ask(peer, _MANIFEST, ManifestRequest(candidate.offer.height, candidate.offer.depth))

    def _ask_parts(self, candidate: Candidate) -> None:
        while candidate.missing and len(self._questions) < MAX_REQUESTS:
            burden = {peer: self._questions.count(peer) for peer in sorted(candidate.sources)}
            free = [peer for peer, count in burden.items() if count < MAX_REQUESTS_PER_PEER]
            if not free:
                return
            peer = min(free, key=lambda one: (candidate.silences.get(one, 0), burden[one]))
            part = candidate.missing.pop(0)
            if not self._ask(peer, part, PartRequest(candidate.offer.height, candidate.offer.depth, part)):
                candidate.missing.insert(0, part)
                candidate.sources.discard(peer)

    def _abandon(self, candidate: Candidate, reason: str) -> None:
        """This snapshot does not work; the next one may."""
        log.warning("snapshot-abandoned", height=candidate.offer.height, reason=reason)
        self._candidate = None
        self._questions.clear()
        self._choose()

    def _give_up(self, reason: str) -> None:
        log.info("no-snapshot", reason=reason, then="blocks are taken from peers instead")
        self._end(None)

    def _end(self, found: Found | None) -> None:
        self._is_done = True
        self._on_done(found)

    # -- peers and questions ------------------------------------------------------------------------------------------

    def _greet(self, peer: PeerId) -> None:
        self._send(peer, SnapshotsRequest())

    def _send(self, peer: PeerId, message: object) -> bool:
        return self._network.send(peer, Channel.SYNC, encode(message))

    def _ask(self, peer: PeerId, what: int, question: object) -> bool:
        if not self._send(peer, question):
            return False
        self._questions.add(peer, what, self._clock.now_ms())
        return True

    def _be_silent(self, peer: PeerId, what: int) -> None:
        """A question was not answered in time: others are asked, and this peer later, a few times."""
        self._unask(peer, what)
        if self._candidate is not None:
            silences = self._candidate.silences
            silences[peer] = silences.get(peer, 0) + 1
            if silences[peer] >= MAX_SILENCES:
                self._candidate.sources.discard(peer)
                self._candidate.headerless.add(peer)

    def _unask(self, peer: PeerId, what: int) -> None:
        self._questions.settle(peer, what)
        if what >= 0 and self._candidate is not None:
            self._candidate.missing.insert(0, what)

    def _drop_source(self, candidate: Candidate, peer: PeerId) -> None:
        candidate.sources.discard(peer)
        self._offers.unfaithful.add(peer)
        self._network.penalize(peer, EMPTY_POINTS, f"offered snapshot {candidate.offer.height} and does not give it")

    def _ban(self, peer: PeerId, reason: str) -> None:
        log.warning("peer-at-fault", peer=peer.hex(), reason=reason)
        self._banned.add(peer)
        self._forget(peer)
        self._network.penalize(peer, WRONG_POINTS, reason)

    def _forget(self, peer: PeerId) -> None:
        self._offers.forget(peer)
        for what in self._questions.of(peer):
            self._unask(peer, what)
        if self._candidate is not None:
            self._candidate.sources.discard(peer)

    def discard(self) -> None:
        """Forget the parts on disk, once they were restored or are of no use."""
        discard_parts(self._folder)
