"""A new node joins a long chain: by a snapshot and by blocks, two processes on loopback; and a snapshot by itself."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec

from bench.catch_up import (
    CHAIN_ID,
    START_TIMEOUT_S,
    SYNC_TIMEOUT_S,
    VALIDATORS,
    height_of,
    make_history,
    running_node,
)
from bench.report import Result, summarize
from flockchain.client import wait_until
from flockchain.crypto import sha256
from flockchain.devnet import Devnet, create_devnet, find_free_base_port
from flockchain.errors import Fault
from flockchain.genesis import GenesisAccount, load_genesis, save_genesis
from flockchain.node.config import SyncConfig, format_config, load_config
from flockchain.node.home import Home
from flockchain.node.restore import Snapshot, restore
from flockchain.params import Params
from flockchain.state_chunks import compute_manifest_root
from flockchain.store.chain_store import ChainStore
from flockchain.store.snapshots import SnapshotFolder

CHAIN_AGE_MS = 3_600_000
"""Genesis lies an hour back: a chain that has just begun is not looked for snapshots."""
BLOCKS_ABOVE = 100
"""Between the snapshot and the tip: a joining node takes these as blocks."""


def measure_join(blocks: int, accounts: int) -> list[Result]:
    """Seconds from the start of a new node's process to the tip, by snapshot; blocks a second, by blocks.

    The chain has `blocks` blocks and `accounts` accounts beside the validators'.
    """
    with _old_chain(blocks, accounts) as devnet, httpx.Client(timeout=5.0, trust_env=False) as http:
        begun = time.monotonic()
        _join(http, devnet, 1, blocks, from_snapshot=True)
        by_snapshot_s = time.monotonic() - begun
        begun = time.monotonic()
        _join(http, devnet, 2, blocks, from_snapshot=False)
        by_blocks_s = time.monotonic() - begun
    notes = {"blocks": blocks, "accounts": accounts}
    return [
        summarize("join_by_snapshot_s", "s", [by_snapshot_s], digits=2, **notes),
        summarize("join_by_blocks_per_s", "blocks/s", [blocks / by_blocks_s], **notes),
    ]


def measure_snapshot(accounts: int) -> list[Result]:
    """Seconds to make and to restore a snapshot of a state with so many accounts, and its size."""
    with _old_chain(BLOCKS_ABOVE + 2, accounts, is_started=False) as devnet:
        home = Home(devnet.node_home(0))
        folder = SnapshotFolder(home.snapshots)
        folder.keep_newest(0)
        begun = time.monotonic()
        manifest = folder.make(home.chain)
        make_s = time.monotonic() - begun
        height = manifest.height
        snapshot = Snapshot(manifest, folder.head_bytes(height), lambda index: folder.chunk(height, index))
        store = ChainStore(devnet.home / "restored" / "chain.sqlite")
        begun = time.monotonic()
        restore(store, load_genesis(home.genesis), snapshot, compute_manifest_root(manifest))
        restore_s = time.monotonic() - begun
        store.close()
        size_mib = folder.size_bytes(height) / 2**20
    notes = {"accounts": accounts, "chunks": len(manifest.tops), "size_mib": round(size_mib, 1)}
    return [
        summarize("snapshot_make_s", "s", [make_s], digits=2, **notes),
        summarize("snapshot_restore_s", "s", [restore_s], digits=2, **notes),
    ]


@contextmanager
def _old_chain(blocks: int, accounts: int, *, is_started: bool = True) -> Iterator[Devnet]:
    """A devnet whose node 0 holds the chain and a snapshot a little below its tip, and runs."""
    with tempfile.TemporaryDirectory(prefix="flockchain-bench-") as folder:
        devnet = create_devnet(
            Path(folder) / "devnet",
            validators=VALIDATORS,
            base_port=find_free_base_port(VALIDATORS),
            chain_id=CHAIN_ID,
            params=Params(),
        )
        _change_genesis(devnet, accounts)
        home = Home(devnet.node_home(0))
        make_history(home.path, blocks - BLOCKS_ABOVE)
        SnapshotFolder(home.snapshots).make(home.chain)
        make_history(home.path, blocks)
        if not is_started:
            yield devnet
            return
        with running_node(devnet, 0), httpx.Client(timeout=5.0, trust_env=False) as http:
            if not wait_until(lambda: height_of(http, devnet, 0) == blocks, timeout_s=START_TIMEOUT_S):
                raise Fault(f"the peer did not start with its {blocks} blocks")
            yield devnet


def _change_genesis(devnet: Devnet, accounts: int) -> None:
    """An older one, with more accounts."""
    genesis = load_genesis(Home(devnet.node_home(0)).genesis)
    more = [GenesisAccount(sha256(b"account", i.to_bytes(8, "big"))[:20], 1) for i in range(accounts)]
    changed = msgspec.structs.replace(
        genesis,
        time_ms=time.time_ns() // 1_000_000 - CHAIN_AGE_MS,
        accounts=tuple(sorted((*genesis.accounts, *more), key=lambda row: row.address)),
    )
    for index in range(VALIDATORS):
        save_genesis(changed, Home(devnet.node_home(index)).genesis)


def _join(http: httpx.Client, devnet: Devnet, index: int, blocks: int, *, from_snapshot: bool) -> None:
    home = Home(devnet.node_home(index))
    config = msgspec.structs.replace(load_config(home.config), sync=SyncConfig(from_snapshot=from_snapshot))
    home.config.write_text(format_config(config))
    with running_node(devnet, index):
        if not wait_until(lambda: height_of(http, devnet, index) == blocks, timeout_s=SYNC_TIMEOUT_S):
            raise Fault(f"node {index} did not reach height {blocks} in {SYNC_TIMEOUT_S:.0f} s")
        first: int = http.get(f"{devnet.api_urls()[index]}/v1/status").json()["first_height"]
    if first != (blocks - BLOCKS_ABOVE if from_snapshot else 1):
        raise Fault(f"node {index} holds blocks from {first} on: it joined the other way")
