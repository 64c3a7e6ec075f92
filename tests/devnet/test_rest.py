"""Bad input at a live node: one clear error in the documented shape each, no traceback, and the node goes on."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from nacl.signing import SigningKey

from flockchain.client import Client
from flockchain.codec import decode, encode
from flockchain.crypto import format_address, sign, signing_context
from flockchain.txs import transfer
from flockchain.types.chain import TX_PURPOSE
from flockchain.types.tx import SignedTx, Tx
from tests.devnet.network import Network, make_address, make_key

pytestmark = pytest.mark.devnet
ALICE, BOB = "trainer0", "trainer1"
UNKNOWN = "ab" * 32
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Desk:
    """A live node, and the pieces of a good transaction to spoil."""

    http: httpx.Client
    client: Client

    def tx(self, **changes: Any) -> Tx:
        """A transfer of 1 uflk from Alice to Bob that would be accepted, but for the changes."""
        key = make_key(ALICE)
        good = self.client.build(key, transfer.KIND, transfer.Body(make_address(BOB), 1, ""))
        return replace(decode(SignedTx, good).tx, **changes)

    def sign(self, tx: Tx, key: SigningKey | None = None, genesis_hash: bytes | None = None) -> bytes:
        key = key or make_key(ALICE)
        context = signing_context(TX_PURPOSE, genesis_hash or self.client.network().genesis_hash)
        return encode(SignedTx(tx, bytes(key.verify_key), sign(key, context, encode(tx))))

    def post(self, data: bytes) -> httpx.Response:
        return self.http.post("/v1/txs", content=data, headers={"content-type": "application/octet-stream"})


@pytest.fixture
def desk(network: Network) -> Iterator[Desk]:
    url = network.urls[0]
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as http, Client([url]) as client:
        yield Desk(http, client)
        assert http.get("/health").status_code == 200
        client.send(make_key(BOB), transfer.KIND, transfer.Body(make_address(ALICE), 1, ""))
    network.check_nobody_signed_twice()


def check_error(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert document.keys() == {"error"}
    error = document["error"]
    assert error.keys() == {"code", "message", "details"}
    assert error["code"] == code, error
    assert error["message"]
    assert "Traceback" not in answer.text


READS = [
    ("/v1/blocks/999999999", 404, "not-found"),
    ("/v1/blocks/-1", 422, "malformed"),
    ("/v1/blocks/ten", 422, "malformed"),
    ("/v1/blocks/1e3", 422, "malformed"),
    (f"/v1/blocks/{10**30}", 422, "malformed"),
    (f"/v1/txs/{UNKNOWN}", 404, "not-found"),
    ("/v1/txs/xyz", 422, "malformed"),
    (f"/v1/txs/{UNKNOWN}?wait_ms=-5", 422, "malformed"),
    (f"/v1/accounts/{format_address(bytes(20))}", 404, "not-found"),
    ("/v1/accounts/flk1nonsense", 422, "malformed"),
    (f"/v1/validators/{format_address(bytes(20))}", 404, "not-found"),
    ("/v1/tasks/999999", 404, "not-found"),
    ("/v1/tasks/first", 422, "malformed"),
    ("/v1/tasks/999999/rounds/1", 404, "not-found"),
    ("/v1/tasks?limit=0", 422, "malformed"),
    ("/v1/tasks?limit=201", 422, "malformed"),
    ("/v1/tasks?cursor=%00%ff", 422, "malformed"),
    (f"/v1/adapters/{UNKNOWN}", 404, "not-found"),
    (f"/v1/adapters/{UNKNOWN}/blob", 404, "not-found"),
    ("/v1/adapters/..%2f..%2fgenesis.json/blob", 404, "not-found"),
    ("/v1/receipts?account=nobody", 422, "malformed"),
    ("/v1/receipts?task=x", 422, "malformed"),
    ("/v1/nothing", 404, "not-found"),
    ("/v2/status", 404, "not-found"),
]


def test_reads_of_unknown_ids_and_wrong_types(desk: Desk) -> None:
    for path, status, code in READS:
        check_error(desk.http.get(path), status, code)


def test_a_wrong_method_and_a_wrong_body_for_a_path(desk: Desk) -> None:
    check_error(desk.http.delete("/v1/status"), 405, "wrong-method")
    check_error(desk.http.post("/v1/tasks", json={"name": "mine"}), 405, "wrong-method")
    check_error(desk.http.put(f"/v1/adapters/{UNKNOWN}/blob", content=b"bytes"), 404, "not-found")


def test_bodies_that_are_no_transaction(desk: Desk) -> None:
    good = desk.sign(desk.tx())
    for data in [
        b"\xc1",
        b"\x00" * 64,
        b"not a transaction",
        json.dumps({"kind": "transfer"}).encode(),
        good[:-1],
        good + b"\x00",
        b"\x93" + good,
        b"\xdd\xff\xff\xff\xff" + b"\x00" * 32,
        b"\x91" * 60_000,
    ]:
        check_error(desk.post(data), 422, "malformed")
    check_error(desk.post(b""), 422, "malformed")


def test_a_huge_body_is_refused_before_it_is_read(desk: Desk) -> None:
    check_error(desk.post(b"\0" * (1 << 20)), 413, "too-large")
    check_error(desk.http.post("/v1/txs/batch", content=b"\0" * (17 << 20)), 413, "too-large")

    def stream() -> Iterator[bytes]:
        for _ in range(64):
            yield b"\0" * 65_536

    check_error(desk.http.post("/v1/txs", content=stream()), 413, "too-large")


Spoil = Callable[[Desk], bytes]
SPOILS: dict[str, tuple[Spoil, int, str]] = {
    "wrong chain": (lambda desk: desk.sign(desk.tx(chain_id="another-chain")), 400, "wrong-chain"),
    "another genesis": (lambda desk: desk.sign(desk.tx(), genesis_hash=bytes(32)), 400, "bad-signature"),
    "flipped signature": (lambda desk: desk.sign(desk.tx())[:-1] + b"\x7f", 400, "bad-signature"),
    "another's key": (lambda desk: desk.sign(desk.tx(), make_key(BOB)), 400, "wrong-key"),
    "unknown kind": (lambda desk: desk.sign(desk.tx(kind="mint")), 400, "unknown-kind"),
    "another kind's body": (lambda desk: desk.sign(desk.tx(kind="stake")), 422, "malformed"),
    "spent nonce": (lambda desk: desk.sign(desk.tx(nonce=0)), 400, "nonce-spent"),
    "nonce far ahead": (lambda desk: desk.sign(desk.tx(nonce=1_000_000)), 400, "nonce-gap"),
    "negative nonce": (lambda desk: desk.sign(desk.tx(nonce=-1)), 422, "malformed"),
    "no fee": (lambda desk: desk.sign(desk.tx(fee_uflk=0)), 400, "fee-too-low"),
    "expired": (lambda desk: desk.sign(desk.tx(expires_ms=1)), 400, "expired"),
    "expires too late": (
        lambda desk: desk.sign(desk.tx(expires_ms=time.time_ns() // 1_000_000 + 24 * HOUR_MS)),
        400,
        "expiry-too-far",
    ),
    "too little balance": (
        lambda desk: desk.sign(desk.tx(fee_uflk=1_000, body=encode(transfer.Body(make_address(BOB), 10**18, "")))),
        400,
        "insufficient-balance",
    ),
    "fee above the balance": (lambda desk: desk.sign(desk.tx(fee_uflk=10**18)), 400, "insufficient-balance"),
    "amount of zero": (
        lambda desk: desk.sign(desk.tx(body=encode(transfer.Body(make_address(BOB), 0, "")))),
        400,
        "zero-amount",
    ),
}


@pytest.mark.parametrize("name", SPOILS)
def test_a_transaction_with_one_deviation(desk: Desk, name: str) -> None:
    desk.client.send(make_key(ALICE), transfer.KIND, transfer.Body(make_address(BOB), 1, ""))  # nonce 0 is spent
    spoil, status, code = SPOILS[name]
    before = desk.client.account(make_address(ALICE))
    check_error(desk.post(spoil(desk)), status, code)
    assert desk.client.account(make_address(ALICE)) == before


def test_the_same_bytes_again_are_the_same_transaction(desk: Desk) -> None:
    data = desk.sign(desk.tx())
    first, second = desk.post(data), desk.post(data)
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert desk.client.wait(first.json()["hash"])["code"] == "ok"
    assert desk.post(data).json() == first.json()
