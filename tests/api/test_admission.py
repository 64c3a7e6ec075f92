"""Who sends too much is told so, and when to go on, before its body is read; the others notice nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.admission import BURST_S, MAX_CLIENTS, Admission, RateLimited, TxRates
from api.app import create_app
from flockchain.codec import encode
from tests.api.node import Node, running_node


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def make(per_client: int = 8, of_all: int = 1_000) -> tuple[Admission, Clock]:
    clock = Clock()
    return Admission(TxRates(per_client, of_all), clock), clock


def send(admission: Admission, client: str, txs: int) -> int:
    """How many of `txs` single transactions were taken."""
    taken = 0
    for _ in range(txs):
        try:
            admission.check(client)
        except RateLimited:
            continue
        admission.spend(client, 1)
        taken += 1
    return taken


def test_a_client_keeps_to_its_rate_after_a_burst() -> None:
    admission, clock = make(per_client=8)
    assert send(admission, "10.0.0.1", 500) == 8 * BURST_S + 1
    clock.now_s += 1.0
    assert send(admission, "10.0.0.1", 500) == 8
    clock.now_s += 60.0
    assert send(admission, "10.0.0.1", 500) == 8 * BURST_S + 1


def test_a_refused_client_is_told_when_and_is_taken_then() -> None:
    admission, clock = make(per_client=8)
    admission.spend("10.0.0.1", 56)
    with pytest.raises(RateLimited, match=r"takes 8 transactions a second of a client: send on in 5 s") as refused:
        admission.check("10.0.0.1")
    clock.now_s += refused.value.retry_after_s
    admission.check("10.0.0.1")


def test_another_client_is_not_delayed_until_all_together_are_too_many() -> None:
    admission, _ = make(per_client=8, of_all=64)
    assert send(admission, "10.0.0.1", 500) == 17
    assert send(admission, "10.0.0.2", 500) == 17
    crowd = sum(send(admission, f"10.0.1.{i}", 500) for i in range(100))
    assert crowd == 64 * BURST_S + 1 - 34
    with pytest.raises(RateLimited, match="64 transactions a second of all clients"):
        admission.check("10.0.0.9")


def test_a_network_of_ipv6_is_one_client() -> None:
    admission, _ = make(per_client=8)
    assert sum(send(admission, f"2001:db8::{i:x}", 1) for i in range(1, 100)) == 17
    assert send(admission, "2001:db8:0:1::1", 1) == 1


def test_clients_remembered_are_limited() -> None:
    admission, _ = make(per_client=8, of_all=10**9)
    for i in range(2 * MAX_CLIENTS):
        admission.spend(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 1)
    assert len(admission._paid_until_s) == MAX_CLIENTS


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path) as node:
        node.app = create_app(node.reader, node, node.blobs, rates=TxRates(per_client=100, of_all=200))
        yield node


def test_over_http_it_is_429_with_retry_after_and_reading_goes_on(node: Node) -> None:
    async def story() -> list[httpx.Response]:
        transport = httpx.ASGITransport(node.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            batch = encode((b"x",) * 500)
            answers = [await client.post("/v1/txs/batch", content=batch) for _ in range(2)]
            return [*answers, await client.post("/v1/txs", content=b"x"), await client.get("/v1/status")]

    first, second, single, read = asyncio.run(story())
    assert [answer.status_code for answer in (first, second, single, read)] == [200, 429, 429, 200]
    assert len(first.json()["results"]) == 500
    assert single.json()["error"]["code"] == "rate-limited"
    assert int(single.headers["Retry-After"]) == 3
