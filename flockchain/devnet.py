"""A local network of real processes: homes, deterministic keys, funded accounts, start and stop.

A devnet's keys are public (derived from their names), so it must never hold anything of worth.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
from nacl.signing import SigningKey

from flockchain.client import wait_until
from flockchain.crypto import address_of, format_address, tagged_hash
from flockchain.errors import Fault, Refused
from flockchain.execution.beacon import BeaconChain
from flockchain.genesis import (
    Genesis,
    GenesisAccount,
    GenesisValidator,
    check_genesis,
    save_genesis,
    sign_possession,
)
from flockchain.keystore import Keystore
from flockchain.node.config import ApiConfig, BlobsConfig, Config, P2pConfig
from flockchain.node.home import create_home
from flockchain.node.signer import compute_beacon_seed
from flockchain.params import UFLK_PER_FLK, ConsensusParams, Params, StakeParams

DEFAULT_BASE_PORT = 26_600
PORTS_PER_NODE = 10
SPARE_PORTS = (20_000, 32_000)
DEFAULT_VALIDATORS = 4
DEFAULT_ACCOUNTS = 12
MAX_VALIDATORS = 64
ACCOUNT_BALANCE_UFLK = 1_000_000 * UFLK_PER_FLK
BOND_UFLK = 100_000 * UFLK_PER_FLK
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
READY_HEIGHT = 2
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Devnet:
    """A devnet's home: `node0`, `node1`, ..., `keystore/` and `devnet.json`."""

    home: Path

    @property
    def record_path(self) -> Path:
        return self.home / "devnet.json"

    def record(self) -> dict[str, Any]:
        """What was created here: chain id, ports, accounts, process ids of the last start."""
        try:
            found: dict[str, Any] = json.loads(self.record_path.read_text())
        except FileNotFoundError:
            raise Refused("no-devnet", f"{self.home} holds no devnet: make one with `flockchain devnet up`") from None
        except ValueError:
            raise Fault(f"{self.record_path} is damaged: remove {self.home} and start again") from None
        return found

    def node_home(self, index: int) -> Path:
        return self.home / f"node{index}"

    def keystore(self) -> Keystore:
        return Keystore(self.home / "keystore")

    def api_urls(self) -> list[str]:
        base = self.record()["base_port"]
        return [f"http://127.0.0.1:{api_port(base, i)}" for i in range(self.record()["validators"])]


def derive_key(chain_id: str, name: str) -> SigningKey:
    """The public test key of that name: equal on every machine."""
    return SigningKey(tagged_hash("flockchain/devnet-key", (chain_id.encode(), name.encode())))


def p2p_port(base_port: int, index: int) -> int:
    return base_port + PORTS_PER_NODE * index


def api_port(base_port: int, index: int) -> int:
    return base_port + PORTS_PER_NODE * index + 1


def create_devnet(
    home: Path,
    *,
    validators: int = DEFAULT_VALIDATORS,
    base_port: int = DEFAULT_BASE_PORT,
    accounts: Sequence[str] = (),
    chain_id: str = "flockchain-devnet",
    params: Params | None = None,
) -> Devnet:
    """Write genesis, homes and keystore; nothing is started. Refuses taken ports, or a folder with something else."""
    if not 1 <= validators <= MAX_VALIDATORS:
        raise Refused("bad-devnet", f"{validators} validators: a devnet has 1 to {MAX_VALIDATORS}")
    if not 1024 <= base_port <= 65_535 - PORTS_PER_NODE * validators:
        raise Refused("bad-devnet", f"base port {base_port}: need 1024 to {65_535 - PORTS_PER_NODE * validators}")
    if home.exists() and any(home.iterdir()):
        raise Refused("home-exists", f"{home} is not empty: choose another --home, or `devnet down --purge` it first")
    _refuse_taken_ports(base_port, range(validators))
    names = list(accounts) or [f"account{i}" for i in range(DEFAULT_ACCOUNTS)]
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    devnet = Devnet(home)
    genesis = _make_genesis(chain_id, validators, names, params or devnet_params())
    for index in range(validators):
        _make_node(devnet, genesis, index, validators, base_port)
    keystore = devnet.keystore()
    for name in [*names, *(f"owner{i}" for i in range(validators))]:
        keystore.add(name, derive_key(chain_id, name), b"")
    record = {"chain_id": chain_id, "validators": validators, "base_port": base_port, "accounts": names, "pids": []}
    _write_record(devnet, record)
    return devnet


def check_same_devnet(devnet: Devnet, **wanted: int | None) -> None:
    """Refuse wishes that differ from what the home was made with: they would be ignored in silence."""
    record = devnet.record()
    for name, value in wanted.items():
        if value is not None and value != record[name]:
            raise Refused(
                "other-devnet",
                f"{devnet.home} holds a devnet with {name} {record[name]}, not {value}: leave the option out to resume "
                "it, choose another --home, or `devnet down --purge` it first",
            )


def devnet_params() -> Params:
    """Parameters for one machine: quick to unbond, otherwise the defaults of a real network."""
    return Params(
        consensus=ConsensusParams(),
        stake=StakeParams(unbonding_ms=600_000, evidence_age_ms=500_000, trusting_period_ms=400_000),
    )


def _make_genesis(chain_id: str, validators: int, names: Sequence[str], params: Params) -> Genesis:
    owners = [address_of(bytes(derive_key(chain_id, f"owner{i}").verify_key)) for i in range(validators)]
    people = [address_of(bytes(derive_key(chain_id, name).verify_key)) for name in names]
    members = []
    for i, owner in enumerate(owners):
        key = derive_key(chain_id, f"validator{i}")
        members.append(
            GenesisValidator(
                owner=owner,
                public_key=bytes(key.verify_key),
                possession=sign_possession(key, chain_id, owner),
                bond_uflk=BOND_UFLK,
                beacon_head=BeaconChain(compute_beacon_seed(key)).head,
                name=f"validator{i}",
            )
        )
    genesis = Genesis(
        chain_id=chain_id,
        time_ms=time.time_ns() // 1_000_000,
        params=params,
        accounts=tuple(sorted((GenesisAccount(a, ACCOUNT_BALANCE_UFLK) for a in owners + people), key=_address)),
        validators=tuple(sorted(members, key=lambda member: member.public_key)),
    )
    check_genesis(genesis)
    return genesis


def _address(account: GenesisAccount) -> bytes:
    return account.address


def _make_node(devnet: Devnet, genesis: Genesis, index: int, validators: int, base_port: int) -> None:
    peers = tuple(f"127.0.0.1:{p2p_port(base_port, other)}" for other in range(validators) if other != index)
    limits = P2pConfig()
    config = Config(
        p2p=P2pConfig(
            listen=f"127.0.0.1:{p2p_port(base_port, index)}",
            persistent_peers=peers,
            max_inbound=max(limits.max_inbound, len(peers)),
            max_outbound=max(limits.max_outbound, len(peers)),
        ),
        api=ApiConfig(listen=f"127.0.0.1:{api_port(base_port, index)}"),
        blobs=BlobsConfig(max_bytes=8 * 2**30),
    )
    create_home(
        devnet.node_home(index),
        config=config,
        node_key=derive_key(genesis.chain_id, f"node{index}"),
        validator_key=derive_key(genesis.chain_id, f"validator{index}"),
    )
    save_genesis(genesis, devnet.node_home(index) / "genesis.json")


# Processes


def start_devnet(devnet: Devnet, *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Start the nodes that do not run, detached; returns once every node has reached height 2."""
    record = devnet.record()
    running = running_pids(devnet)
    indexes = range(record["validators"])
    _refuse_taken_ports(record["base_port"], [index for index in indexes if index not in running])
    pids = [running[index] if index in running else start_node(devnet, index) for index in indexes]
    _write_record(devnet, {**record, "pids": pids})
    if not wait_until(lambda: _is_ready(devnet), timeout_s=timeout_s, every_s=0.05):
        stopped = [i for i in range(record["validators"]) if i not in running_pids(devnet)]
        detail = "".join(f"\nnode{i} stopped: {last_log_line(devnet, i)}" for i in stopped)
        raise Fault(f"the devnet did not reach height {READY_HEIGHT} in {timeout_s:.0f} s{detail}")


def start_node(devnet: Devnet, index: int) -> int:
    """Start one node as a process of its own session; returns its process id."""
    home = devnet.node_home(index)
    with (home / "logs" / "stderr.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "flockchain", "start", "--home", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    process.returncode = 0  # detached on purpose: it outlives this process and is stopped by its id
    return process.pid


def running_pids(devnet: Devnet) -> dict[int, int]:
    """Process id of each node that runs, by index."""
    found: dict[int, int] = {}
    for index, pid in enumerate(devnet.record()["pids"]):
        if _is_node(pid, devnet.node_home(index)):
            found[index] = pid
    return found


def stop_devnet(devnet: Devnet, *, timeout_s: float = STOP_TIMEOUT_S) -> list[int]:
    """SIGTERM to every node, SIGKILL to those that do not stop in time; returns the indexes that needed that."""
    running = running_pids(devnet)
    for pid in running.values():
        os.kill(pid, signal.SIGTERM)
    stopped = wait_until(lambda: not running_pids(devnet), timeout_s=timeout_s)
    late = [] if stopped else sorted(running_pids(devnet))
    for index in late:
        os.kill(running[index], signal.SIGKILL)
    _write_record(devnet, {**devnet.record(), "pids": []})
    return late


def purge_devnet(devnet: Devnet) -> None:
    """Stop and delete a devnet; refuses a folder that holds none."""
    devnet.record()
    stop_devnet(devnet)
    shutil.rmtree(devnet.home)


def describe_devnet(devnet: Devnet) -> dict[str, Any]:
    """The document of `devnet up --json` and `devnet status --json`."""
    record = devnet.record()
    running = running_pids(devnet)
    keystore = devnet.keystore()
    nodes = []
    answering: str | None = None
    with httpx.Client(timeout=5.0, trust_env=False) as http:
        for index in range(record["validators"]):
            url = f"http://127.0.0.1:{api_port(record['base_port'], index)}"
            status = _ask(http, f"{url}/v1/status")
            answering = answering or (url if status else None)
            key = derive_key(record["chain_id"], f"validator{index}")
            nodes.append(
                {
                    "index": index,
                    "pid": running.get(index),
                    "home": str(devnet.node_home(index)),
                    "p2p": f"127.0.0.1:{p2p_port(record['base_port'], index)}",
                    "api": url,
                    "height": status.get("height"),
                    "state_root": status.get("state_root"),
                    "address": format_address(address_of(bytes(key.verify_key))),
                }
            )
        accounts = []
        for name in record["accounts"]:
            address = format_address(keystore.address(name))
            found = _ask(http, f"{answering}/v1/accounts/{address}") if answering else {}
            accounts.append({"name": name, "address": address, "balance_uflk": found.get("balance_uflk")})
    return {"chain_id": record["chain_id"], "nodes": nodes, "accounts": accounts}


def last_log_line(devnet: Devnet, index: int) -> str:
    """What a node said last, for error messages."""
    path = devnet.node_home(index) / "logs" / "stderr.log"
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][:300] if lines else "no output"


def find_free_base_port(validators: int) -> int:
    """A base port whose ports are all free now, for tests and demos.

    Below the range from which the system takes ports for outgoing connections (32,768 on Linux, 49,152 by RFC 6335):
    a peer's connection could otherwise take a port between this check and the node's start.
    """
    places = range(SPARE_PORTS[0], SPARE_PORTS[1] - PORTS_PER_NODE * validators, PORTS_PER_NODE)
    base: int
    first = os.getpid() * 7 % len(places)  # processes that look at the same time begin in different places
    for base in (*places[first:], *places[:first]):
        if all(_is_free(port(base, i)) for i in range(validators) for port in (p2p_port, api_port)):
            return base
    raise Fault("no free range of ports on 127.0.0.1")


def _is_ready(devnet: Devnet) -> bool:
    with httpx.Client(timeout=2.0, trust_env=False) as http:
        heights: list[int] = [_ask(http, f"{url}/v1/status").get("height", 0) for url in devnet.api_urls()]
    return min(heights) >= READY_HEIGHT


def _ask(http: httpx.Client, url: str) -> dict[str, Any]:
    """JSON of a GET, or {} while nobody answers."""
    try:
        answer = http.get(url)
        found: dict[str, Any] = answer.json() if answer.is_success else {}
    except (httpx.HTTPError, ValueError):
        return {}
    return found


def _is_node(pid: int, home: Path) -> bool:
    """Whether the process with this id is our node (ids are reused by the system)."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and str(home) in process.cmdline()
    except psutil.Error:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _refuse_taken_ports(base_port: int, indexes: Iterable[int]) -> None:
    """Refuse, before anything is made or started, when a port of one of these nodes is in use."""
    for port in (port(base_port, index) for index in indexes for port in (p2p_port, api_port)):
        if not _is_free(port):
            raise Refused(
                "port-taken",
                f"port {port} is in use: stop what uses it, or make a new network with another --base-port",
            )


def _write_record(devnet: Devnet, record: dict[str, Any]) -> None:
    temporary = devnet.record_path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
    os.replace(temporary, devnet.record_path)
