"""Merkle trees over lists (RFC 6962, section 2.1): transactions, results, validators, adapter chunks."""

from collections.abc import Iterable, Sequence

from flockchain.crypto import sha256

_LEAF = b"\x00"
_NODE = b"\x01"
EMPTY_ROOT = sha256()


def hash_leaf(data: bytes) -> bytes:
    return sha256(_LEAF, data)


def hash_node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE, left, right)


def compute_root(leaves: Iterable[bytes]) -> bytes:
    """Root of the list of leaf data; the empty list has the hash of the empty string."""
    return compute_root_of_hashes([hash_leaf(leaf) for leaf in leaves])


def compute_root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """Root from leaf hashes, level by level: equal to RFC 6962's recursive definition."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        paired = [hash_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) - len(level) % 2 :]
    return level[0]


def compute_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Audit path of leaf `index` (RFC 6962, section 2.1.1), from the leaf upwards."""
    assert 0 <= index < len(hashes)
    path: list[bytes] = []
    level = list(hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        paired = [hash_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) - len(level) % 2 :]
        index //= 2
    return path


def is_proof_valid(root: bytes, leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> bool:
    """Whether `path` proves leaf `index` of `size` to have `leaf_hash` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, rest = leaf_hash, size - 1, list(path)
    while last:
        if index % 2 or index < last:
            if not rest:
                return False
            sibling = rest.pop(0)
            node = hash_node(sibling, node) if index % 2 else hash_node(node, sibling)
        index //= 2
        last //= 2
    return not rest and node == root
