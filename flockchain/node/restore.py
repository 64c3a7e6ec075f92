"""Fill an empty chain file from a snapshot: nothing of it is believed but what follows from one state root.

The manifest must lead to the root, every chunk to the manifest; the block after which the state was taken is named by
a row of that state, its certificate is checked against the validators in it, and its results against the root that
the state holds of them. At last the store builds the state tree of all rows again, and that root decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from flockchain.codec import decode, encode
from flockchain.crypto import sha256
from flockchain.errors import Refused
from flockchain.execution.block import compute_results_root
from flockchain.execution.commits import check_commit
from flockchain.execution.genesis import build_state, load_state
from flockchain.execution.validity import compute_last_commit_hash
from flockchain.genesis import Genesis
from flockchain.merkle import compute_root
from flockchain.state_chunks import check_chunk, check_manifest, find_chunk
from flockchain.store.chain_store import ChainStore
from flockchain.types.rows import Chain, Row, ValidatorSet, compute_key
from flockchain.types.snapshot import KeyValue, SnapshotHead, StateManifest
from flockchain.types.tx import Receipt, TxResult

Progress = Callable[[str, int, int], None]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a snapshot's parts come from; none of them is trusted."""

    manifest: StateManifest
    head: bytes
    read_chunk: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class _HeadOutcome:
    """What the snapshot's block left, as the store wants it; the rows come from the chunks."""

    results: Sequence[TxResult]
    receipts: Sequence[Receipt]
    write_set: Mapping[bytes, Row | None]
    results_root: bytes
    state_root: bytes


def restore(
    store: ChainStore,
    genesis: Genesis,
    snapshot: Snapshot,
    state_root: bytes,
    progress: Progress = lambda what, done, of: None,
) -> None:
    """Put the snapshot into a store without blocks, in one transaction; raises `Refused`, then nothing changed."""
    manifest = snapshot.manifest
    check_manifest(manifest, state_root)
    head = decode(SnapshotHead, snapshot.head)
    chain = find_row(snapshot, Chain)
    check_head(head, chain, find_row(snapshot, ValidatorSet, manifest.height), genesis)
    outcome = _HeadOutcome(head.results, head.receipts, {}, chain.results_root, state_root)
    _, tree = load_state(build_state(genesis).rows())
    store.restore(encode(genesis), tree.root, head, outcome, _iterate_rows(snapshot, progress))


def check_head(head: SnapshotHead, chain: Chain, members: ValidatorSet, genesis: Genesis) -> None:
    """Refuse (``bad-head``, ``bad-commit``) a block, certificate or results that are not those of the state."""
    if (chain.chain_id, chain.genesis_hash) != (genesis.chain_id, genesis.hash()):
        raise Refused(
            "wrong-chain",
            f"the snapshot is of chain {chain.chain_id!r} with genesis {chain.genesis_hash.hex()[:16]}..., this home's "
            f"genesis.json is {genesis.hash().hex()[:16]}...: restore it into a home of its own network",
        )
    block = head.block
    facts = {
        "block id": (block.block_id(), chain.last_block_id),
        "transactions": (compute_root(block.txs), block.header.txs_root),
        "last commit": (
            compute_last_commit_hash(block.last_commit, block.late_precommits),
            block.header.last_commit_hash,
        ),
        "results": (compute_results_root(head.results, head.receipts), chain.results_root),
        "result hashes": (b"".join(result.hash for result in head.results), b"".join(map(sha256, block.txs))),
    }
    for name, (found, expected) in facts.items():
        if found != expected:
            raise Refused("bad-head", f"the {name} of the snapshot's block {block.height} are not those of its state")
    check_commit(head.commit, members.members, block.height, block.block_id(), chain.genesis_hash)


def find_row(snapshot: Snapshot, kind: type[R], *key: int) -> R:
    """One row, from its checked chunk."""
    name = compute_key(kind, *key)
    index = find_chunk(name, snapshot.manifest.depth)
    value = dict(check_chunk(snapshot.manifest, index, snapshot.read_chunk(index))).get(name)
    if value is None:
        raise Refused("bad-manifest", f"the snapshot's state has no row {kind.__name__} {key}: it is of another height")
    return decode(kind, value)


def _iterate_rows(snapshot: Snapshot, progress: Progress) -> Iterator[KeyValue]:
    count = len(snapshot.manifest.tops)
    for index in range(count):
        yield from check_chunk(snapshot.manifest, index, snapshot.read_chunk(index))
        progress("chunks", index + 1, count)
