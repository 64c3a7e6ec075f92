"""Answers to peers that join: which snapshots this node holds, their parts, and the headers that prove them."""

from flockchain.codec import encode
from flockchain.errors import FlockchainError
from flockchain.node.messages import (
    MAX_OFFERS,
    LightBlockRequest,
    LightBlockResponse,
    ManifestRequest,
    ManifestResponse,
    PartRequest,
    PartResponse,
    SnapshotOffer,
    SnapshotOffers,
    SnapshotQuestion,
    SnapshotsRequest,
)
from flockchain.node.ports import Channel, Clock, Network, PeerId, Store
from flockchain.store.snapshots import SnapshotFolder
from flockchain.types.snapshot import StateManifest

SERVED_BURST = 32
SERVED_PER_S = 64
"""Questions of one peer that are answered; a part is half a MiB on average."""


class SnapshotService:
    """Reads what lies on disk; a snapshot that was deleted meanwhile is answered as not held."""

    def __init__(self, store: Store, folder: SnapshotFolder | None, network: Network, clock: Clock) -> None:
        self._store = store
        self._folder = folder
        self._network = network
        self._clock = clock
        self._manifests: dict[int, StateManifest] = {}
        self._allowances: dict[PeerId, tuple[int, int]] = {}
        """Per peer: milliseconds' worth of questions that it may still ask, and as of when."""

    def forget(self, peer: PeerId) -> None:
        self._allowances.pop(peer, None)

    def serve(self, peer: PeerId, question: SnapshotQuestion) -> None:
        """Answer, unless the peer asks too much: then it waits in vain and asks others."""
        if self._is_allowed(peer):
            self._network.send(peer, Channel.SYNC, encode(self._answer(question)))

    def _answer(self, question: SnapshotQuestion) -> object:
        match question:
            case SnapshotsRequest():
                return SnapshotOffers(self._store.height, self._offers())
            case ManifestRequest(height, depth):
                manifest = self._find(height)
                is_it = manifest is not None and manifest.depth == depth
                return ManifestResponse(height, depth, manifest if is_it else None)
            case PartRequest(height, depth, part):
                return PartResponse(height, depth, part, self._read_part(height, depth, part))
            case LightBlockRequest(height):
                return LightBlockResponse(height, self._store.light_block(height))

    def _offers(self) -> tuple[SnapshotOffer, ...]:
        """Those whose state root the header after them shows."""
        if self._folder is None:
            return ()
        first, last = self._store.first_height, self._store.height
        held = self._folder.heights()
        self._manifests = {height: manifest for height, manifest in self._manifests.items() if height in held}
        heights = [height for height in held if first <= height + 1 <= last]
        found = [self._find(height) for height in reversed(heights[-MAX_OFFERS:])]
        return tuple(SnapshotOffer(manifest.height, manifest.depth) for manifest in found if manifest is not None)

    def _find(self, height: int) -> StateManifest | None:
        if self._folder is None:
            return None
        if height not in self._manifests:
            try:
                self._manifests[height] = self._folder.manifest(height)
            except FlockchainError:
                return None  # none, or damaged: not to be offered
            while len(self._manifests) > MAX_OFFERS:
                del self._manifests[next(iter(self._manifests))]
        return self._manifests[height]

    def _read_part(self, height: int, depth: int, part: int) -> bytes:
        manifest = self._find(height)
        if self._folder is None or manifest is None or manifest.depth != depth or part > len(manifest.tops):
            return b""
        try:
            return self._folder.chunk(height, part - 1) if part else self._folder.head_bytes(height)
        except FlockchainError:
            return b""

    def _is_allowed(self, peer: PeerId) -> bool:
        """A token bucket in integers, as for blocks (sync.py)."""
        cost_ms, now_ms = 1_000 // SERVED_PER_S, self._clock.now_ms()
        full_ms = SERVED_BURST * cost_ms
        left_ms, since_ms = self._allowances.get(peer, (full_ms, now_ms))
        left_ms = min(full_ms, left_ms + now_ms - since_ms)
        is_allowed = left_ms >= cost_ms
        self._allowances[peer] = (left_ms - cost_ms if is_allowed else left_ms, now_ms)
        return is_allowed
