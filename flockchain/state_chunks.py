"""The state in chunks, each of which is checked by itself against a state root.

A chunk is a subtree of the state tree (state_tree.py): all rows whose key hash begins with the same `depth` bits. The
manifest holds the tops of all 2**depth subtrees. Joined pair by pair they give the state root, so the manifest is
checked against a header before the first chunk is asked for, and every chunk against its top when it arrives: who
sent a wrong one is known at once (the idea of Ethereum's snap protocol, on this tree).
"""

from collections.abc import Sequence
from itertools import pairwise

from flockchain.codec import decode
from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.state_tree import Node, build_subtree, hash_of_node, join_nodes
from flockchain.types.snapshot import MAX_CHUNK_BYTES, MAX_DEPTH, KeyValue, StateChunk, StateManifest

CHUNK_BYTES = 2**19
"""Aimed at: keys and values of one chunk, on average."""


def compute_depth(state_bytes: int) -> int:
    """Bits of the key hash by which a state of so many bytes (keys and values) is cut."""
    chunks = -(-state_bytes // CHUNK_BYTES)
    return min(MAX_DEPTH, max(0, chunks - 1).bit_length())


def find_chunk(key: bytes, depth: int) -> int:
    """Index of the chunk that holds `key`."""
    return int.from_bytes(sha256(key)[:2], "big") >> (16 - depth)


def compute_top(rows: Sequence[KeyValue], depth: int) -> bytes:
    """Top of the subtree over these rows, which share `depth` bits of their key hashes."""
    return _to_top(_build(rows, depth))


def compute_manifest_root(manifest: StateManifest) -> bytes:
    """State root to which the tops lead; raises `Refused` for a manifest of the wrong size."""
    if len(manifest.tops) != 1 << manifest.depth:
        raise Refused(
            "bad-manifest", f"{len(manifest.tops)} subtrees at depth {manifest.depth}, expected {1 << manifest.depth}"
        )
    level = [_to_node(top) for top in manifest.tops]
    while len(level) > 1:
        level = [join_nodes(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return hash_of_node(level[0])


def check_manifest(manifest: StateManifest, state_root: bytes) -> None:
    """Refuse (``bad-manifest``) unless the manifest is one of the state with this root."""
    found = compute_manifest_root(manifest)
    if found != state_root:
        raise Refused(
            "bad-manifest",
            f"the manifest of height {manifest.height} leads to the state root {found.hex()}, the chain has "
            f"{state_root.hex()}",
        )


def check_chunk(manifest: StateManifest, index: int, data: bytes) -> tuple[KeyValue, ...]:
    """The rows of chunk `index`, whose bytes are `data`; refuses (``bad-chunk``) what the manifest does not lead to."""
    if len(data) > MAX_CHUNK_BYTES:
        raise Refused("bad-chunk", f"chunk {index} has {len(data)} bytes, at most {MAX_CHUNK_BYTES} are possible")
    rows = decode(StateChunk, data).rows
    keys = [key for key, _ in rows]
    if any(first >= second for first, second in pairwise(keys)):
        raise Refused("bad-chunk", f"the rows of chunk {index} are not sorted by key, or one stands twice")
    if any(find_chunk(key, manifest.depth) != index for key in keys):
        raise Refused("bad-chunk", f"chunk {index} holds a row of another chunk")
    # By hash: a manifest may show a lone leaf beside another subtree by its hash alone.
    if hash_of_node(_build(rows, manifest.depth)) != hash_of_node(_to_node(manifest.tops[index])):
        raise Refused("bad-chunk", f"the {len(rows)} rows of chunk {index} do not hash to what the manifest names")
    return rows


def _build(rows: Sequence[KeyValue], depth: int) -> Node:
    return build_subtree(sorted(sha256(key) + sha256(value) for key, value in rows), depth)


def _to_top(node: Node) -> bytes:
    if node is None:
        return b""
    return node[0] if isinstance(node, tuple) else node


def _to_node(top: bytes) -> Node:
    """An inner node whose children are not known; only its hash is looked at."""
    if len(top) not in (0, 32, 64):
        raise Refused("bad-manifest", f"the top of a subtree has 0, 32 or 64 bytes, not {len(top)}")
    if not top:
        return None
    return top if len(top) == 64 else (top, None, None)
