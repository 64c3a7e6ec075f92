"""The chain under load: real processes on loopback, from command to height 2, finality when idle, and throughput."""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from msgspec.structs import replace

from bench.report import Result, summarize
from flockchain.client import Client, wait_until
from flockchain.codec import encode
from flockchain.crypto import address_of
from flockchain.devnet import (
    Devnet,
    create_devnet,
    derive_key,
    find_free_base_port,
    running_pids,
    start_devnet,
    stop_devnet,
)
from flockchain.node.config import ApiConfig, format_config, load_config
from flockchain.txs import transfer

ACCOUNTS = 96
CHAIN_ID = "flockchain-bench"
BATCH = 100
UNLIMITED = 1_000_000
LAG_S = 0.25
"""Longest a batch waits before it is sent: the generator sends `BATCH` or what is due by then."""


@contextmanager
def running_devnet(
    validators: int, *, client_txs_per_s: int = UNLIMITED, total_txs_per_s: int = UNLIMITED
) -> Iterator[tuple[Devnet, float]]:
    """A fresh devnet, and the seconds from command to height 2 on every node.

    Its nodes take what they are offered, unless rates are given: a benchmark is one client that measures the node.
    """
    with tempfile.TemporaryDirectory(prefix="flockchain-bench-") as folder:
        started = time.monotonic()
        devnet = create_devnet(
            Path(folder) / "devnet",
            validators=validators,
            base_port=find_free_base_port(validators),
            accounts=[f"account{i}" for i in range(ACCOUNTS)],
            chain_id=CHAIN_ID,
        )
        try:
            for index in range(validators):
                _write_api(devnet.node_home(index), client_txs_per_s, total_txs_per_s)
            start_devnet(devnet)
            yield devnet, time.monotonic() - started
        finally:
            stop_devnet(devnet)


def _write_api(home: Path, client_txs_per_s: int, total_txs_per_s: int) -> None:
    path = home / "config.toml"
    config = load_config(path)
    api = replace(config.api, client_txs_per_s=client_txs_per_s, total_txs_per_s=total_txs_per_s)
    path.write_text(format_config(replace(config, api=api)))


def measure_start(runs: int) -> Result:
    """Seconds from the command to height 2 on all four nodes, homes and genesis included."""
    seconds = []
    for _ in range(runs):
        with running_devnet(4) as (_, start_s):
            seconds.append(start_s)
    return summarize("start_s/4_validators", "s", seconds, digits=2)


def measure_idle(transfers: int) -> list[Result]:
    """Finality on an idle network of four, from the first byte of the POST to the result readable at that node."""
    with running_devnet(4) as (devnet, _), Client(devnet.api_urls()[:1]) as client:
        key = derive_key(CHAIN_ID, "account0")
        to = address_of(bytes(derive_key(CHAIN_ID, "account1").verify_key))
        waits = []
        for nonce in range(transfers):
            signed = client.build(key, "transfer", transfer.Body(to, 1, ""), nonce=nonce)
            begun = time.perf_counter()
            client.wait(client.submit(signed))
            waits.append(1000 * (time.perf_counter() - begun))
        waits.sort()
        memory = [psutil.Process(pid).memory_info().rss / 2**20 for pid in running_pids(devnet).values()]
    p50, p99 = waits[len(waits) // 2], waits[min(len(waits) - 1, len(waits) * 99 // 100)]
    return [
        Result("finality_ms_p50/idle", "ms", round(p50, 1), round(waits[0], 1), round(waits[-1], 1), transfers),
        Result("finality_ms_p99/idle", "ms", round(p99, 1), round(waits[0], 1), round(waits[-1], 1), transfers),
        summarize("rss_mb/idle", "MiB", memory),
    ]


def sign_transfers(client: Client, count: int) -> list[bytes]:
    """`count` transfers, sender after sender in turn, signed beforehand so that signing is not measured."""
    keys = [derive_key(CHAIN_ID, f"account{i}") for i in range(ACCOUNTS)]
    to = address_of(bytes(derive_key(CHAIN_ID, "owner0").verify_key))
    body = encode(transfer.Body(to, 1, ""))
    network = client.network()
    fee = network.min_fee_uflk + 400 * network.fee_per_byte_uflk
    expires_ms = time.time_ns() // 1_000_000 + 1_800_000
    return [
        client.sign(keys[i % ACCOUNTS], "transfer", body, nonce=i // ACCOUNTS, fee_uflk=fee, expires_ms=expires_ms)
        for i in range(count)
    ]


def measure_throughput(
    validators: int, rate: int, seconds: int, *, client_txs_per_s: int | None = None
) -> list[Result]:
    """Transfers offered at `rate` per second for `seconds`, spread over all nodes; every one must become final.

    Nodes take what their own settings allow a client, unless `client_txs_per_s` lifts that.
    """
    limits = ApiConfig()
    rates = {
        "client_txs_per_s": client_txs_per_s or limits.client_txs_per_s,
        "total_txs_per_s": client_txs_per_s or limits.total_txs_per_s,
    }
    with running_devnet(validators, **rates) as (devnet, _), Client(devnet.api_urls()[:1]) as client:
        signed = sign_transfers(client, rate * seconds)
        urls = devnet.api_urls()
        to = address_of(bytes(derive_key(CHAIN_ID, "owner0").verify_key))
        before_uflk = client.account(to)["balance_uflk"]
        begun = time.monotonic()
        refused = 0
        with httpx.Client(timeout=30, trust_env=False) as http, ThreadPoolExecutor(len(urls)) as pool:
            sent = 0
            turn = 0
            futures = []
            while sent < len(signed):
                due = min(len(signed), int((time.monotonic() - begun) * rate) + 1)
                if due - sent < BATCH and due < len(signed):
                    time.sleep(0.01)
                    continue
                batch = signed[sent : min(due, sent + 5 * BATCH)]
                futures.append(pool.submit(_post, http, urls[turn % len(urls)], batch))
                sent += len(batch)
                turn += 1
            refused = sum(future.result() for future in futures)
        memory = [psutil.Process(pid).memory_info().rss / 2**20 for pid in running_pids(devnet).values()]

        def count_arrived() -> int:
            """Each moves 1 uflk to one account: its balance counts those that are final and ok."""
            return int(client.account(to)["balance_uflk"]) - before_uflk

        wait_until(lambda: count_arrived() == len(signed), timeout_s=120)
        took = time.monotonic() - begun
        arrived = count_arrived()
        last = client.status()
    if arrived != len(signed):
        raise SystemExit(f"{arrived} of {len(signed)} transfers are final and ok")
    name = {1: "1_validator"}.get(validators, f"{validators}_validators")
    final = round(len(signed) / took, 1)
    return [
        Result(
            f"tx_per_s/{name}",
            "transfers/s",
            final,
            final,
            final,
            1,
            notes={
                "offered_per_s": rate,
                "seconds": seconds,
                "refused_at_post": refused,
                "final_and_ok": arrived,
                "blocks": last["height"],
            },
        ),
        summarize("rss_mb/full_load", "MiB", memory),
    ]


def _post(http: httpx.Client, url: str, batch: list[bytes]) -> int:
    """Send a batch; returns how many were refused."""
    answer = http.post(
        f"{url}/v1/txs/batch", content=encode(batch), headers={"Content-Type": "application/octet-stream"}
    )
    return sum("error" in item for item in answer.json()["results"])
