"""What real execution leaves is stored, read back and served: one chain through all the rooms."""

import asyncio
from pathlib import Path

import httpx

from api.app import create_app
from api.json import _fields_of
from flockchain.codec import Canonical, encode
from flockchain.crypto import format_address, sha256
from flockchain.execution.genesis import build_state, load_state
from flockchain.store.chain_store import ChainStore
from flockchain.store.reader import Reader
from flockchain.txs import TYPES, transfer
from flockchain.types.rows import TABLES
from tests.api.node import Node
from tests.support.ledger import Ledger, make_genesis


def test_a_transfer_is_executed_stored_and_served(tmp_path: Path) -> None:
    genesis = make_genesis()
    ledger = Ledger(genesis)
    store = ChainStore(tmp_path / "ledger.sqlite")
    store.initialize(encode(genesis), build_state(genesis).rows())
    data = ledger.tx("alice", transfer.Body(ledger.address("bob"), 5, "for the books"))
    before = ledger.balance("bob")
    for txs in ((data,), ()):
        outcome = ledger.produce(*txs)
        store.persist_block(ledger.blocks[-1], ledger.commits[-1], outcome)
    _, tree = load_state(store.load_rows())
    assert tree.root == store.state_root() == ledger.tree.root

    node = Node(tmp_path)
    reader = Reader(tmp_path / "ledger.sqlite")
    app = create_app(reader, node, node.blobs)

    async def talk() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
            tx = (await client.get(f"/v1/txs/{sha256(data).hex()}")).json()
            assert (tx["height"], tx["code"], tx["body"]["memo"]) == (1, "ok", "for the books")
            bob = (await client.get(f"/v1/accounts/{format_address(ledger.address('bob'))}")).json()
            assert bob["balance_uflk"] == before + 5
            validators = (await client.get("/v1/validators")).json()["items"]
            assert [item["power"] > 0 for item in validators] == [True] * 4
            first = (await client.get("/v1/blocks/1")).json()
            second = (await client.get("/v1/blocks/2")).json()
            assert second["header"]["prev_state_root"] == first["state_root"]
            for path in ("/v1/status", "/v1/receipts", "/v1/stakes", "/v1/params"):
                assert (await client.get(path)).status_code == 200, path

    asyncio.run(talk())
    reader.close()
    node.close()
    store.close()


def test_every_struct_of_the_chain_has_a_json_form() -> None:
    """Rows, bodies of transactions, receipts and what they hold: all that a path may come to show."""
    shown = ("flockchain.types.", "flockchain.txs.", "flockchain.params")
    structs = [kind for kind in Canonical.__subclasses__() if kind.__module__.startswith(shown)]
    assert {*TABLES, *(tx_type.body for tx_type in TYPES.values())} <= set(structs)
    for kind in structs:
        _fields_of(kind)
