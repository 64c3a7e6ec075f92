"""A snapshot restores to the same root; a part that was changed is refused and leaves the new home empty."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from flockchain.codec import decode, encode
from flockchain.errors import Fault, Refused
from flockchain.node.ledger import Ledger as NodeLedger
from flockchain.node.restore import Snapshot, restore
from flockchain.state_chunks import CHUNK_BYTES
from flockchain.store import snapshots as snapshots_module
from flockchain.store.chain_store import ChainStore
from flockchain.store.reader import Reader
from flockchain.store.snapshots import SnapshotFolder
from flockchain.types.chain import Commit
from flockchain.types.snapshot import SnapshotHead, StateChunk
from tests.support.stored_chain import StoredChain


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[StoredChain]:
    chain = StoredChain(tmp_path / "home")
    chain.grow(6, txs=3)
    yield chain
    chain.store.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[ChainStore]:
    store = ChainStore(tmp_path / "new" / "chain.sqlite")
    yield store
    store.close()


def open_snapshot(folder: SnapshotFolder, height: int) -> Snapshot:
    return Snapshot(folder.manifest(height), folder.head_bytes(height), lambda index: folder.chunk(height, index))


def test_a_snapshot_restores_to_the_same_root_and_the_chain_goes_on(chain: StoredChain, target: ChainStore) -> None:
    manifest = chain.snapshots.make(chain.home.chain)
    assert (manifest.height, chain.snapshots.heights()) == (6, [6])
    restore(target, chain.genesis, open_snapshot(chain.snapshots, 6), chain.roots[6])
    assert (target.height, target.first_height, target.state_root()) == (6, 6, chain.roots[6])
    ledger = NodeLedger(target)
    assert ledger.state.root == chain.state.root
    assert ledger.last_block == chain.blocks[-1]
    assert target.light_block(6) == chain.store.light_block(6)
    chain.grow(1)
    ledger.check(chain.blocks[-1], ())
    ledger.apply(chain.blocks[-1], chain.commits[-1])
    assert target.state_root() == chain.roots[7]


def test_results_and_receipts_of_the_snapshots_block_come_with_it(chain: StoredChain, target: ChainStore) -> None:
    chain.snapshots.make(chain.home.chain)
    restore(target, chain.genesis, open_snapshot(chain.snapshots, 6), chain.roots[6])
    before, after = Reader(chain.home.chain), Reader(target._path)
    with before.snapshot() as ours, after.snapshot() as theirs:
        assert theirs.block(6) == ours.block(6)
        for result in chain.outcomes[-1].results:
            assert theirs.tx(result.hash) == ours.tx(result.hash)
        with pytest.raises(Refused, match="block 5 is pruned: this node holds blocks 6 to 6"):
            theirs.check_not_pruned(5)
    before.close()
    after.close()


def test_a_large_state_is_cut_into_chunks_in_several_passes(
    chain: StoredChain, target: ChainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With chunks and passes a thousand times smaller than real ones."""
    monkeypatch.setattr("flockchain.state_chunks.CHUNK_BYTES", CHUNK_BYTES // 1024)
    monkeypatch.setattr(snapshots_module, "PASS_BYTES", 2_000)
    told: list[tuple[str, int, int]] = []
    manifest = chain.snapshots.make(chain.home.chain, lambda *step: told.append(step))
    assert manifest.depth >= 3
    assert told[-1] == ("chunks", len(manifest.tops), len(manifest.tops))
    restore(target, chain.genesis, open_snapshot(chain.snapshots, 6), chain.roots[6])
    assert target.state_root() == chain.roots[6]


@pytest.mark.parametrize("part", ["root", "chunk", "commit", "results", "block", "genesis"])
def test_a_wrong_part_is_refused_and_nothing_is_restored(chain: StoredChain, target: ChainStore, part: str) -> None:
    chain.snapshots.make(chain.home.chain)
    snapshot, root, genesis = open_snapshot(chain.snapshots, 6), chain.roots[6], chain.genesis
    head = decode(SnapshotHead, snapshot.head)
    replace = msgspec.structs.replace
    if part == "root":
        root = chain.roots[5]
    elif part == "chunk":
        rows = decode(StateChunk, chain.snapshots.chunk(6, 0)).rows
        forged = encode(StateChunk(rows[:-1]))
        snapshot = Snapshot(snapshot.manifest, snapshot.head, lambda _: forged)
    elif part == "commit":
        thin = Commit(6, 0, head.commit.block_id, head.commit.signatures[:1])
        snapshot = Snapshot(snapshot.manifest, encode(replace(head, commit=thin)), snapshot.read_chunk)
    elif part == "results":
        results = (replace(head.results[0], fee_uflk=1), *head.results[1:])
        snapshot = Snapshot(snapshot.manifest, encode(replace(head, results=results)), snapshot.read_chunk)
    elif part == "block":
        block = replace(head.block, txs=head.block.txs[1:])
        snapshot = Snapshot(snapshot.manifest, encode(replace(head, block=block)), snapshot.read_chunk)
    else:
        genesis = replace(genesis, time_ms=genesis.time_ms + 1)
    with pytest.raises(Refused) as refusal:
        restore(target, genesis, snapshot, root)
    expected = {"root": "bad-manifest", "chunk": "bad-chunk", "commit": "bad-commit", "genesis": "wrong-chain"}
    assert refusal.value.code == expected.get(part, "bad-head")
    assert target.height == 0
    assert target.genesis_bytes is None


def test_a_snapshot_of_the_same_height_is_made_once(chain: StoredChain) -> None:
    first = chain.snapshots.make(chain.home.chain)
    stamp = (chain.snapshots.path / "6" / "manifest").stat().st_mtime_ns
    assert chain.snapshots.make(chain.home.chain) == first
    assert (chain.snapshots.path / "6" / "manifest").stat().st_mtime_ns == stamp


def test_only_the_newest_are_kept_and_leftovers_go(chain: StoredChain) -> None:
    for _ in range(3):
        chain.grow(1)
        chain.snapshots.make(chain.home.chain)
    (chain.snapshots.path / "99.partial").mkdir()
    chain.snapshots.keep_newest(2)
    assert chain.snapshots.heights() == [8, 9]
    assert sorted(path.name for path in chain.snapshots.path.iterdir()) == ["8", "9"]


def test_a_missing_snapshot_and_a_damaged_one_are_said(chain: StoredChain) -> None:
    with pytest.raises(Refused, match="holds no manifest"):
        chain.snapshots.manifest(5)
    chain.snapshots.make(chain.home.chain)
    (chain.snapshots.path / "6" / "manifest").write_bytes(b"damaged")
    with pytest.raises(Fault, match="use another snapshot"):
        chain.snapshots.manifest(6)


def test_a_chain_without_blocks_has_nothing_to_take(tmp_path: Path) -> None:
    empty = StoredChain(tmp_path / "empty")
    with pytest.raises(Refused, match="after a decided block"):
        empty.snapshots.make(empty.home.chain)
    empty.store.close()
