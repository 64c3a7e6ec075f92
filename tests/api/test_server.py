"""Over a real socket: events reach listeners, large files stream, and the SDK's calls fit the paths."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api.events import MAX_SUBSCRIBERS
from flockchain.client import Client
from flockchain.crypto import sha256
from tests.api.node import Node, running_node
from tests.api.rows import ADAPTER, ROOT, SUBMISSION, TASK, UPDATE, make_round
from tests.store.history import ALICE, POOL_UFLK


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path) as node:
        yield node


def serve(node: Node, talk: Callable[[str], Awaitable[Any]]) -> Any:
    """Run `talk(host:port)` on the loop that also serves the node, as in a node process."""

    async def run() -> Any:
        config = uvicorn.Config(node.app, port=0, log_level="critical", lifespan="off", ws="websockets-sansio")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            return await asyncio.wait_for(talk(f"127.0.0.1:{port}"), 60)
        finally:
            server.should_exit = True
            await serving

    return asyncio.run(run())


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not predicate():
            await asyncio.sleep(0.005)


def test_a_stopping_node_lets_go_who_waits_and_who_listens(node: Node) -> None:
    """Found by a scenario of real networks: requests that wait for a transaction held up the stop until cancelled."""

    async def talk(where: str) -> tuple[int, int]:
        path = f"http://{where}/v1/txs/{'ab' * 32}?wait_ms=10000"
        async with httpx.AsyncClient() as http, connect(f"ws://{where}/v1/events", proxy=None) as socket:
            waiting = asyncio.create_task(http.get(path))
            await until(lambda: node.events._waiting == 1 and len(node.events._subscriptions) == 1)
            node.events.close()
            answers = await asyncio.wait_for(waiting, 5), await asyncio.wait_for(http.get(path), 5)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)
        return answers[0].status_code, answers[1].status_code

    assert serve(node, talk) == (404, 404)


def test_a_listener_hears_what_it_chose(node: Node) -> None:
    async def talk(where: str) -> list[dict[str, Any]]:
        async with connect(f"ws://{where}/v1/events?kinds=block,phase", proxy=None) as socket:
            await until(lambda: len(node.events._subscriptions) == 1)
            node.produce(TASK, make_round("train"))
            heard = [json.loads(await socket.recv()) for _ in range(2)]
        await until(lambda: not node.events._subscriptions)
        return heard

    block, phase = serve(node, talk)
    assert (block["kind"], block["height"], block["tx_count"]) == ("block", 1, 2)
    assert (phase["kind"], phase["task"], phase["round"], phase["phase"]) == ("phase", 1, 1, "train")


def test_one_listener_too_many_is_told_to_try_later(node: Node) -> None:
    async def talk(where: str) -> int | None:
        for _ in range(MAX_SUBSCRIBERS):
            node.events.subscribe()
        async with connect(f"ws://{where}/v1/events", proxy=None) as socket:
            await socket.wait_closed()
            return socket.close_code

    assert serve(node, talk) == 1013


def test_the_sdk_reads_sends_waits_and_moves_files(node: Node, tmp_path: Path) -> None:
    node.produce(TASK, make_round("publish"), SUBMISSION, ADAPTER)
    source, copy = tmp_path / "update", tmp_path / "copy"
    source.write_bytes(UPDATE)
    data = node.history.make_transfer(2)

    async def talk(where: str) -> None:
        with Client([f"http://{where}"]) as client:
            assert (await asyncio.to_thread(client.account, ALICE))["balance_uflk"] == POOL_UFLK - 2
            assert (await asyncio.to_thread(client.account, bytes(20)))["nonce"] == 0
            assert (await asyncio.to_thread(client.network)).min_fee_uflk == 100
            tx_hash = await asyncio.to_thread(client.submit, data)
            assert tx_hash == sha256(data).hex()
            waiting = asyncio.create_task(asyncio.to_thread(client.wait, tx_hash))
            await until(lambda: bool(node.events._waiters))
            node.produce()
            assert (await waiting)["height"] == 2
            await asyncio.to_thread(client.put_blob, ROOT, source)
            assert await asyncio.to_thread(client.get_blob, ROOT, copy)
            pages = await asyncio.to_thread(lambda: list(client.pages("/receipts")))
            assert [item["height"] for item in pages] == [2, 1]

    serve(node, talk)
    assert copy.read_bytes() == UPDATE


def test_a_download_goes_on_where_it_broke_off(node: Node, tmp_path: Path) -> None:
    """Half of the bytes are there from before: only the rest is asked for. A wrong half is thrown away."""
    node.produce(TASK, make_round("publish"), SUBMISSION, ADAPTER)
    (tmp_path / "update").write_bytes(UPDATE)
    copy, partial = tmp_path / "copy", tmp_path / f".download-{ROOT.hex()}"
    asked: list[str | None] = []

    async def talk(where: str) -> None:
        with Client([f"http://{where}"]) as client:
            await asyncio.to_thread(client.put_blob, ROOT, tmp_path / "update")
            client._http.event_hooks["request"].append(lambda request: asked.append(request.headers.get("Range")))
            partial.write_bytes(UPDATE[: len(UPDATE) // 2])
            assert await asyncio.to_thread(client.get_blob, ROOT, copy)
            assert copy.read_bytes() == UPDATE
            partial.write_bytes(bytes(len(UPDATE) // 2))
            assert not await asyncio.to_thread(client.get_blob, ROOT, copy)
            assert not partial.exists()
            assert await asyncio.to_thread(client.get_blob, ROOT, copy)

    serve(node, talk)
    rest = f"bytes={len(UPDATE) // 2}-"
    assert asked == [rest, rest, None]


def test_a_body_announced_too_large_is_answered_before_it_is_sent(node: Node) -> None:
    async def talk(where: str) -> bytes:
        host, _, port = where.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/txs HTTP/1.1\r\nHost: node\r\nContent-Length: 999999999\r\n\r\n")
        head = await reader.readline()
        writer.close()
        return head

    assert b" 413 " in serve(node, talk)


def test_broken_http_leaves_the_server_serving(node: Node) -> None:
    async def talk(where: str) -> int:
        host, _, port = where.partition(":")
        for garbage in (
            b"\x00\xff\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/txs HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
        ):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(garbage)
            await writer.drain()
            writer.close()
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://{where}/v1/status")).status_code

    assert serve(node, talk) == 200
