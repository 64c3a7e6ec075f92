"""A local network of real node processes on free ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from flockchain.devnet import find_free_base_port, p2p_port
from flockchain.execution.beacon import BeaconChain
from flockchain.genesis import Genesis, GenesisAccount, GenesisValidator, save_genesis, sign_possession
from flockchain.node.config import ApiConfig, Config, P2pConfig
from flockchain.node.home import Home, create_home
from flockchain.node.signer import compute_beacon_seed
from flockchain.params import Params

from .ledger import ACCOUNTS, BALANCE_UFLK, BOND_UFLK, make_address, make_key

PROGRAM = """
import sys
from pathlib import Path
from flockchain.node.run import run_node
sys.exit(run_node(Path(sys.argv[1])))
"""


def wait_until(predicate: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"not reached within {timeout_s} s"
        time.sleep(0.01)


def find_free_ports(count: int) -> list[int]:
    base = find_free_base_port(count)
    return [p2p_port(base, index) for index in range(count)]


class NodeProcess:
    def __init__(self, home: Home, api_port: int) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{api_port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home.path / "stderr.txt").open("ab") as errors:
            self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(self.home.path)], stderr=errors)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait; returns the exit code."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        code = self.process.wait(timeout=20)
        self.process = None
        return code

    def errors(self) -> str:
        return (self.home.path / "stderr.txt").read_text()

    def status(self) -> dict[str, object]:
        """`GET /v1/status`; empty while the node does not answer."""
        try:
            answer: dict[str, object] = httpx.get(f"{self.url}/v1/status", timeout=5, trust_env=False).json()
            return answer
        except httpx.TransportError:
            return {}

    def height(self) -> int:
        return int(str(self.status().get("height", 0)))


class Processes:
    """Homes `node0` ... under a folder; use as a context manager."""

    def __init__(self, folder: Path, *, validators: int = 4, params: Params | None = None) -> None:
        ports = find_free_ports(2 * validators)
        keys = [make_key(f"val{i}") for i in range(validators)]
        self._p2p_ports = ports[::2]
        self.genesis = _make_genesis(validators, params or Params())
        self.nodes: list[NodeProcess] = []
        for i, key in enumerate(keys):
            peers = tuple(f"127.0.0.1:{ports[2 * j]}" for j in range(validators) if j != i)
            config = Config(
                p2p=P2pConfig(listen=f"127.0.0.1:{ports[2 * i]}", persistent_peers=peers),
                api=ApiConfig(listen=f"127.0.0.1:{ports[2 * i + 1]}"),
            )
            home = create_home(folder / f"node{i}", config=config, validator_key=key)
            save_genesis(self.genesis, home.genesis)
            self.nodes.append(NodeProcess(home, ports[2 * i + 1]))

    def add_twin(self, index: int) -> NodeProcess:
        """A second home for a validator's key: another node, which knows nothing of what the first one signed."""
        folder, peers = self.nodes[0].home.path.parent, tuple(f"127.0.0.1:{port}" for port in self._p2p_ports)
        p2p_port, api_port = find_free_ports(2)
        config = Config(
            p2p=P2pConfig(listen=f"127.0.0.1:{p2p_port}", persistent_peers=peers),
            api=ApiConfig(listen=f"127.0.0.1:{api_port}"),
        )
        home = create_home(folder / f"twin{index}", config=config, validator_key=make_key(f"val{index}"))
        save_genesis(self.genesis, home.genesis)
        self.nodes.append(NodeProcess(home, api_port))
        return self.nodes[-1]

    def __enter__(self) -> "Processes":
        for node in self.nodes:
            node.start()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.kill()

    def wait_for_height(self, height: int, timeout_s: float = 30.0) -> None:
        wait_until(lambda: all(node.height() >= height for node in self.nodes if node.process), timeout_s)


def _make_genesis(validators: int, params: Params) -> Genesis:
    names = [*ACCOUNTS, *(f"owner{i}" for i in range(validators))]
    chain_id = "flock-processes"
    members = []
    for i in range(validators):
        key, owner = make_key(f"val{i}"), make_address(f"owner{i}")
        members.append(
            GenesisValidator(
                owner=owner,
                public_key=bytes(key.verify_key),
                possession=sign_possession(key, chain_id, owner),
                bond_uflk=BOND_UFLK,
                beacon_head=BeaconChain(compute_beacon_seed(key)).head,
                name=f"val{i}",
            )
        )
    return Genesis(
        chain_id=chain_id,
        time_ms=time.time_ns() // 1_000_000,
        params=params,
        accounts=tuple(sorted((GenesisAccount(make_address(n), BALANCE_UFLK) for n in names), key=lambda a: a.address)),
        validators=tuple(sorted(members, key=lambda member: member.public_key)),
    )
