"""Snapshots on disk: `data/snapshots/<height>/` holds `manifest`, `head` and one file per chunk.

A snapshot is written under a `.partial` name, synced, and renamed: it is there whole or not at all. What is kept of a
running chain is made from a read-only view of the chain's file, so that neither the node's loop nor its writer waits.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from flockchain.codec import decode, encode
from flockchain.errors import Fault, Malformed, Refused
from flockchain.files import disk_faults, sync_file, sync_folder
from flockchain.state_chunks import check_manifest, compute_depth, compute_top, find_chunk
from flockchain.store.records import Records, RecordSnapshot, read_head
from flockchain.types.snapshot import MAX_CHUNK_BYTES, MAX_CHUNK_ROWS, KeyValue, SnapshotHead, StateChunk, StateManifest

PASS_BYTES = 64 * 2**20
"""Of the state held in memory at once while chunks are cut: a larger state is read in several passes."""
Progress = Callable[[str, int, int], None]
_PARTIAL = ".partial"
T = TypeVar("T")


def no_progress(what: str, done: int, of: int) -> None:
    """Told to nobody."""


class SnapshotFolder:
    """The snapshots of one home; safe to read while another is being made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def heights(self) -> list[int]:
        """Of whole snapshots, ascending."""
        if not self.path.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.path.iterdir() if entry.name.isdigit())

    def manifest(self, height: int) -> StateManifest:
        """Raises `Refused` when there is no snapshot of this height, `Fault` when it is damaged."""
        return self._decode(StateManifest, self._path(height) / "manifest")

    def head_bytes(self, height: int) -> bytes:
        """Canonical bytes of the `SnapshotHead`."""
        return self._read(self._path(height) / "head")

    def head(self, height: int) -> SnapshotHead:
        return self._decode(SnapshotHead, self._path(height) / "head")

    def chunk(self, height: int, index: int) -> bytes:
        """Canonical bytes of a `StateChunk`."""
        return self._read(self._path(height) / f"{index:05}")

    def size_bytes(self, height: int) -> int:
        return sum(file.stat().st_size for file in self._path(height).iterdir())

    def make(self, chain: Path, progress: Progress = no_progress) -> StateManifest:
        """A snapshot of the newest block in the chain's file, which may be in use; the same again changes nothing."""
        return self.begin(chain).finish(progress)

    def begin(self, chain: Path) -> "SnapshotMaking":
        """As `make`, in two steps: what is the newest block is settled here, the work is done by `finish`."""
        return SnapshotMaking(self, chain)

    def delete(self, height: int) -> None:
        """Forget a snapshot; nothing happens when there is none."""
        with disk_faults(self.path):
            shutil.rmtree(self.path / str(height), ignore_errors=True)

    def keep_newest(self, count: int) -> None:
        """Delete all but the newest `count`, and what an interrupted making left."""
        for height in self.heights()[:-count] if count else self.heights():
            self.delete(height)
        with disk_faults(self.path):
            for leftover in self.path.glob(f"*{_PARTIAL}"):
                shutil.rmtree(leftover, ignore_errors=True)

    def make_from(self, snapshot: RecordSnapshot, head: SnapshotHead, progress: Progress) -> StateManifest:
        """Write the snapshot of this view of the chain's file, whose newest block `head` is."""
        height = head.block.height
        if height in self.heights():
            return self.manifest(height)
        head_bytes = encode(head)
        if len(head_bytes) > MAX_CHUNK_BYTES:
            raise Refused(
                "block-too-large",
                f"block {height} with its results has {len(head_bytes)} bytes, a snapshot takes {MAX_CHUNK_BYTES}: "
                "make one at another height",
            )

        def fill(folder: Path) -> StateManifest:
            manifest = _write_chunks(snapshot, height, folder, progress)
            check_manifest(manifest, snapshot.state_root(height))
            return manifest

        return self._write(height, head_bytes, fill)

    def keep(self, manifest: StateManifest, head: bytes, read_chunk: Callable[[int], bytes]) -> None:
        """Keep a snapshot that came from elsewhere, whose parts were verified."""

        def fill(folder: Path) -> StateManifest:
            for index in range(len(manifest.tops)):
                _write_synced(folder / f"{index:05}", read_chunk(index))
            return manifest

        if manifest.height not in self.heights():
            self._write(manifest.height, head, fill)

    def _write(self, height: int, head: bytes, fill: Callable[[Path], StateManifest]) -> StateManifest:
        """`fill` writes the chunks; a crash leaves none of it, or the whole."""
        partial = self.path / f"{height}{_PARTIAL}"
        with disk_faults(self.path):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _write_synced(partial / "head", head)
            manifest = fill(partial)
            _write_synced(partial / "manifest", encode(manifest))
            sync_folder(partial)
            partial.rename(self._path(height))
            sync_folder(self.path)
        return manifest

    def _path(self, height: int) -> Path:
        return self.path / str(height)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise Refused(
                "no-snapshot", f"{path.parent} holds no {path.name}: `flockchain snapshot list` shows what there is"
            ) from None
        except OSError as error:
            raise Fault(f"{path}: {error.strerror or error}: delete this snapshot, or fix the rights") from error

    def _decode(self, kind: type[T], path: Path) -> T:
        try:
            return decode(kind, self._read(path))
        except Malformed as error:
            raise Fault(f"{path} is damaged ({error}): delete {path.parent} and use another snapshot") from None


class SnapshotMaking:
    """A view of the chain's file at one block, open until `finish`, which may run in another thread."""

    def __init__(self, folder: SnapshotFolder, chain: Path) -> None:
        self._folder = folder
        with ExitStack() as stack:
            records = Records(chain)
            stack.callback(records.close)
            self._snapshot = stack.enter_context(records.snapshot())
            self._head = read_head(self._snapshot)
            self._stack = stack.pop_all()

    def finish(self, progress: Progress = no_progress) -> StateManifest:
        """Cut, write and sync; the snapshot is there whole or not at all. Once only."""
        with self._stack:
            return self._folder.make_from(self._snapshot, self._head, progress)


def _write_chunks(snapshot: RecordSnapshot, height: int, folder: Path, progress: Progress) -> StateManifest:
    """One file per subtree, `PASS_BYTES` of the state at a time; the rows come by key, so each chunk is sorted."""
    state_bytes = snapshot.state_bytes()
    depth = compute_depth(state_bytes)
    count = 1 << depth
    at_once = max(1, count * PASS_BYTES // max(PASS_BYTES, state_bytes))
    tops: list[bytes] = []
    for first in range(0, count, at_once):
        chunks: dict[int, list[KeyValue]] = {index: [] for index in range(first, min(count, first + at_once))}
        for key, _, value in snapshot.state_rows():
            chunk = chunks.get(find_chunk(key, depth))
            if chunk is not None:
                chunk.append((key, value))
        for index, rows in chunks.items():
            data = encode(StateChunk(tuple(rows)))
            if len(data) > MAX_CHUNK_BYTES or len(rows) > MAX_CHUNK_ROWS:
                raise Refused("state-too-large", f"chunk {index} has {len(data)} bytes, at most {MAX_CHUNK_BYTES}")
            _write_synced(folder / f"{index:05}", data)
            tops.append(compute_top(rows, depth))
            progress("chunks", len(tops), count)
    return StateManifest(height, depth, tuple(tops))


def _write_synced(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    sync_file(path)
