"""A file on its way in: chunk by chunk with proofs from peers, or byte range by byte range from its owner.

    <root>.part      the file, with holes where chunks are missing
    <root>.hashes    32 bytes a chunk: its leaf hash once proven, zeros before
    <root>.upload    what its owner has uploaded so far, from byte 0 on

Chunks are not synced one by one. After a restart each is hashed again, and one that the disk lost is missing once more.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from flockchain.chunks import CHUNK_BYTES, count_chunks
from flockchain.crypto import ZERO_HASH
from flockchain.errors import Refused
from flockchain.merkle import hash_leaf, is_proof_valid


class PartialBlob:
    """Chunks proven so far of one file."""

    def __init__(self, folder: Path, root: bytes, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.data_path = folder / f"{root.hex()}.part"
        self.hashes_path = folder / f"{root.hex()}.hashes"
        self._root = root
        self._hashes = self._recover()

    def missing(self) -> list[int]:
        return [index for index, leaf_hash in enumerate(self._hashes) if leaf_hash == ZERO_HASH]

    @property
    def is_complete(self) -> bool:
        return ZERO_HASH not in self._hashes

    def put_chunk(self, index: int, data: bytes, proof: Iterable[bytes]) -> None:
        """Write a chunk that `proof` shows to be chunk `index`; raises `Refused` otherwise."""
        count = len(self._hashes)
        if not 0 <= index < count:
            raise Refused("bad-chunk", f"chunk {index} of a file of {count} chunks")
        expected_bytes = min(CHUNK_BYTES, self.size_bytes - index * CHUNK_BYTES)
        if len(data) != expected_bytes:
            raise Refused("bad-chunk", f"chunk {index} holds {expected_bytes} bytes, not {len(data)}")
        leaf_hash = hash_leaf(data)
        if not is_proof_valid(self._root, leaf_hash, index, count, tuple(proof)):
            raise Refused("bad-chunk", f"chunk {index} does not belong to {self._root.hex()}")
        _write_at(self.data_path, index * CHUNK_BYTES, data)
        _write_at(self.hashes_path, index * len(leaf_hash), leaf_hash)
        self._hashes[index] = leaf_hash

    def delete(self) -> None:
        self.data_path.unlink(missing_ok=True)
        self.hashes_path.unlink(missing_ok=True)

    def _recover(self) -> list[bytes]:
        """Leaf hashes of the chunks that an earlier process wrote and the disk still holds."""
        count = count_chunks(self.size_bytes)
        if not self.data_path.exists() or not self.hashes_path.exists():
            return [ZERO_HASH] * count
        noted = self.hashes_path.read_bytes().ljust(count * 32, b"\x00")
        hashes = [noted[i * 32 : i * 32 + 32] for i in range(count)]
        with self.data_path.open("rb") as file:
            for index, leaf_hash in enumerate(hashes):
                if leaf_hash != ZERO_HASH:
                    file.seek(index * CHUNK_BYTES)
                    if hash_leaf(file.read(CHUNK_BYTES)) != leaf_hash:
                        hashes[index] = ZERO_HASH
        return hashes


class Upload:
    """Bytes received so far of one file, from its beginning."""

    def __init__(self, folder: Path, root: bytes, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.path = folder / f"{root.hex()}.upload"

    @property
    def received_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def is_complete(self) -> bool:
        return self.received_bytes == self.size_bytes

    def write_range(self, offset: int, data: bytes) -> int:
        """Append `data`; returns the number of bytes now held, which is where to go on.

        Bytes held already are skipped where they are equal. Where they differ the newer ones win, so that
        nobody's garbage at the front stays in the owner's way.
        """
        received_bytes = self.received_bytes
        if offset > received_bytes:
            raise Refused("range-gap", f"range begins at byte {offset}, the upload continues at byte {received_bytes}")
        if offset + len(data) > self.size_bytes:
            raise Refused("range-too-long", f"range ends at {offset + len(data)}, the file has {self.size_bytes} bytes")
        overlap = data[: received_bytes - offset]
        if overlap and self._read(offset, len(overlap)) != overlap:
            os.truncate(self.path, offset)
            received_bytes = offset
        rest = data[received_bytes - offset :]
        if rest or not self.path.exists():
            _write_at(self.path, received_bytes, rest)
        return self.received_bytes

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)

    def _read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def _write_at(path: Path, offset: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while data:
            written_bytes = os.pwrite(descriptor, data, offset)
            offset, data = offset + written_bytes, data[written_bytes:]
    finally:
        os.close(descriptor)
