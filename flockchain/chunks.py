"""Files named by the Merkle root over their chunks, so that any piece from any peer can be checked by itself."""

from pathlib import Path

from flockchain.merkle import compute_root_of_hashes, hash_leaf

CHUNK_BYTES = 262_144


def compute_chunk_hashes(path: Path) -> list[bytes]:
    """Leaf hash of each 256 KiB chunk of the file, read one at a time."""
    hashes: list[bytes] = []
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hashes.append(hash_leaf(chunk))
    return hashes


def compute_file_root(path: Path) -> tuple[bytes, int]:
    """(root, size in bytes) of a file: the name of an adapter on the chain."""
    return compute_root_of_hashes(compute_chunk_hashes(path)), path.stat().st_size


def compute_bytes_root(data: bytes) -> bytes:
    """Root of bytes held in memory; equal to `compute_file_root` of a file with these bytes."""
    return compute_root_of_hashes([hash_leaf(data[i : i + CHUNK_BYTES]) for i in range(0, len(data), CHUNK_BYTES)])


def count_chunks(size_bytes: int) -> int:
    """Number of chunks of a file of this size, rounded up."""
    return -(-size_bytes // CHUNK_BYTES)
