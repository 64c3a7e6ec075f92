"""Each path answers what the store holds, in the documented form; each kind of bad input gets one clear error."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flockchain.codec import encode
from flockchain.crypto import format_address, sha256
from flockchain.errors import Refused
from flockchain.types.rows import Account
from tests.api.node import Node, running_node
from tests.api.rows import ADAPTER, DELEGATION, LEAVING, POOL, ROOT, STAKE, SUBMISSION, TASK, UPDATE, make_round
from tests.store.history import ALICE, BOB, BOND_UFLK, GENESIS_HASH, POOL_UFLK, VALIDATOR

Json = dict[str, Any]
UNKNOWN = "ab" * 32
CAROL = format_address(bytes(20))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path) as node:
        yield node


def ask(node: Node, method: str, path: str, **options: Any) -> httpx.Response:
    async def talk(client: httpx.AsyncClient) -> httpx.Response:
        return await client.request(method, path, **options)

    return converse(node, talk)


def converse(node: Node, talk: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        transport = httpx.ASGITransport(node.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return await talk(client)

    return asyncio.run(run())


def get(node: Node, path: str, **query: Any) -> Json:
    answer = ask(node, "GET", path, params=query)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def test_status_tells_the_tip_and_the_root_after_it(node: Node) -> None:
    block, _, outcome = node.produce()
    status = get(node, "/v1/status")
    assert status["chain_id"] == "test-1"
    assert status["height"] == 1
    assert status["block_id"] == block.block_id().hex()
    assert status["state_root"] == outcome.state_root.hex()
    assert status["time_ms"] == block.header.time_ms
    assert status["genesis_hash"] == GENESIS_HASH.hex()
    assert (status["catching_up"], status["peers"]) == (False, 1)
    assert status["validator"] == format_address(VALIDATOR)


def test_status_before_the_first_block(node: Node) -> None:
    status = get(node, "/v1/status")
    assert (status["height"], status["block_id"]) == (0, None)
    assert status["state_root"] == node.history.state_root.hex()


def test_a_block_by_height_and_the_latest(node: Node) -> None:
    first, second = node.produce(), node.produce()
    block = get(node, "/v1/blocks/1")
    assert block["block_id"] == first[0].block_id().hex()
    assert block["state_root"] == first[2].state_root.hex()
    assert block["txs"] == [result.hash.hex() for result in first[2].results]
    assert block["commit"]["signatures"][0]["validator"] == format_address(VALIDATOR)
    latest = get(node, "/v1/blocks/latest")
    assert latest["height"] == 2
    assert latest["header"]["prev_state_root"] == first[2].state_root.hex()
    assert latest["block_id"] == second[0].block_id().hex()
    assert [item["height"] for item in get(node, "/v1/blocks", limit=1)["items"]] == [2]


def test_a_transaction_with_its_result(node: Node) -> None:
    _, _, outcome = node.produce()
    found = get(node, f"/v1/txs/{outcome.results[1].hash.hex()}")
    assert (found["height"], found["position"], found["code"], found["kind"]) == (1, 1, "ok", "transfer")
    assert found["body"] == {"to": format_address(BOB), "amount_uflk": 1, "memo": ""}
    assert found["sender"] == format_address(ALICE)
    assert (found["nonce"], found["fee_uflk"]) == (1, 100)


def test_accounts_validators_stakes_and_params(node: Node) -> None:
    node.produce(STAKE)
    alice, bob, validator = format_address(ALICE), format_address(BOB), format_address(VALIDATOR)
    assert get(node, f"/v1/accounts/{alice}") == {"address": alice, "balance_uflk": POOL_UFLK - 2, "nonce": 2}
    shown = get(node, "/v1/validators")["items"][0]
    assert (shown["address"], shown["owner"], shown["power"]) == (validator, alice, BOND_UFLK)
    assert get(node, f"/v1/validators/{validator}") == shown
    assert [item["owner"] for item in get(node, "/v1/stakes")["items"]] in ([alice, bob], [bob, alice])
    assert get(node, "/v1/stakes", owner=bob)["items"][0]["target"] == "task:1"
    assert get(node, "/v1/stakes", target="task:1")["items"][0]["owner"] == bob
    assert get(node, "/v1/stakes", target=f"validator:{validator}")["items"][0]["owner"] == alice
    assert get(node, "/v1/stakes", owner=bob, target="task:2")["items"] == []
    params = get(node, "/v1/params")
    assert params["fees"]["min_fee_uflk"] == 100
    assert len(params["params_hash"]) == 64


def test_delegations_pools_and_what_is_unbonding(node: Node) -> None:
    """By each way to find them; what a delegation is worth and has earned is computed, not stored."""
    node.produce(POOL, DELEGATION, LEAVING)
    alice, bob = format_address(ALICE), format_address(BOB)
    (found,) = get(node, "/v1/stakes/delegations")["items"]
    assert (found["shares"], found["amount_uflk"], found["earned_uflk"]) == (100, 90, 7)
    for query in (
        {"delegator": bob},
        {"delegate": alice},
        {"delegate": alice, "target": "task:1"},
        {"delegate": alice, "target": "task:1", "delegator": bob},
    ):
        assert get(node, "/v1/stakes/delegations", **query)["items"] == [found]
    assert get(node, "/v1/stakes/delegations", delegator=alice)["items"] == []
    assert get(node, "/v1/stakes/delegations", delegate=alice, target="task:1", delegator=alice)["items"] == []
    node.produce()
    proven = get(node, "/v1/stakes/delegations", delegate=alice, target="task:1", delegator=bob, prove=True)
    assert proven["items"] == [found]
    assert proven["proof"]["value"] == encode(DELEGATION).hex()
    (pool,) = get(node, "/v1/stakes/pools", delegate=alice, target="task:1")["items"]
    assert (pool["share_ppm"], pool["rewards_uflk"]) == (500_000, 7)
    assert get(node, "/v1/stakes/pools")["items"] == get(node, "/v1/stakes/pools", delegate=alice)["items"] == [pool]
    (entry,) = get(node, "/v1/stakes/unbonding", owner=bob)["items"]
    assert (entry["amount_uflk"], entry["delegate"]) == (25, alice)
    assert get(node, "/v1/stakes/unbonding")["items"] == [entry]
    assert get(node, "/v1/stakes/unbonding", owner=alice)["items"] == []
    for path in ("/v1/stakes/delegations?target=task:1", f"/v1/stakes/delegations?prove=true&delegator={bob}",
                 "/v1/stakes/pools?target=task:1"):  # fmt: skip
        assert ask(node, "GET", path).status_code == 422


def test_a_task_and_its_round_with_everything_that_happened_in_it(node: Node) -> None:
    node.produce(TASK, make_round("settled"), SUBMISSION, ADAPTER, STAKE)
    task = get(node, "/v1/tasks/1")
    assert (task["spec"]["name"], task["global_root"]) == ("demo", None)
    assert get(node, "/v1/tasks")["items"] == [task]
    row = get(node, "/v1/tasks/1/rounds/1")
    assert row["submissions"][0]["root"] == ROOT.hex()
    assert row["verdicts"][0]["reason"] == "harms law"
    assert row["committee"] == [{"address": format_address(ALICE), "seats": 3}]
    lists = ("draws", "fetched", "sealed_votes", "open_votes", "attestations", "rewards", "slashes")
    assert [row[name] for name in lists] == [[]] * 7
    assert get(node, "/v1/tasks/1/rounds")["items"][0]["outcome"] == "nothing accepted"


def test_receipts_explain_themselves_and_page(node: Node) -> None:
    for _ in range(5):
        node.produce(transfers=0)
    page = get(node, "/v1/receipts", account=format_address(ALICE), kind="income", limit=2)
    assert [item["height"] for item in page["items"]] == [5, 4]
    assert page["items"][0]["facts"] == {"height": 5, "power": BOND_UFLK}
    assert page["items"][0]["reason"] == "signed block 5"
    rest = get(node, "/v1/receipts", cursor=page["next_cursor"])
    assert [item["height"] for item in rest["items"]] == [3, 2, 1]
    assert rest["next_cursor"] is None


def test_mempool_peers_health_and_metrics(node: Node) -> None:
    node.produce()
    assert get(node, "/v1/mempool")["max_txs"] == 3
    assert get(node, "/v1/peers")["items"][0]["address"] == format_address(BOB)
    assert get(node, "/health") == {"ready": True}
    metrics = ask(node, "GET", "/metrics").text
    assert "flockchain_height 1.0" in metrics
    assert 'flockchain_http_requests_total{method="GET",status="200"} 3.0' in metrics
    node.reason = "height 7 is missing: syncing from peers"
    answer = ask(node, "GET", "/health")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == node.reason


def test_a_posted_transaction_waits_and_then_is_final(node: Node) -> None:
    data = node.history.make_transfer(0)
    answer = ask(node, "POST", "/v1/txs", content=data)
    assert answer.json() == {"hash": sha256(data).hex()}
    waiting = get(node, f"/v1/txs/{sha256(data).hex()}")
    assert (waiting["height"], waiting["code"], waiting["kind"]) == (None, None, "transfer")
    node.produce()
    final = get(node, f"/v1/txs/{sha256(data).hex()}")
    assert (final["height"], final["code"]) == (1, "ok")
    assert set(final) == set(waiting)


def test_the_same_bytes_may_be_sent_again_while_they_wait_and_when_they_are_final(node: Node) -> None:
    data = node.history.make_transfer(0)
    answers = [ask(node, "POST", "/v1/txs", content=data), ask(node, "POST", "/v1/txs", content=data)]
    node.produce(transfers=1)
    node.pending.clear()
    answers.append(ask(node, "POST", "/v1/txs", content=data))
    answers.append(ask(node, "POST", "/v1/txs/batch", content=encode((data,))))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[2].json() == {"hash": sha256(data).hex()}
    assert answers[3].json() == {"results": [{"hash": sha256(data).hex()}]}


def test_a_wait_is_answered_by_the_block_itself(node: Node) -> None:
    data = node.history.make_transfer(0)
    path = f"/v1/txs/{sha256(data).hex()}"

    async def talk(client: httpx.AsyncClient) -> tuple[Json, float]:
        asked = asyncio.create_task(client.get(path, params={"wait_ms": 10_000}))
        while not node.events._waiters:
            await asyncio.sleep(0)
        began = time.perf_counter()
        node.produce()
        return (await asked).json(), time.perf_counter() - began

    found, seconds = converse(node, talk)
    assert found["height"] == 1
    assert seconds < 5, "the block woke the waiter, not the end of the wait"
    assert not node.events._waiters


def test_a_wait_ends_at_its_time_with_what_is_known(node: Node) -> None:
    data = node.history.make_transfer(0)
    ask(node, "POST", "/v1/txs", content=data)
    assert get(node, f"/v1/txs/{sha256(data).hex()}", wait_ms=20)["height"] is None
    assert ask(node, "GET", f"/v1/txs/{UNKNOWN}", params={"wait_ms": 20}).status_code == 404
    assert not node.events._waiters


def test_a_batch_answers_each_by_itself(node: Node) -> None:
    good = node.history.make_transfer(0)
    answer = ask(node, "POST", "/v1/txs/batch", content=encode((good, b"broken")))
    first, second = answer.json()["results"]
    assert first == {"hash": sha256(good).hex()}
    assert second["error"]["code"] == "malformed"


def test_adapter_bytes_are_private_until_publish(node: Node) -> None:
    node.produce(TASK, make_round("train"), SUBMISSION, ADAPTER)
    for method, options in (("GET", {}), ("PUT", {"content": UPDATE})):
        answer = ask(node, method, f"/v1/adapters/{ROOT.hex()}/blob", **options)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "not-published"
    assert not node.blobs.has(ROOT)


def test_an_adapter_is_uploaded_by_ranges_and_read_by_ranges(node: Node) -> None:
    node.produce(TASK, make_round("publish"), SUBMISSION, ADAPTER)
    path, size, half = f"/v1/adapters/{ROOT.hex()}/blob", len(UPDATE), 200_000
    assert get(node, f"/v1/adapters/{ROOT.hex()}")["is_held"] is False
    assert ask(node, "GET", path).status_code == 404
    first = ask(node, "PUT", path, content=UPDATE[:half], headers={"Content-Range": f"bytes 0-{half - 1}/{size}"})
    assert first.json() == {"root": ROOT.hex(), "received_bytes": half, "size_bytes": size, "complete": False}
    asked = ask(node, "PUT", path, headers={"Content-Range": f"bytes */{size}"})
    assert asked.json()["received_bytes"] == half
    rest = ask(node, "PUT", path, content=UPDATE[half:], headers={"Content-Range": f"bytes {half}-{size - 1}/{size}"})
    assert rest.json()["complete"] is True
    assert ask(node, "GET", path).content == UPDATE
    part = ask(node, "GET", path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, UPDATE[10:20])
    assert ask(node, "GET", path, headers={"Range": "bytes=-5"}).content == UPDATE[-5:]
    assert get(node, f"/v1/adapters/{ROOT.hex()}")["is_held"] is True


def test_an_upload_in_one_piece_streams_to_disk(node: Node) -> None:
    node.produce(TASK, make_round("commit"), SUBMISSION, ADAPTER)

    async def pieces() -> Any:
        for i in range(0, len(UPDATE), 70_000):
            yield UPDATE[i : i + 70_000]

    answer = ask(node, "PUT", f"/v1/adapters/{ROOT.hex()}/blob", content=pieces())
    assert answer.json()["complete"] is True


BAD: list[tuple[str, str, dict[str, Any], int, str, str]] = [
    ("GET", "/v1/nothing", {}, 404, "not-found", "no such path"),
    ("DELETE", "/v1/status", {}, 405, "wrong-method", "DELETE is not possible"),
    ("GET", "/v1/blocks/99", {}, 404, "not-found", "no block 99"),
    ("GET", "/v1/blocks/-1", {}, 422, "malformed", "is no height"),
    ("GET", "/v1/blocks/9999999999999999999999", {}, 422, "malformed", "is no height"),
    ("GET", "/v1/blocks/²", {}, 422, "malformed", "is no height"),
    ("GET", f"/v1/txs/{UNKNOWN}", {}, 404, "not-found", "neither in a block nor waiting"),
    ("GET", "/v1/txs/zz", {}, 422, "malformed", "is not a hash"),
    ("GET", "/v1/txs/" + "ab " * 21 + "a", {}, 422, "malformed", "is not a hash"),
    ("GET", f"/v1/txs/{UNKNOWN}?wait_ms=99999999", {}, 422, "malformed", "wait_ms"),
    ("GET", f"/v1/accounts/{CAROL}", {}, 404, "not-found", "has not met account"),
    ("GET", f"/v1/accounts/{CAROL[:-1]}q", {}, 422, "malformed", "wrong checksum"),
    ("GET", "/v1/accounts/bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", {}, 422, "malformed", "begins with 'bc'"),
    ("GET", f"/v1/validators/{CAROL}", {}, 404, "not-found", "no validator"),
    ("GET", "/v1/validators?limit=201", {}, 422, "malformed", "limit"),
    ("GET", "/v1/validators?limit=zero", {}, 422, "malformed", "limit"),
    ("GET", "/v1/validators?cursor=!!!", {}, 422, "malformed", "cursor"),
    ("GET", "/v1/stakes?owner=me", {}, 422, "malformed", "wrong checksum"),
    ("GET", "/v1/tasks/5", {}, 404, "not-found", "no task 5"),
    ("GET", "/v1/tasks/five", {}, 422, "malformed", "task"),
    ("GET", "/v1/tasks/99999999999999999999", {}, 422, "malformed", "task"),
    ("GET", "/v1/tasks/5/rounds", {}, 404, "not-found", "no task 5"),
    ("GET", "/v1/tasks/5/rounds/1", {}, 404, "not-found", "no round 1"),
    ("GET", "/v1/receipts?cursor=AAAA", {}, 422, "malformed", "another list"),
    ("GET", f"/v1/adapters/{UNKNOWN}", {}, 404, "not-found", "no transaction has recorded"),
    ("PUT", f"/v1/adapters/{UNKNOWN}/blob", {"content": b"x"}, 404, "not-found", "no transaction has recorded"),
    ("POST", "/v1/txs", {}, 422, "malformed", "body is empty"),
    ("POST", "/v1/txs", {"content": b"\xff\x00broken"}, 422, "malformed", "SignedTx"),
    ("POST", "/v1/txs", {"content": bytes(200_000)}, 413, "too-large", "exceeds 131072 bytes"),
    ("POST", "/v1/txs/batch", {"content": encode(())}, 422, "malformed", "1 to 500"),
    ("POST", "/v1/txs/batch", {"content": encode((b"x",) * 501)}, 422, "malformed", "this one 501"),
    ("POST", "/v1/txs/batch", {"content": b"[]"}, 422, "malformed", "tuple"),
    ("GET", "/v1/status", {"content": bytes(70_000)}, 413, "too-large", "exceeds 65536 bytes"),
]


@pytest.mark.parametrize(("method", "path", "options", "status", "code", "sentence"), BAD)
def test_bad_input_gets_one_clear_error(
    node: Node, method: str, path: str, options: dict[str, Any], status: int, code: str, sentence: str
) -> None:
    check_error(ask(node, method, path, **options), status, code, sentence)


def check_error(answer: httpx.Response, status: int, code: str, sentence: str) -> None:
    error = answer.json()
    assert set(error) == {"error"}
    assert set(error["error"]) == {"code", "message", "details"}
    assert (answer.status_code, error["error"]["code"]) == (status, code), answer.text
    assert sentence in error["error"]["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("headers", "content", "status", "sentence"),
    [
        ({"Content-Range": "bytes 0-9/10"}, b"x" * 10, 422, "the chain recorded"),
        ({"Content-Range": f"bytes 9-0/{len(UPDATE)}"}, b"x" * 10, 422, "ends before it begins"),
        ({"Content-Range": "lines 1-2"}, b"x", 422, "give it as"),
        ({"Content-Range": f"bytes 10-19/{len(UPDATE)}"}, b"x" * 10, 416, "continues at byte 0"),
        ({}, b"x" * (len(UPDATE) + 1), 400, "the file has"),
        ({}, b"x" * len(UPDATE), 400, "the uploaded bytes have root"),
    ],
)
def test_bad_uploads_are_refused_and_leave_nothing(
    node: Node, headers: dict[str, str], content: bytes, status: int, sentence: str
) -> None:
    node.produce(TASK, make_round("publish"), SUBMISSION, ADAPTER)
    answer = ask(node, "PUT", f"/v1/adapters/{ROOT.hex()}/blob", content=content, headers=headers)
    check_error(answer, status, answer.json()["error"]["code"], sentence)
    assert not node.blobs.has(ROOT)


@pytest.mark.parametrize(
    "wanted", ["bytes=999999999-", "bytes=9-5", "bytes=-", "bytes=-0", "lines=1-2", "bytes=0-1,3-4"]
)
def test_ranges_that_cannot_be_served_are_416(node: Node, tmp_path: Path, wanted: str) -> None:
    node.produce(TASK, make_round("publish"), SUBMISSION, ADAPTER)
    (tmp_path / "file").write_bytes(UPDATE)
    node.blobs.add_file(tmp_path / "file")
    answer = ask(node, "GET", f"/v1/adapters/{ROOT.hex()}/blob", headers={"Range": wanted})
    check_error(answer, 416, "bad-range", "range")


def test_a_body_that_lies_about_its_length_is_cut_off(node: Node) -> None:
    async def endless() -> Any:
        while True:
            yield bytes(60_000)

    check_error(ask(node, "POST", "/v1/txs", content=endless()), 413, "too-large", "exceeds 131072")


def test_a_refusal_carries_its_code_and_a_full_mempool_says_when_to_retry(node: Node) -> None:
    for nonce in range(3):
        assert ask(node, "POST", "/v1/txs", content=node.history.make_transfer(nonce)).status_code == 200
    full = ask(node, "POST", "/v1/txs", content=node.history.make_transfer(3))
    check_error(full, 503, "mempool-full", "3 transactions wait")
    assert full.headers["Retry-After"] == "1"


def test_a_bug_of_ours_is_logged_and_answered_in_the_same_form(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.broken = True
    with caplog.at_level(logging.CRITICAL):
        answer = ask(node, "POST", "/v1/txs", content=b"anything")
    check_error(answer, 500, "internal", "an error of its own")
    assert "bug of ours" not in answer.text


def test_a_store_that_fails_is_said_without_its_path(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    with node.store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE state_rows SET value = x'00'")
    with caplog.at_level(logging.CRITICAL):
        answer = ask(node, "GET", f"/v1/accounts/{format_address(ALICE)}")
    check_error(answer, 503, "fault", "cannot read its own files")
    assert "sqlite" not in answer.text


def test_the_pages_load_nothing_from_elsewhere(node: Node) -> None:
    for path in ("/", "/docs"):
        answer = ask(node, "GET", path)
        assert answer.headers["content-type"].startswith("text/html")
        assert "http://" not in answer.text
        assert "https://" not in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_every_path_of_openapi_has_a_sentence(node: Node) -> None:
    described = get(node, "/openapi.json")
    assert "/v1/tasks/{task}/rounds/{number}" in described["paths"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path} is not described"


def test_listeners_hear_blocks_phases_and_settlements_in_order(node: Node) -> None:
    async def talk(client: httpx.AsyncClient) -> list[str]:
        subscription = node.events.subscribe()
        node.produce(TASK, make_round("train"))
        node.produce(make_round("train"))
        node.produce(make_round("settled"))
        heard = [event.kind async for event in take(subscription, 6)]
        node.events.unsubscribe(subscription)
        return heard

    assert converse(node, talk) == ["block", "phase", "block", "block", "phase", "settlement"]


async def take(subscription: Any, count: int) -> Any:
    async for event in subscription:
        yield event
        count -= 1
        if not count:
            return


def test_a_listener_that_does_not_read_is_ended_not_waited_for(node: Node) -> None:
    async def talk(client: httpx.AsyncClient) -> int:
        subscription = node.events.subscribe()
        block, _, outcome = node.produce(transfers=0)
        for _ in range(2_000):
            node.events.publish_block(block, outcome)
        assert subscription.is_lagging
        return len([event async for event in subscription])

    assert converse(node, talk) == 1_024


def test_listeners_are_limited(node: Node) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(256):
            node.events.subscribe()
        with pytest.raises(Refused, match="256 listeners"):
            node.events.subscribe()

    converse(node, talk)


def test_an_account_row_alone_does_not_confuse_prefixes(node: Node) -> None:
    node.produce(Account(b"\xff" * 20, 1, 0))
    assert len(get(node, "/v1/validators")["items"]) == 1
