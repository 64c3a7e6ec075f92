"""Adapter files on disk, named by the Merkle root over their chunks: `data/blobs/<root>`.

A file appears under its name whole and synced, or not at all; what is half received survives a restart
(`partial_blob.py`). Only roots that were announced by `expect` can be written, and all files together, with what is
reserved for those on their way, stay below a limit. Safe to call from several threads.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import RLock

from flockchain.chunks import CHUNK_BYTES, compute_chunk_hashes, compute_file_root
from flockchain.errors import Refused
from flockchain.files import disk_faults, sync_file, sync_folder
from flockchain.merkle import compute_proof
from flockchain.store.partial_blob import PartialBlob, Upload

DEFAULT_LIMIT_BYTES = 64 * 2**30
_PARTIAL_SUFFIXES = (".part", ".upload", ".hashes")
_ASIDE_SUFFIX = ".checking"
_PROVEN_FILES = 64


class BlobStore:
    """Content-addressed files below `limit_bytes` in all."""

    def __init__(self, folder: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = RLock()
        self._expected: dict[bytes, int] = {}
        self._partials: dict[bytes, PartialBlob] = {}
        self._uploads: dict[bytes, Upload] = {}
        self._set_aside_count = 0
        self._hashes = lru_cache(_PROVEN_FILES)(compute_chunk_hashes)
        with disk_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(f"*{_ASIDE_SUFFIX}"):
                leftover.unlink()
            self._sizes = {
                bytes.fromhex(path.name): path.stat().st_size for path in folder.iterdir() if _is_blob_name(path.name)
            }

    # What is here

    def has(self, root: bytes) -> bool:
        """Whether the whole file is here."""
        return root in self._sizes

    def size(self, root: bytes) -> int | None:
        """Bytes of a whole file; None when it is not here."""
        return self._sizes.get(root)

    def path(self, root: bytes) -> Path:
        """Where the whole file lies; raises `Refused` when it is not here. Not to be written to."""
        if not self.has(root):
            raise Refused("no-blob", f"the bytes of {root.hex()} are not on this node")
        return self._path(root)

    def roots(self) -> list[bytes]:
        """Of all whole files, sorted."""
        return sorted(self._sizes)

    @property
    def used_bytes(self) -> int:
        """Of whole files, and reserved for those on their way."""
        reserved = {root: self._expected[root] for root in (*self._partials, *self._uploads)}
        return sum(self._sizes.values()) + sum(reserved.values())

    def chunk(self, root: bytes, index: int) -> tuple[bytes, Sequence[bytes]]:
        """A chunk of a whole file with its Merkle proof; raises `Refused` when it is not here."""
        path = self.path(root)
        with disk_faults(self._folder):
            hashes = self._hashes(path)
            if not 0 <= index < len(hashes):
                raise Refused("no-chunk", f"{root.hex()} has {len(hashes)} chunks, none is number {index}")
            with path.open("rb") as file:
                file.seek(index * CHUNK_BYTES)
                return file.read(CHUNK_BYTES), compute_proof(hashes, index)

    # Bringing files in

    def expect(self, root: bytes, size_bytes: int) -> None:
        """Allow `root` to be written, because the chain recorded it; raises `Refused` when it cannot fit."""
        if not 0 < size_bytes <= self._limit_bytes:
            raise Refused(
                "blob-too-large", f"a file of {size_bytes} bytes, this node keeps 1 to {self._limit_bytes} in all"
            )
        with self._lock:
            self._expected[root] = size_bytes

    def missing(self, root: bytes) -> Sequence[int]:
        """Chunks of an expected file that are not here yet."""
        with self._lock, disk_faults(self._folder):
            if self.has(root):
                return []
            partial = self._partial(root)
            if partial.is_complete:  # an earlier process ended between its last chunk and its name
                self._take_in(root, partial.data_path)
            return partial.missing()

    def put_chunk(self, root: bytes, index: int, data: bytes, proof: Iterable[bytes]) -> None:
        """Keep a chunk after checking it against the root; raises `Refused`."""
        with self._lock, disk_faults(self._folder):
            if self.has(root):
                return
            partial = self._partial(root)
            partial.put_chunk(index, data, proof)
            if partial.is_complete:
                self._take_in(root, partial.data_path)

    def received_bytes(self, root: bytes) -> int:
        """How much of an expected file its owner has uploaded: where `write_range` goes on."""
        with self._lock, disk_faults(self._folder):
            return self._sizes[root] if self.has(root) else self._upload(root).received_bytes

    def write_range(self, root: bytes, offset: int, data: bytes) -> int:
        """Bytes from `offset` on, without a proof; returns how many are held from the beginning.

        With the last byte the whole file is checked; when it has another root, `Refused` and begin again.
        """
        with disk_faults(self._folder):
            with self._lock:
                if self.has(root):
                    return self._sizes[root]
                upload = self._upload(root)
                received_bytes = upload.write_range(offset, data)
                if not upload.is_complete:
                    return received_bytes
                complete = self._set_aside(root, upload.path)
            self._check_and_take_in(root, complete)
            return received_bytes

    def add_file(self, path: Path) -> tuple[bytes, int]:
        """Copy a local file in; returns (root, size in bytes)."""
        with self._lock, disk_faults(self._folder):
            root, size_bytes = compute_file_root(path)
            if not self.has(root):
                self.expect(root, size_bytes)
                self._check_space(root, size_bytes)
                copy = self._path(root).with_suffix(".upload")
                shutil.copyfile(path, copy)
                self._take_in(root, copy)
            return root, size_bytes

    def delete(self, root: bytes) -> None:
        """Forget a file, whole or partial; nothing happens when there is none."""
        with self._lock, disk_faults(self._folder):
            self._expected.pop(root, None)
            self._discard_partials(root)
            if self._sizes.pop(root, None) is not None:
                self._path(root).unlink()
                sync_folder(self._folder)

    def _path(self, root: bytes) -> Path:
        return self._folder / root.hex()

    def _partial(self, root: bytes) -> PartialBlob:
        if root not in self._partials:
            size_bytes = self._reserve(root)
            self._partials[root] = PartialBlob(self._folder, root, size_bytes)
        return self._partials[root]

    def _upload(self, root: bytes) -> Upload:
        if root not in self._uploads:
            size_bytes = self._reserve(root)
            self._uploads[root] = Upload(self._folder, root, size_bytes)
        return self._uploads[root]

    def _reserve(self, root: bytes) -> int:
        size_bytes = self._expected.get(root)
        if size_bytes is None:
            raise Refused("unexpected-blob", f"no transaction has recorded {root.hex()} for this node to keep")
        self._check_space(root, size_bytes)
        return size_bytes

    def _check_space(self, root: bytes, size_bytes: int) -> None:
        used_bytes = self.used_bytes
        is_reserved = root in self._partials or root in self._uploads
        if not is_reserved and used_bytes + size_bytes > self._limit_bytes:
            raise Refused(
                "blobs-full",
                f"{size_bytes} bytes do not fit: {used_bytes} of {self._limit_bytes} bytes for adapters are in use",
            )

    def _set_aside(self, root: bytes, upload: Path) -> Path:
        """Give a complete upload a name under which nobody changes it."""
        self._set_aside_count += 1
        aside = self._path(root).with_suffix(f".{self._set_aside_count}{_ASIDE_SUFFIX}")
        os.replace(upload, aside)
        return aside

    def _check_and_take_in(self, root: bytes, complete: Path) -> None:
        """Hash and sync a whole file, which may take seconds, without holding anyone up."""
        found, _ = compute_file_root(complete)
        sync_file(complete)
        with self._lock:
            if found != root:
                complete.unlink()
                raise Refused("wrong-root", f"the uploaded bytes have root {found.hex()}, not {root.hex()}")
            self._take_in(root, complete)

    def _take_in(self, root: bytes, source: Path) -> None:
        """Give a complete, checked file its name."""
        sync_file(source)
        os.replace(source, self._path(root))
        self._sizes[root] = self._path(root).stat().st_size
        self._discard_partials(root)
        sync_folder(self._folder)

    def _discard_partials(self, root: bytes) -> None:
        self._partials.pop(root, None)
        self._uploads.pop(root, None)
        for suffix in _PARTIAL_SUFFIXES:
            self._path(root).with_suffix(suffix).unlink(missing_ok=True)


def _is_blob_name(name: str) -> bool:
    return len(name) == 64 and all(letter in "0123456789abcdef" for letter in name)
