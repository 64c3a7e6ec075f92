"""A state cut into chunks: the manifest leads to the state root, and no other rows pass for a chunk."""

from hashlib import sha256

import msgspec
import pytest

from flockchain.codec import encode
from flockchain.errors import Refused
from flockchain.state_chunks import (
    CHUNK_BYTES,
    check_chunk,
    check_manifest,
    compute_depth,
    compute_manifest_root,
    compute_top,
    find_chunk,
)
from flockchain.state_tree import StateTree
from flockchain.types.snapshot import MAX_CHUNK_BYTES, MAX_DEPTH, KeyValue, StateChunk, StateManifest

ROWS = tuple((b"\x01key%d" % i, b"value%d" % i) for i in range(200))


def compute_root(rows: tuple[KeyValue, ...]) -> bytes:
    tree = StateTree()
    tree.update(dict(rows))
    return tree.root


def cut(rows: tuple[KeyValue, ...], depth: int) -> tuple[StateManifest, list[bytes]]:
    chunks: list[list[KeyValue]] = [[] for _ in range(1 << depth)]
    for row in sorted(rows):
        chunks[find_chunk(row[0], depth)].append(row)
    tops = tuple(compute_top(chunk, depth) for chunk in chunks)
    return StateManifest(7, depth, tops), [encode(StateChunk(tuple(chunk))) for chunk in chunks]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 200])
@pytest.mark.parametrize("depth", [0, 1, 3, 9])
def test_the_tops_lead_to_the_state_root_and_the_chunks_to_the_tops(count: int, depth: int) -> None:
    """Also where most chunks are empty or hold one row, whose leaf rises in the tree."""
    rows = ROWS[:count]
    manifest, chunks = cut(rows, depth)
    check_manifest(manifest, compute_root(rows))
    found = [row for index, data in enumerate(chunks) for row in check_chunk(manifest, index, data)]
    assert sorted(found) == sorted(rows)


def test_a_manifest_of_another_state_is_refused() -> None:
    manifest, _ = cut(ROWS, 3)
    with pytest.raises(Refused, match="leads to the state root"):
        check_manifest(manifest, compute_root(ROWS[1:]))


def test_a_manifest_needs_a_top_for_every_chunk() -> None:
    manifest, _ = cut(ROWS, 3)
    with pytest.raises(Refused, match="7 subtrees at depth 3, expected 8"):
        compute_manifest_root(msgspec.structs.replace(manifest, tops=manifest.tops[1:]))
    with pytest.raises(Refused, match="0, 32 or 64 bytes"):
        compute_manifest_root(msgspec.structs.replace(manifest, tops=(b"x", *manifest.tops[1:])))


def test_a_changed_missing_foreign_or_doubled_row_is_refused() -> None:
    manifest, _ = cut(ROWS, 2)
    rows = sorted(row for row in ROWS if find_chunk(row[0], 2) == 1)
    foreign = next(row for row in ROWS if find_chunk(row[0], 2) == 2)
    wrong = {
        "do not hash": [(rows[0][0], b"other"), *rows[1:]],
        "rows of chunk 1 do not hash": rows[1:],
        "row of another chunk": sorted([*rows, foreign]),
        "not sorted": [rows[0], *rows],
    }
    for reason, changed in wrong.items():
        with pytest.raises(Refused, match=reason):
            check_chunk(manifest, 1, encode(StateChunk(tuple(changed))))
    with pytest.raises(Refused, match="bytes, at most"):
        check_chunk(manifest, 1, bytes(MAX_CHUNK_BYTES + 1))


def test_a_lone_leaf_that_is_shown_by_its_hash_does_not_make_honest_chunks_wrong() -> None:
    """A manifest may name the top of a one-row subtree by hash where its sibling is not empty: the same root."""
    rows = tuple(row for row in ROWS if find_chunk(row[0], 3) == 0)[:1] + tuple(
        row for row in ROWS if find_chunk(row[0], 3) == 1
    )
    manifest, chunks = cut(rows, 3)
    assert len(manifest.tops[0]) == 64
    shown = sha256(b"\x00" + manifest.tops[0]).digest()
    other = msgspec.structs.replace(manifest, tops=(shown, *manifest.tops[1:]))
    check_manifest(other, compute_root(rows))
    assert check_chunk(other, 0, chunks[0]) == check_chunk(manifest, 0, chunks[0])


def test_chunks_are_as_many_as_the_state_needs() -> None:
    assert [compute_depth(size) for size in (0, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES)] == [0, 0, 1, 2]
    assert compute_depth(2**60) == MAX_DEPTH
