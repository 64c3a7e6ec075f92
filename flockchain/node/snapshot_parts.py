"""One snapshot on its way in: who gives it, what is still missing, and the verified parts on disk."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from flockchain.codec import decode
from flockchain.errors import Refused
from flockchain.files import disk_faults
from flockchain.genesis import Genesis
from flockchain.node.header_path import HeaderPath
from flockchain.node.messages import SnapshotOffer
from flockchain.node.ports import PeerId
from flockchain.node.restore import Snapshot, check_head, find_row
from flockchain.state_chunks import check_chunk, check_manifest
from flockchain.types.rows import Chain, ValidatorSet
from flockchain.types.snapshot import SnapshotHead, StateManifest

HEAD = 0
"""Number of the part that is the head; part n is chunk n - 1."""


@dataclass(slots=True)
class Candidate:
    """A snapshot that is being fetched; whatever it takes in is verified first, and `Refused` otherwise."""

    offer: SnapshotOffer
    path: HeaderPath
    sources: set[PeerId]
    genesis: Genesis
    folder: Path
    """Scratch space for the parts."""
    manifest: StateManifest | None = None
    missing: list[int] = field(default_factory=list)
    """Parts that nobody is being asked for, in the order to ask; the head comes after all chunks."""
    silences: dict[PeerId, int] = field(default_factory=dict)
    headerless: set[PeerId] = field(default_factory=set)
    """Who did not have the header wanted now."""

    @property
    def state_root(self) -> bytes:
        """As the verified header after the snapshot's block names it."""
        assert self.path.found is not None
        return self.path.found.header.prev_state_root

    def take_manifest(self, manifest: StateManifest) -> None:
        """Check it against the state root; from then on the chunks are missing."""
        if (manifest.height, manifest.depth) != (self.offer.height, self.offer.depth):
            raise Refused("bad-manifest", f"the manifest is of height {manifest.height}, depth {manifest.depth}")
        check_manifest(manifest, self.state_root)
        self.manifest = manifest
        self.missing = list(range(1, len(manifest.tops) + 1))

    def take_part(self, part: int, data: bytes) -> None:
        """Check a part and keep it on disk. The head is checked against rows of the chunks: it comes last."""
        assert self.manifest is not None
        if part == HEAD:
            snapshot = self.make_snapshot(data)
            members = find_row(snapshot, ValidatorSet, self.offer.height)
            check_head(decode(SnapshotHead, data), find_row(snapshot, Chain), members, self.genesis)
        else:
            check_chunk(self.manifest, part - 1, data)
            with disk_faults(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / str(part)).write_bytes(data)

    def make_snapshot(self, head: bytes) -> Snapshot:
        """The whole, once all chunks are here."""
        assert self.manifest is not None
        return Snapshot(self.manifest, head, self._read_chunk)

    def _read_chunk(self, index: int) -> bytes:
        with disk_faults(self.folder):
            return (self.folder / str(index + 1)).read_bytes()


def discard_parts(folder: Path) -> None:
    """Forget the parts on disk, once they were restored or are of no use."""
    shutil.rmtree(folder, ignore_errors=True)
