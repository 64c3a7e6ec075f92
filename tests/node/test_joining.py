"""Two real processes: a node without a chain joins one that has it, by its snapshot, and says what it holds."""

import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec

from flockchain.genesis import save_genesis
from flockchain.node.config import ApiConfig, Config, P2pConfig, SyncConfig, ValidatorConfig, format_config
from flockchain.node.home import Home, create_home
from flockchain.store.snapshots import SnapshotFolder
from tests.support.ledger import GENESIS_TIME_MS
from tests.support.processes import NodeProcess, find_free_ports, wait_until
from tests.support.stored_chain import StoredChain

SNAPSHOT, TIP = 25, 30
PROGRAM = """
import sys
from pathlib import Path
from flockchain.node import snapshot_sync
from flockchain.node.run import run_node
snapshot_sync.LONG_CHAIN_BLOCKS = 10
sys.exit(run_node(Path(sys.argv[1])))
"""


class JoiningProcess(NodeProcess):
    """For which a chain of ten blocks is long."""

    def start(self) -> None:
        with (self.home.path / "stderr.txt").open("ab") as errors:
            self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(self.home.path)], stderr=errors)


def make_config(p2p: int, api: int, *, peer: int | None = None, trust: str = "") -> Config:
    peers = (f"127.0.0.1:{peer}",) if peer else ()
    return Config(
        p2p=P2pConfig(listen=f"127.0.0.1:{p2p}", persistent_peers=peers),
        api=ApiConfig(listen=f"127.0.0.1:{api}"),
        sync=SyncConfig(trust=trust),
        validator=ValidatorConfig(enabled=False),
    )


def test_a_node_joins_by_a_snapshot_and_takes_the_blocks_above(tmp_path: Path) -> None:
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
    new.start()
    try:
        wait_until(lambda: new.height() == TIP, 30)
        status = new.status()
        assert (status["first_height"], status["state_root"]) == (SNAPSHOT, chain.roots[TIP].hex())
        answer = httpx.get(f"{new.url}/v1/blocks/{SNAPSHOT - 1}", timeout=5, trust_env=False)
        assert answer.status_code == 410
        error = msgspec.json.decode(answer.content)["error"]
        assert (error["code"], f"holds blocks {SNAPSHOT} to {TIP}" in error["message"]) == ("pruned", True)
        assert SnapshotFolder(home.snapshots).heights() == [SNAPSHOT], "kept, for others and to roll back to"
        assert not home.joining.exists()
    finally:
        codes = [node.kill(15) for node in (new, old)]
    assert codes == [0, 0]
