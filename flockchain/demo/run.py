"""Prepare, start four nodes and seven workers, create the task, watch it to its end, export what came out."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from flockchain.client import Client, Json
from flockchain.demo.plan import (
    BOND_UFLK,
    CHAIN_ID,
    CREATOR,
    PARTICIPANTS,
    POISONER,
    POOL_UFLK,
    SIZES,
    DataFiles,
    Size,
    make_task_spec,
    write_data,
)
from flockchain.demo.watch import Watcher
from flockchain.devnet import (
    Devnet,
    create_devnet,
    find_free_base_port,
    start_devnet,
    stop_devnet,
)
from flockchain.errors import Fault, Refused
from flockchain.txs import create_task

VALIDATORS = 4
STOP_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 30.0
SAMPLE_EVERY_S = 1.0
Worker = subprocess.Popen[bytes]


@dataclass(slots=True)
class Options:
    """What a person may choose."""

    home: Path
    size: str = "demo"
    attack: str = "gradient_ascent"
    seed: int = 0
    keep: bool = False
    base_port: int | None = None
    rounds: int | None = None
    """None: as many as the size says."""
    device: str = "cpu"
    timeout_s: float = 1_800.0


@dataclass(slots=True)
class Outcome:
    """Everything the summary is made of."""

    options: Options
    size: Size
    devnet: Devnet
    seconds: float
    task: Json
    rounds: list[Json]
    names: dict[str, str]
    """Participant's address -> name."""
    bonds_uflk: dict[str, tuple[int, int]]
    """Name -> (before, after)."""
    losses_ubpb: dict[str, tuple[int, int]]
    adapter_dir: Path
    height: int
    state_roots: list[str]
    peak_rss_bytes: int
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds of each part of the run, for people."""


def run_demo(options: Options, watcher: Watcher) -> Outcome:
    """The main job from nothing. Nodes and workers are stopped at the end, whatever happens, unless `keep`."""
    began = time.monotonic()
    size = SIZES[options.size]
    if options.rounds is not None:
        size = replace(size, rounds=options.rounds)
    if options.home.exists() and any(options.home.iterdir()):
        raise Refused("home-exists", f"{options.home} is not empty: choose another --home or delete it")
    watcher.say(f"{size.name}: preparing the base (converted once)")
    from ml.base import prepare_base

    base_dir = prepare_base(size.model)
    data = write_data(size, options.home / "data", options.seed)
    watcher.say("network: starting 4 validators")
    devnet = create_devnet(
        options.home / "network",
        validators=VALIDATORS,
        base_port=options.base_port or find_free_base_port(VALIDATORS),
        accounts=(CREATOR, *PARTICIPANTS),
        chain_id=CHAIN_ID,
    )
    with _stopping(devnet, options.keep), _memory_sampler() as memory:
        start_devnet(devnet)
        with Client(devnet.api_urls()) as client:
            task = _create_task(client, devnet, size, base_dir, tuple(sorted(data.test)))
            with _workers(devnet, size, data, task, options) as workers:
                rounds = watcher.watch(client, task, lambda: _check_workers(workers), options.timeout_s)
                _wait_for_workers(workers)
            return _collect(options, size, devnet, client, task, rounds, base_dir, data, began, memory)


def _create_task(client: Client, devnet: Devnet, size: Size, base_dir: Path, domains: tuple[str, ...]) -> int:
    from ml.base import base_hash

    tokenizer_hash = _hash_file(base_dir / "tokenizer.json")
    spec = make_task_spec(size, bytes.fromhex(base_hash(base_dir)), tokenizer_hash, domains)
    key = devnet.keystore().open(CREATOR, lambda: b"")
    client.send(key, create_task.KIND, create_task.Body(spec, POOL_UFLK))
    return int(client.get("/tasks")["items"][-1]["id"])


@contextmanager
def _workers(devnet: Devnet, size: Size, data: DataFiles, task: int, options: Options) -> Iterator[dict[str, Worker]]:
    """The seven participants, each a process of its own that only knows REST addresses, its key and its data."""
    started: dict[str, Worker] = {}
    try:
        for name, path in data.trainers.items():
            rest = ["--attack", options.attack] if name == POISONER else []
            rest += ["--device", options.device]
            started[name] = _start_worker(
                devnet, size, task, name, ["trainer", "run", "--data", str(path), "--seed", str(options.seed), *rest]
            )
        for name, by_domain in data.judges.items():
            holdouts = [part for d, path in by_domain.items() for part in ("--holdout", f"{d}={path}")]
            started[name] = _start_worker(
                devnet, size, task, name, ["voter", "run", "--device", options.device, *holdouts]
            )
        yield started
    finally:
        for worker in started.values():
            worker.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for worker in started.values():
            try:
                worker.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _start_worker(devnet: Devnet, size: Size, task: int, name: str, command: list[str]) -> Worker:
    urls = devnet.api_urls()
    mine = PARTICIPANTS.index(name) % len(urls)
    nodes = [part for url in urls[mine:] + urls[:mine] for part in ("--node", url)]
    common = ["--task", str(task), "--key", name, "--base", size.model, "--bond-uflk", str(BOND_UFLK), "--json"]
    folder = devnet.home / "workers" / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "log.jsonl").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "flockchain", *command, *common, *nodes, "--home", str(devnet.home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )


def _check_workers(workers: dict[str, Worker]) -> None:
    """A worker that died is a fault of the demo, not a silent participant."""
    for name, worker in workers.items():
        if worker.poll() not in (None, 0):
            raise Fault(f"participant {name} stopped with code {worker.returncode}: see its log.jsonl")


def _wait_for_workers(workers: dict[str, Worker]) -> None:
    """They end by themselves once the task is over, after handing the last global adapter to a node."""
    deadline = time.monotonic() + FINISH_TIMEOUT_S
    for name, worker in workers.items():
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Fault(f"participant {name} did not end within {FINISH_TIMEOUT_S:.0f} s of its task's end") from None


def _collect(
    options: Options,
    size: Size,
    devnet: Devnet,
    client: Client,
    task: int,
    rounds: list[Json],
    base_dir: Path,
    data: DataFiles,
    began: float,
    memory: "_Memory",
) -> Outcome:
    from flockchain.demo.export import export_adapter

    found = client.task(task)
    keystore = devnet.keystore()
    addresses = {name: client.account(keystore.address(name))["address"] for name in PARTICIPANTS}
    adapter_dir = options.home / "adapter"
    losses = export_adapter(client, found, size, base_dir, data, adapter_dir, devnet.home)
    height, roots = _agree_on_state(devnet)
    return Outcome(
        options=options,
        size=size,
        devnet=devnet,
        seconds=time.monotonic() - began,
        task=found,
        rounds=rounds,
        names={address: name for name, address in addresses.items()},
        bonds_uflk={name: (BOND_UFLK, _bond(client, address, task)) for name, address in addresses.items()},
        losses_ubpb=losses,
        adapter_dir=adapter_dir,
        height=height,
        state_roots=roots,
        peak_rss_bytes=memory.peak_bytes,
    )


def _bond(client: Client, address: str, task: int) -> int:
    items = client.get("/stakes", owner=address, target=f"task:{task}")["items"]
    return int(items[0]["amount_uflk"]) if items else 0


def _agree_on_state(devnet: Devnet) -> tuple[int, list[str]]:
    """(height, state root of every node after that height): of the highest block that all have."""
    urls = devnet.api_urls()
    clients = [Client([url]) for url in urls]
    try:
        height = min(int(client.status()["height"]) for client in clients)
        return height, [str(client.get(f"/blocks/{height}")["state_root"]) for client in clients]
    finally:
        for client in clients:
            client.close()


@contextmanager
def _stopping(devnet: Devnet, keep: bool) -> Iterator[None]:
    """Stop the nodes at the end; after success they stay when the user wants to look around."""
    try:
        yield
    except BaseException:
        stop_devnet(devnet)
        raise
    if not keep:
        stop_devnet(devnet)


class _Memory:
    """Peak of the summed resident size of this process, its children and the nodes."""

    def __init__(self) -> None:
        self.peak_bytes = 0

    def sample(self) -> None:
        total = 0
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        self.peak_bytes = max(self.peak_bytes, total)


@contextmanager
def _memory_sampler() -> Iterator[_Memory]:
    memory, done = _Memory(), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            memory.sample()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()


def _hash_file(path: Path) -> bytes:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
