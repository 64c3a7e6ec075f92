"""The processes of one scenario: a node in each namespace, and workers beside them that train round after round."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path

import httpx
from msgspec.structs import replace

from flockchain.client import Client, Json
from flockchain.devnet import Devnet, create_devnet, devnet_params, find_free_base_port
from flockchain.node.config import (
    ApiConfig,
    P2pConfig,
    StorageConfig,
    SyncConfig,
    ValidatorConfig,
    format_config,
    load_config,
)
from flockchain.node.home import Home, create_home
from flockchain.txs import create_task
from tests.devnet.network import CHAIN_ID, CREATOR, JUDGES, TRAINERS, make_key
from tests.devnet.scripted import POOL_UFLK, make_task_spec
from tests.scenarios.namespaces import address_of_node
from tests.scenarios.network import NamespaceNetwork
from tests.scenarios.plan import WORKERS, Plan
from tests.support.processes import wait_until

P2P_PORT, API_PORT = 26_600, 26_601
BLOCK_INTERVAL_MS, IDLE_BLOCK_INTERVAL_MS = 250, 1_000
ROUNDS = 200
"""More than a scenario can play."""
PHASES_MS = {"enroll_ms": 12_000, "train_ms": 12_000, "publish_ms": 12_000, "enroll_limit_ms": 600_000}
"""How long a round waits for trainers that are late, and a task for those that faults keep away."""
SNAPSHOT_INTERVAL_BLOCKS, KEEP_SNAPSHOTS = 20, 3
ASK_TIMEOUT_S = 2.0
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0


class Finding(Exception):
    """Something that must not happen; one sentence."""


class World:
    """The validators of a plan, its newcomer and the workers; a context manager that stops everything."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.n = plan.n
        self.places = plan.n + (plan.newcomer is not None)
        """Nodes in the end."""
        self.joined = plan.n
        """Nodes that have been started until now."""
        self.folder = folder
        self.network = NamespaceNetwork(self.places, plan.seed)
        self.devnet = _make_homes(folder / "network", plan.n)
        self.homes = [Home(self.devnet.node_home(index)) for index in range(plan.n)]
        if plan.newcomer is not None:
            is_wanted = plan.newcomer.kind == "join-by-snapshot"
            self.homes.append(_make_newcomer(self.homes, from_snapshot=is_wanted))
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.paused: set[int] = set()
        self.task = 0
        self.highest = 0
        """Greatest height that a node was seen at."""
        self._https: list[httpx.Client] = []

    def __enter__(self) -> "World":
        self.network.__enter__()
        self._https = [inside.do(_make_http) for inside in self.network.inside]
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.nodes.values(), *self.workers.values()):
            process.kill()
            process.wait(STOP_TIMEOUT_S)
        for http in self._https:
            http.close()
        self.network.__exit__()

    # Nodes

    def start_nodes(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            home = self.homes[index].path
            program = ["flockchain", "start"] if index < self.n else ["tests.scenarios.newcomer"]
            command = [sys.executable, "-m", *program, "--home", str(home)]
            self.joined = max(self.joined, index + 1)
            self.nodes[index] = self.network.start(index, command, home / "logs" / "stderr.log")

    def kill_nodes(self, indexes: Iterable[int]) -> None:
        for process in [self.nodes.pop(index) for index in indexes]:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def stop_nodes(self, indexes: Iterable[int]) -> None:
        """SIGTERM to all at once; each must end with 0."""
        stopping = {index: self.nodes.pop(index) for index in indexes}
        for process in stopping.values():
            process.terminate()
        for index, process in stopping.items():
            try:
                code = process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)
                raise Finding(f"node {index} did not stop within {STOP_TIMEOUT_S:.0f} s of SIGTERM") from None
            if code:
                raise Finding(f"node {index} ended with {code} after SIGTERM: {self._last_words(index)}")

    def pause_nodes(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            os.kill(self.nodes[index].pid, signal.SIGSTOP)
            self.paused.add(index)

    def resume_nodes(self) -> None:
        for index in self.paused:
            os.kill(self.nodes[index].pid, signal.SIGCONT)
        self.paused.clear()

    def check_processes(self) -> None:
        """Nobody who should be running has stopped by itself."""
        for index, node in self.nodes.items():
            if node.poll() is not None:
                raise Finding(f"node {index} stopped by itself with {node.poll()}: {self._last_words(index)}")
        for name, worker in self.workers.items():
            if worker.poll() is not None:
                said = self._worker_folder(name).joinpath("stderr.log").read_text(errors="replace").strip()
                raise Finding(f"{name} stopped by itself with {worker.poll()}: {said.splitlines()[-1:]}")

    def ask_heights(self) -> list[int]:
        """Of every node that was ever started; -1 of one that does not answer."""
        awake = [index for index in self.nodes if index not in self.paused]
        asked = {index: self.ask(index, "/status") for index in awake}
        heights = [-1] * self.joined
        for index, answer in asked.items():
            heights[index] = int((answer.result() or {}).get("height", -1))
        self.highest = max(self.highest, *heights)
        return heights

    def ask(self, index: int, path: str) -> "Future[Json | None]":
        """JSON of a GET at a node, asked in its own namespace: what happens to the network does not matter."""
        return self.network.inside[index].begin(_get, self._https[index], f"http://127.0.0.1:{API_PORT}/v1{path}")

    def _last_words(self, index: int) -> str:
        lines = (self.homes[index].logs / "stderr.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no output"

    # Training

    def start_training(self, late: frozenset[str]) -> None:
        """A task of many rounds, and its workers but the late ones: each beside a node, which it asks first."""
        self.task = self.network.inside[0].do(_open_task)
        self.start_workers(name for name in WORKERS if name not in late)

    def start_workers(self, names: Iterable[str]) -> None:
        for name in names:
            at = WORKERS.index(name) % self.n
            others = [other for other in range(self.n) if other != at]
            urls = [f"http://{host}:{API_PORT}" for host in ("127.0.0.1", *map(address_of_node, others))]
            folder = self._worker_folder(name)
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "tests.scenarios.worker", str(folder), str(self.task), name, *urls]
            self.workers[name] = self.network.start(at, command, folder / "stderr.log")

    def kill_workers(self, names: Iterable[str]) -> None:
        for process in [self.workers.pop(name) for name in names]:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def pause_workers(self, names: Iterable[str]) -> None:
        for name in names:
            os.kill(self.workers[name].pid, signal.SIGSTOP)

    def resume_workers(self, names: Iterable[str]) -> None:
        for name in names:
            os.kill(self.workers[name].pid, signal.SIGCONT)

    def is_training(self) -> bool:
        """Whether the first round has its trainers."""
        found = self._ask_any(f"/tasks/{self.task}/rounds/1")
        return found is not None and found["phase"] != "enroll"

    def ask_round(self) -> int:
        """Number of the training round that is under way, by the first node that answers; 0 when none does."""
        found = self._ask_any(f"/tasks/{self.task}")
        return int(found["round"]) if found else 0

    def _ask_any(self, path: str) -> Json | None:
        awake = sorted(self.nodes.keys() - self.paused)
        return next(filter(None, (self.ask(index, path).result() for index in awake)), None)

    def _worker_folder(self, name: str) -> Path:
        return self.folder / "workers" / name

    # Waiting

    def wait_until_ready(self) -> None:
        """Every node has decided two blocks."""
        wait_until(lambda: self._all_are_at(2), START_TIMEOUT_S)

    def _all_are_at(self, height: int) -> bool:
        self.check_processes()
        return min(self.ask_heights()) >= height


def _make_homes(home: Path, n: int) -> Devnet:
    """As `flockchain devnet up` makes them, with addresses of the namespaces."""
    params = devnet_params()
    consensus = replace(
        params.consensus, min_block_interval_ms=BLOCK_INTERVAL_MS, idle_block_interval_ms=IDLE_BLOCK_INTERVAL_MS
    )
    devnet = create_devnet(
        home,
        validators=n,
        base_port=find_free_base_port(n),
        accounts=(CREATOR, *TRAINERS, *JUDGES),
        chain_id=CHAIN_ID,
        params=replace(params, consensus=consensus, tasks=replace(params.tasks, missed_rounds=ROUNDS)),
    )
    for index in range(n):
        node = Home(devnet.node_home(index))
        peers = tuple(f"{address_of_node(other)}:{P2P_PORT}" for other in range(n) if other != index)
        config = replace(
            load_config(node.config),
            p2p=P2pConfig(listen=f"{address_of_node(index)}:{P2P_PORT}", persistent_peers=peers),
            api=ApiConfig(listen=f"0.0.0.0:{API_PORT}"),
            storage=StorageConfig(snapshot_interval_blocks=SNAPSHOT_INTERVAL_BLOCKS, keep_snapshots=KEEP_SNAPSHOTS),
        )
        node.config.write_text(format_config(config))
    return devnet


def _make_newcomer(validators: Sequence[Home], *, from_snapshot: bool) -> Home:
    """The home of a full node: the validators' genesis and addresses, keys of its own that sign nothing."""
    index, config = len(validators), load_config(validators[0].config)
    peers = tuple(f"{address_of_node(other)}:{P2P_PORT}" for other in range(index))
    config = replace(
        config,
        p2p=P2pConfig(listen=f"{address_of_node(index)}:{P2P_PORT}", persistent_peers=peers),
        sync=SyncConfig(from_snapshot=from_snapshot),
        validator=ValidatorConfig(enabled=False),
    )
    home = create_home(validators[0].path.with_name(f"node{index}"), config=config)
    shutil.copy(validators[0].genesis, home.genesis)
    return home


def _open_task() -> int:
    with Client([f"http://127.0.0.1:{API_PORT}"]) as client:
        spec = make_task_spec(trainers=3, rounds=ROUNDS, **PHASES_MS)
        client.send(make_key(CREATOR), create_task.KIND, create_task.Body(spec, POOL_UFLK))
        return max(int(task["id"]) for task in client.pages("/tasks"))


def _make_http() -> httpx.Client:
    return httpx.Client(timeout=ASK_TIMEOUT_S, trust_env=False)


def _get(http: httpx.Client, url: str) -> Json | None:
    try:
        answer = http.get(url)
        found: Json | None = answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None
    return found
