"""The state's Merkle tree: a compact sparse tree over sha256(key) -> sha256(value).

A subtree over the keys that share a prefix of bits has the hash

    no key     32 zero bytes
    one key    sha256(0x00 || key hash || value hash), at whatever depth it stands alone
    else       sha256(0x01 || left || right), split by the next bit of the key hash, highest bit first

so the root depends on the contents alone, never on the order of changes (the tree of the Jellyfish Merkle tree paper,
Diem 2021, section 3, without its 16-way pages). Absence is provable: the path of a key ends at an empty subtree or
at the leaf of another key.

Only hashes are kept: a leaf is 64 bytes (key hash, value hash), an inner node the tuple (hash, left, right).
"""

from bisect import bisect_left
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, TypeAlias

from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.types.ids import Hash, OptionalHash

EMPTY_STATE_ROOT = bytes(32)
MAX_DEPTH = 256

Leaf: TypeAlias = bytes
Inner: TypeAlias = "tuple[bytes, Node, Node]"
Node: TypeAlias = "Inner | Leaf | None"

_LEAF = b"\x00"
_INNER = b"\x01"


class StateProof(Canonical, frozen=True):
    """Proof of what a key maps to, or that the state does not hold it."""

    siblings: Annotated[tuple[Hash, ...], Meta(max_length=MAX_DEPTH)]
    """From the leaf upwards; an empty sibling is 32 zero bytes."""
    other_key_hash: OptionalHash = b""
    """Absence only: the leaf that stands where the key's path ends; empty when nothing stands there."""
    other_value_hash: OptionalHash = b""


class StateTree:
    """The tree in memory; about 350 bytes a key."""

    def __init__(self) -> None:
        self._top: Node = None

    @property
    def root(self) -> bytes:
        """State root; `EMPTY_STATE_ROOT` without keys."""
        return hash_of_node(self._top)

    def copy(self) -> "StateTree":
        """The tree as it is now, unmoved by later updates; O(1), for nodes are shared and never changed."""
        twin = StateTree()
        twin._top = self._top
        return twin

    def update(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Set each key to its value, or remove it where the value is None; removing an absent key changes nothing."""
        if changes:
            self._top = _apply(self._top, _to_sorted_leaves(changes), 0)

    def prove(self, key: bytes) -> StateProof:
        """Proof for `is_state_proof_valid`: of the key's value, or of its absence."""
        path, node, siblings = sha256(key).digest(), self._top, list[bytes]()
        while isinstance(node, tuple):
            _, left, right = node
            node, sibling = (right, left) if _bit(path, len(siblings)) else (left, right)
            siblings.append(hash_of_node(sibling))
        siblings.reverse()
        if node is None or node[:32] == path:
            return StateProof(tuple(siblings))
        return StateProof(tuple(siblings), node[:32], node[32:])


def is_state_proof_valid(root: bytes, key: bytes, value: bytes | None, proof: StateProof) -> bool:
    """Whether `proof` shows that under `root` the key has this value (None: that it is absent)."""
    path, depth = sha256(key).digest(), len(proof.siblings)
    if depth > MAX_DEPTH:
        return False
    other = proof.other_key_hash + proof.other_value_hash
    if value is not None:
        if other:
            return False
        node = _hash_leaf(path + sha256(value).digest())
    elif other:
        if len(other) != 64 or other[:32] == path or not _is_prefix_shared(path, other[:32], depth):
            return False
        node = _hash_leaf(other)
    else:
        node = EMPTY_STATE_ROOT
    for level, sibling in zip(range(depth - 1, -1, -1), proof.siblings, strict=True):
        node = _hash_inner(sibling, node) if _bit(path, level) else _hash_inner(node, sibling)
    return node == root


def build_subtree(leaves: list[bytes], depth: int) -> Node:
    """The subtree over sorted leaves (key hash, value hash) that agree in their first `depth` bits."""
    return _build(leaves, 0, len(leaves), depth)


def _to_sorted_leaves(changes: Mapping[bytes, bytes | None]) -> list[bytes]:
    """One leaf for each value; the bare key hash (32 bytes) stands for a removal."""
    leaves = [
        sha256(key).digest() if value is None else sha256(key).digest() + sha256(value).digest()
        for key, value in changes.items()
    ]
    leaves.sort()
    return leaves


def _apply(node: Node, changes: list[bytes], depth: int) -> Node:
    """The subtree at `depth` after sorted `changes`, all of which belong into it."""
    if not changes:
        return node
    if isinstance(node, tuple):
        _, left, right = node
        if len(changes) == 1:  # most nodes of a batch below its first levels: no search, no copies
            if _bit(changes[0], depth):
                return join_nodes(left, _apply(right, changes, depth + 1))
            return join_nodes(_apply(left, changes, depth + 1), right)
        middle = _find_split(changes, 0, len(changes), depth)
        return join_nodes(_apply(left, changes[:middle], depth + 1), _apply(right, changes[middle:], depth + 1))
    leaves = [change for change in changes if len(change) == 64]
    if node is not None:
        at = bisect_left(changes, node[:32])
        if at == len(changes) or changes[at][:32] != node[:32]:
            leaves.insert(bisect_left(leaves, node), node)
    return build_subtree(leaves, depth)


def _build(leaves: list[bytes], start: int, end: int, depth: int) -> Node:
    """A new subtree over the sorted leaves[start:end]."""
    if end - start <= 1:
        return leaves[start] if end > start else None
    middle = _find_split(leaves, start, end, depth)
    return join_nodes(_build(leaves, start, middle, depth + 1), _build(leaves, middle, end, depth + 1))


def _find_split(leaves: list[bytes], start: int, end: int, depth: int) -> int:
    """Index of the first of leaves[start:end] whose bit `depth` is 1; they agree in all bits before it."""
    byte, mask = depth >> 3, 128 >> (depth & 7)
    while start < end:
        middle = (start + end) >> 1
        if leaves[middle][byte] & mask:
            end = middle
        else:
            start = middle + 1
    return start


def join_nodes(left: Node, right: Node) -> Node:
    """Two sibling subtrees as one; a lone leaf rises."""
    if left is None and not isinstance(right, tuple):
        return right
    if right is None and not isinstance(left, tuple):
        return left
    return _hash_inner(hash_of_node(left), hash_of_node(right)), left, right


def hash_of_node(node: Node) -> bytes:
    """Hash of a subtree, as it stands in its parent."""
    if isinstance(node, tuple):
        return node[0]
    return EMPTY_STATE_ROOT if node is None else _hash_leaf(node)


def _hash_leaf(leaf: bytes) -> bytes:
    return sha256(_LEAF + leaf).digest()


def _hash_inner(left: bytes, right: bytes) -> bytes:
    return sha256(_INNER + left + right).digest()


def _bit(path: bytes, depth: int) -> int:
    return path[depth >> 3] >> (7 - (depth & 7)) & 1


def _is_prefix_shared(a: bytes, b: bytes, bits: int) -> bool:
    shift = 256 - bits
    return int.from_bytes(a, "big") >> shift == int.from_bytes(b, "big") >> shift
