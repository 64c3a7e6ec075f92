"""Real processes: a node without a chain joins one that has it, by its snapshot; a running node keeps snapshots."""

import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from flockchain.cli.setback import set_back
from flockchain.client import Client
from flockchain.errors import Refused
from flockchain.genesis import save_genesis
from flockchain.node.config import (
    ApiConfig,
    Config,
    P2pConfig,
    StorageConfig,
    SyncConfig,
    ValidatorConfig,
    format_config,
    load_config,
)
from flockchain.node.home import Home, create_home
from flockchain.node.run import UPGRADE_EXIT_CODE
from flockchain.store.snapshots import SnapshotFolder
from flockchain.txs import transfer
from flockchain.verify.reexecution import reexecute
from tests.support.ledger import GENESIS_TIME_MS, make_address, make_key
from tests.support.processes import NodeProcess, Processes, find_free_ports, wait_until
from tests.support.stored_chain import StoredChain

SNAPSHOT, TIP = 25, 30
PROGRAM = """
import sys
from pathlib import Path
from flockchain.execution import upgrade
from flockchain.node import snapshot_offers
from flockchain.node.run import run_node
snapshot_offers.LONG_CHAIN_BLOCKS = 10
upgrade.FIRST_VERSION = int(sys.argv[2])
sys.exit(run_node(Path(sys.argv[1])))
"""


class JoiningProcess(NodeProcess):
    """For which a chain of ten blocks is long, and which runs one protocol version."""

    version = 1

    def start(self) -> None:
        words = [sys.executable, "-c", PROGRAM, str(self.home.path), str(self.version)]
        with (self.home.path / "stderr.txt").open("ab") as errors:
            self.process = subprocess.Popen(words, stderr=errors)


def make_config(p2p: int, api: int, *, peer: int | None = None, trust: str = "") -> Config:
    peers = (f"127.0.0.1:{peer}",) if peer else ()
    return Config(
        p2p=P2pConfig(listen=f"127.0.0.1:{p2p}", persistent_peers=peers),
        api=ApiConfig(listen=f"127.0.0.1:{api}"),
        sync=SyncConfig(trust=trust),
        validator=ValidatorConfig(enabled=False),
    )


def get_error(url: str) -> tuple[int, dict[str, str]]:
    answer = httpx.get(url, timeout=5, trust_env=False)
    return answer.status_code, msgspec.json.decode(answer.content)["error"]


def test_a_node_joins_by_a_snapshot_takes_the_blocks_above_and_can_be_set_back(tmp_path: Path) -> None:
    chain = StoredChain(tmp_path / "old")
    chain.grow(1, elapsed_ms=time.time_ns() // 1_000_000 - GENESIS_TIME_MS - 600_000)
    chain.grow(SNAPSHOT - 1)
    chain.snapshots.make(chain.home.chain)
    chain.grow(TIP - SNAPSHOT)
    chain.store.close()
    old_p2p, old_api, new_p2p, new_api = find_free_ports(4)
    chain.home.config.write_text(format_config(make_config(old_p2p, old_api)))
    trust = f"2:{chain.blocks[1].block_id().hex()}"
    home: Home = create_home(tmp_path / "new", config=make_config(new_p2p, new_api, peer=old_p2p, trust=trust))
    save_genesis(chain.genesis, home.genesis)
    old, new = NodeProcess(chain.home, old_api), JoiningProcess(home, new_api)
    old.start()
    try:
        new.version = 9
        new.start()
        assert new.process is not None
        assert new.process.wait(30) == UPGRADE_EXIT_CODE
        assert "follows protocol version 1; this software" in new.errors()
        new.version = 1
        new.start()
        wait_until(lambda: new.height() == TIP, 30)
        status = new.status()
        assert (status["first_height"], status["state_root"]) == (SNAPSHOT, chain.roots[TIP].hex())
        for path in (f"blocks/{SNAPSHOT - 1}", f"light/{SNAPSHOT - 1}"):
            status_code, error = get_error(f"{new.url}/v1/{path}")
            assert (status_code, error["code"]) == (410, "pruned")
            assert f"holds blocks {SNAPSHOT} to {TIP}" in error["message"]
        old_tx = chain.outcomes[SNAPSHOT - 2].results[0].hash.hex()
        status_code, error = get_error(f"{new.url}/v1/txs/{old_tx}")
        assert status_code == 404
        assert f"from height {SNAPSHOT} on" in error["message"]
        with Client([new.url]) as client, pytest.raises(Refused, match="is pruned"):
            client.light_block(SNAPSHOT - 1)
        assert SnapshotFolder(home.snapshots).heights() == [SNAPSHOT], "kept, for others and to roll back to"
        assert not home.joining.exists()
        assert new.kill(15) == 0
        assert set_back(home, chain.genesis, TIP - 3, lambda *_: None)["state_root"] == chain.roots[TIP - 3].hex()
        new.start()
        wait_until(lambda: new.height() == TIP, 30)
        assert new.status()["state_root"] == chain.roots[TIP].hex(), "the forgotten blocks came from the peer again"
    finally:
        codes = [node.kill(15) for node in (new, old) if node.process is not None]
    assert codes == [0, 0]


def test_a_running_node_keeps_the_newest_snapshots_at_the_stated_heights(tmp_path: Path) -> None:
    processes = Processes(tmp_path, validators=1)
    [node] = processes.nodes
    config = load_config(node.home.config)
    storage = StorageConfig(snapshot_interval_blocks=2, keep_snapshots=2)
    node.home.config.write_text(format_config(msgspec.structs.replace(config, storage=storage)))
    folder = SnapshotFolder(node.home.snapshots)
    with processes, Client([node.url]) as client:
        processes.wait_for_height(2)
        alice, nonce = make_key("alice"), 0
        while max(folder.heights(), default=0) < 6:
            body = transfer.Body(make_address("bob"), 1, "")
            client.wait(client.submit(client.build(alice, transfer.KIND, body, nonce=nonce)))
            nonce += 1
            assert nonce < 20, "two blocks follow a transfer, a snapshot every second one"
        assert node.kill(15) == 0
    heights = folder.heights()
    assert len(heights) <= 2
    assert all(height % 2 == 0 for height in heights)
    run = reexecute(node.home.path, processes.genesis)
    assert run.from_height == heights[-1], "and the blocks above lead to the stored roots"
