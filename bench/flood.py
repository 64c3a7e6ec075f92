"""A flood of transactions at one node: 5,000 a second, half of them invalid, while others keep a light load.

The light load goes to the other nodes, one POST a transaction. The flood comes from a process of its own, signed
beforehand, in batches, from one address or from many; a batch that is answered 429 is sent again, so that what is taken
at last is always executable: a flood that leaves gaps in its nonces would wait in the mempool and cost nothing.
"""

import json
import multiprocessing
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import psutil

from bench.chain import ACCOUNTS, CHAIN_ID, running_devnet
from bench.report import Result
from flockchain.client import Client
from flockchain.codec import decode, encode
from flockchain.crypto import address_of
from flockchain.devnet import Devnet, derive_key, running_pids
from flockchain.node.config import ApiConfig
from flockchain.txs import transfer
from flockchain.types.tx import SignedTx

FLOOD_PER_S = 5_000
BATCH = 500
STREAMS = 4
"""Batches under way at once."""
PREPARED = 40
"""Batches of a stream, signed beforehand; no more can be taken, and the run fails when they are used up."""
LIGHT_PER_S = 20
LIGHT_ACCOUNTS = 16
"""The last of the devnet's accounts; the others flood."""
RECOVERY_S = 10.0
QUIET_BLOCKS = 20
QUIET_FACTOR = 1.25
"""Normal again: the newest blocks come at most so much slower than before the flood, and the mempool is empty."""


def measure_flood(seconds: int) -> list[Result]:
    """Block interval with and without the flood, memory of the flooded node, and the time until all is normal."""
    api = ApiConfig()
    rates = {"client_txs_per_s": api.client_txs_per_s, "total_txs_per_s": api.total_txs_per_s}
    results: list[Result] = []
    for name, sources in (("one_client", 1), ("many_clients", 20)):
        with running_devnet(4, **rates) as (devnet, _), TemporaryDirectory(prefix="flockchain-flood-") as folder:
            results += _measure(devnet, Path(folder), name, sources, seconds)
    return results


@dataclass
class Load:
    """What the light load met."""

    sent: int = 0
    refused: list[str] = field(default_factory=list)


def _measure(devnet: Devnet, folder: Path, name: str, sources: int, seconds: int) -> list[Result]:
    with Client(devnet.api_urls()[1:2]) as client:
        batches = folder / "batches"
        batches.write_bytes(encode(_sign_flood(client)))
        light = _sign_light(client, (2 * seconds + 60) * LIGHT_PER_S)
        with _light_load(devnet, light) as load:
            time.sleep(3)
            before_ms = _watch(client, seconds)
            with _flooding(devnet.api_urls()[0], batches, sources) as stop:
                during_ms, peak_bytes = _watch_flood(devnet, client, seconds)
                flood = stop()
            recovery_s = _wait_until_normal(devnet, _mean(before_ms))
    if load.refused:
        raise SystemExit(f"{len(load.refused)} of {load.sent} transactions of the light load failed: {load.refused[0]}")
    ratio = round(_mean(during_ms) / _mean(before_ms), 2)
    notes = {
        "without_ms": round(_mean(before_ms), 1),
        "with_ms": round(_mean(during_ms), 1),
        "without_p99_ms": _p99(before_ms),
        "with_p99_ms": _p99(during_ms),
        "light_per_s": LIGHT_PER_S,
        "seconds": seconds,
        "addresses": sources,
        **flood,
    }
    peak_mb, recovery_s = round(peak_bytes / 2**20, 1), round(recovery_s, 1)
    return [
        Result(f"flood_block_interval_ratio/{name}", "times", ratio, ratio, ratio, 1, notes=notes),
        Result(f"rss_mb/flood_{name}", "MiB", peak_mb, peak_mb, peak_mb, 1),
        Result(f"flood_recovery_s/{name}", "s", recovery_s, recovery_s, recovery_s, 1),
    ]


# -- what is sent ------------------------------------------------------------------------------------------------------


def _sign_flood(client: Client) -> tuple[tuple[bytes, ...], ...]:
    """Per stream, bodies of batches, each half valid, half invalid: bad signature, broken bytes, another chain or key.

    A stream has senders of its own, so that streams need not wait for each other's nonces.
    """
    keys = [derive_key(CHAIN_ID, f"account{i}") for i in range(ACCOUNTS - LIGHT_ACCOUNTS)]
    sign = _signer(client)
    return tuple(tuple(_sign_batches(sign, keys[stream::STREAMS])) for stream in range(STREAMS))


def _sign_batches(sign: Callable[[Any, int], bytes], keys: Sequence[Any]) -> Iterator[bytes]:
    for number in range(PREPARED):
        txs: list[bytes] = []
        for i in range(number * BATCH // 2, (number + 1) * BATCH // 2):
            valid = sign(keys[i % len(keys)], i // len(keys))
            txs += [valid, _spoil(valid, i)]
        yield encode(tuple(txs))


def _spoil(valid: bytes, kind: int) -> bytes:
    signed = decode(SignedTx, valid)
    match kind % 4:
        case 0:
            return encode(msgspec.structs.replace(signed, signature=bytes(64)))
        case 1:
            return valid[: kind % len(valid)] + b"\xff" + valid[kind % len(valid) + 1 :]
        case 2:
            tx = msgspec.structs.replace(signed.tx, chain_id="another")
            return encode(msgspec.structs.replace(signed, tx=tx))
        case _:
            tx = msgspec.structs.replace(signed.tx, nonce=signed.tx.nonce + 1)
            return encode(msgspec.structs.replace(signed, tx=tx))


def _sign_light(client: Client, count: int) -> list[bytes]:
    keys = [derive_key(CHAIN_ID, f"account{i}") for i in range(ACCOUNTS - LIGHT_ACCOUNTS, ACCOUNTS)]
    sign = _signer(client)
    return [sign(keys[i % len(keys)], i // len(keys)) for i in range(count)]


def _signer(client: Client) -> Callable[[Any, int], bytes]:
    body = encode(transfer.Body(address_of(bytes(derive_key(CHAIN_ID, "owner0").verify_key)), 1, ""))
    network = client.network()
    fee = network.min_fee_uflk + 400 * network.fee_per_byte_uflk
    expires_ms = time.time_ns() // 1_000_000 + 1_800_000
    return lambda key, nonce: client.sign(key, "transfer", body, nonce=nonce, fee_uflk=fee, expires_ms=expires_ms)


@contextmanager
def _light_load(devnet: Devnet, txs: Sequence[bytes]) -> Iterator[Load]:
    """One transaction every 1/LIGHT_PER_S seconds to the nodes in turn, but the first."""
    load, stopping, urls = Load(), threading.Event(), devnet.api_urls()[1:]

    def send() -> None:
        begun_s = time.monotonic()
        with httpx.Client(timeout=30, trust_env=False) as http:
            for i, tx in enumerate(txs):
                if stopping.wait(max(0.0, begun_s + i / LIGHT_PER_S - time.monotonic())):
                    return
                load.sent += 1
                # One sender's transactions to one node: the next nonce is not refused for a gap.
                answer = http.post(f"{urls[i % LIGHT_ACCOUNTS % len(urls)]}/v1/txs", content=tx)
                if answer.status_code != 200:
                    load.refused.append(answer.text)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield load
    finally:
        stopping.set()
        thread.join()


@contextmanager
def _flooding(url: str, batches: Path, sources: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Flood until the function given is called; it returns what was sent and taken."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_flood, args=(theirs, url, str(batches), sources), daemon=True)
    process.start()

    def stop() -> dict[str, Any]:
        ours.send("stop")
        counts: dict[str, Any] = json.loads(ours.recv())
        process.join(30)
        return counts

    try:
        yield stop
    finally:
        if process.is_alive():
            process.kill()


def _flood(pipe: Connection, url: str, path: str, sources: int) -> None:
    """The process that floods: STREAMS threads, together FLOOD_PER_S, from 127.0.0.2, .3, ... in turn."""
    batches = decode(tuple[tuple[bytes, ...], ...], Path(path).read_bytes())
    stopping = threading.Event()
    begun_s = time.monotonic()
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(_send_stream, url, stream, sources, stopping) for stream in batches]
        pipe.recv()
        stopping.set()
        counts = [stream.result() for stream in streams]
    sent, taken, failed = (sum(column) for column in zip(*counts, strict=True))
    rate = round(sent * BATCH / (time.monotonic() - begun_s))
    pipe.send(json.dumps({"offered_per_s": rate, "batches": sent, "batches_taken": taken, "batches_failed": failed}))


def _send_stream(url: str, batches: Sequence[bytes], sources: int, stopping: threading.Event) -> tuple[int, int, int]:
    """Batches sent, taken, and left without an answer."""
    context = ssl.create_default_context()  # made once: httpx would read all certificates for each client
    clients = [
        httpx.Client(transport=httpx.HTTPTransport(verify=context, local_address=f"127.0.0.{2 + i}"), timeout=10)
        for i in range(sources)
    ]
    begun_s, sent, taken, failed = time.monotonic(), 0, 0, 0
    while not stopping.wait(max(0.0, begun_s + sent * BATCH * STREAMS / FLOOD_PER_S - time.monotonic())):
        sent += 1
        try:
            answer = clients[sent % sources].post(f"{url}/v1/txs/batch", content=batches[taken])
        except httpx.HTTPError:
            failed += 1
            continue
        taken += answer.status_code == 200
    return sent, taken, failed


# -- what is watched ---------------------------------------------------------------------------------------------------


def _watch(client: Client, seconds: float) -> list[int]:
    """Milliseconds between the header times of the blocks of the next `seconds`."""
    first = int(client.status()["height"])
    time.sleep(seconds)
    return _intervals(client, first)


def _watch_flood(devnet: Devnet, client: Client, seconds: float) -> tuple[list[int], int]:
    """The same, and the most memory that a node had."""
    first, end_s, peak = int(client.status()["height"]), time.monotonic() + seconds, 0
    nodes = [psutil.Process(pid) for pid in running_pids(devnet).values()]
    while time.monotonic() < end_s:
        peak = max(peak, *(node.memory_info().rss for node in nodes))
        time.sleep(0.5)
    return _intervals(client, first), peak


def _intervals(client: Client, first: int) -> list[int]:
    times: list[int] = []
    for block in client.pages("/blocks"):
        if block["height"] < first:
            break
        times.append(int(block["time_ms"]))
    return [late - early for late, early in pairwise(times)]


def _wait_until_normal(devnet: Devnet, usual_ms: float) -> float:
    """Seconds until the newest blocks come as before and nothing waits; fails after RECOVERY_S."""
    begun_s = time.monotonic()
    with Client(devnet.api_urls()[:1]) as client:
        while (passed_s := time.monotonic() - begun_s) < RECOVERY_S:
            newest = [int(block["time_ms"]) for block in client.get("/blocks", limit=QUIET_BLOCKS)["items"]]
            interval_ms = (newest[0] - newest[-1]) / (len(newest) - 1)
            if interval_ms <= QUIET_FACTOR * usual_ms and client.get("/mempool")["txs"] <= LIGHT_PER_S:
                return passed_s
            time.sleep(0.1)
    raise SystemExit(f"not normal {RECOVERY_S:.0f} s after the flood: blocks come every {interval_ms:.0f} ms")


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def _p99(values: Sequence[int]) -> int:
    return sorted(values)[len(values) * 99 // 100]
