"""Through real sockets: a node serves proofs, the SDK fetches them, the command line verifies them."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from flockchain.cli import app
from flockchain.client import Client
from flockchain.codec import encode
from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.execution.staking import make_validator_target
from flockchain.light.proofs import read_row
from flockchain.txs import transfer
from flockchain.types.rows import Account, Stake, Task, TrainingRound, ValidatorRow
from tests.execution.stories import enroll, make_quick_genesis, wait_for_phase
from tests.light.chain import LightChain
from tests.light.node import ServingNode, serving
from tests.support.ledger import BALANCE_UFLK, Ledger, make_address

ALICE, BOB, NOBODY = make_address("alice"), make_address("bob"), make_address("nobody at all")
VAL0, OWNER0 = make_address("val0"), make_address("owner0")


@dataclass
class Net:
    chain: LightChain
    primary: str
    witness: str


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """A chain with a task in its first round, whose newest block is a second old, on two nodes."""
    chain = LightChain(Ledger(make_quick_genesis(trusting_period_ms=70_000)))
    enroll(chain.ledger)
    wait_for_phase(chain.ledger, "train")
    chain.ledger.produce(chain.ledger.tx("alice", transfer.Body(BOB, 5, "")))
    chain.run(2)
    folders = [tmp_path_factory.mktemp(name) for name in ("primary", "witness")]
    with (
        serving(ServingNode(folders[0], chain)) as primary,
        serving(ServingNode(folders[1], chain)) as witness,
    ):
        yield Net(chain, primary, witness)


def get(net: Net, path: str, status: int = 200) -> dict[str, Any]:
    answer = httpx.get(f"{net.primary}{path}", trust_env=False)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_account_with_its_proof(net: Net) -> None:
    name = format_address(ALICE)
    found = get(net, f"/v1/accounts/{name}?prove=true")
    plain = get(net, f"/v1/accounts/{name}")
    assert {key: found[key] for key in plain} == plain
    assert found["proof"]["height"] == found["header"]["height"] - 1 == net.chain.height - 1
    assert found["proof"]["state_root"] == found["header"]["prev_state_root"]
    assert len(found["commit"]["signatures"]) == 4


def test_an_unknown_account_is_404_with_the_proof_of_its_absence(net: Net) -> None:
    error = get(net, f"/v1/accounts/{format_address(NOBODY)}?prove=true", 404)["error"]
    assert error["code"] == "not-found"
    assert error["details"]["proof"]["value"] is None
    assert "prev_state_root" in error["details"]["header"]


def test_a_proof_of_stakes_is_of_one(net: Net) -> None:
    assert "give owner and target" in get(net, "/v1/stakes?prove=true", 422)["error"]["message"]
    found = get(net, f"/v1/stakes?owner={format_address(BOB)}&target=task:1&prove=true")
    assert [item["role"] for item in found["items"]] == ["trainer"]
    assert found["proof"]["key"].startswith("06")


def test_a_light_block_by_height_and_the_newest(net: Net) -> None:
    height = net.chain.height
    newest = get(net, "/v1/light/latest")
    assert (newest["height"], len(newest["validators"])) == (height, 4)
    assert newest["block_id"] == net.chain.blocks[height].block_id().hex()
    assert get(net, f"/v1/light/{height - 1}")["height"] == height - 1
    assert f"holds blocks up to {height}" in get(net, f"/v1/light/{height + 1}", 404)["error"]["message"]
    assert get(net, "/v1/light/soon", 422)["error"]["code"] == "malformed"


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (Account, (ALICE,)),
        (Account, (NOBODY,)),
        (ValidatorRow, (VAL0,)),
        (Stake, (OWNER0, make_validator_target(VAL0))),
        (Stake, (ALICE, "task:1")),
        (Task, (1,)),
        (Task, (2,)),
        (TrainingRound, (1, 1)),
        (TrainingRound, (1, 2)),
    ],
)
def test_the_sdk_reads_rows_without_trusting_the_node(net: Net, kind: Any, key: tuple[Any, ...]) -> None:
    with Client([net.primary]) as primary, Client([net.witness]) as witness:
        client = net.chain.client(primary, [witness], root=net.chain.height - 1)  # type: ignore[arg-type,list-item]
        row, _ = read_row(client, primary, kind, *key, now_ms=net.chain.now_ms)
        assert (None if row is None else encode(row)) == net.chain.proven_row(kind, *key).value
        assert [report.agrees for report in client.witness_reports] == [True]


@pytest.mark.parametrize("answer", [{}, {"canonical": None}, {"canonical": "zz"}, {"canonical": "90"}])
def test_a_node_that_speaks_nonsense_is_named(answer: dict[str, Any]) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    with Client(["http://nonsense"]) as client:
        client._http = httpx.Client(transport=transport)
        with pytest.raises(Refused, match="http://nonsense gave no readable LightBlock"):
            client.light_block(1)


# The command line


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch, net: Net) -> None:
    """The test's blocks are of 2023: so is the command's clock."""
    monkeypatch.setattr(time, "time_ns", lambda: net.chain.now_ms * 1_000_000)


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["light", *arguments])
    if isinstance(result.exception, Refused):
        raise result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def trusted(net: Net) -> str:
    block = net.chain.blocks[net.chain.height - 1]
    return f"{block.height}:{block.block_id().hex()}"


@pytest.mark.usefixtures("today")
def test_the_command_verifies_the_newest_block_and_an_account(net: Net, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "light.json"), "--node", net.primary, "--witness", net.witness]
    account = ["--account", format_address(BOB), "--json"]
    found = json.loads(run("--trust", trusted(net), *store, *account).stdout)
    assert (found["verified"], found["height"]) == (True, net.chain.height)
    assert found["block_id"] == net.chain.blocks[net.chain.height].block_id().hex()
    assert found["witnesses"] == [{"node": net.witness, "agrees": True, "message": ""}]
    bob = found["account"]
    assert bob["exists"]
    assert bob["balance_uflk"] == net.chain.ledger.balance("bob") < BALANCE_UFLK
    assert bob["height"] == net.chain.height - 1
    again = json.loads(run(*store, "--json", "--sequential").stdout)
    assert again["height"] == net.chain.height, "the file knows what to trust"


@pytest.mark.usefixtures("today")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "trusts no block yet: name one with --trust"),
        (["--trust", "7"], "--trust is HEIGHT:BLOCK_ID"),
        (["--trust", "0:" + "ab" * 32], "--trust is HEIGHT:BLOCK_ID"),
        (["--trust", "3:" + "ab" * 32, "--trusting-period-ms", "70000"], "no light block 3|you said to trust abab"),
    ],
)
def test_the_command_says_what_is_wrong(net: Net, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        run("--store", str(tmp_path / "light.json"), "--node", net.primary, *arguments)
    assert not (tmp_path / "light.json").exists()


def test_the_command_refuses_an_expired_trust(net: Net, tmp_path: Path) -> None:
    """By the real clock the chain of the test is years old."""
    with pytest.raises(Refused, match="begin again from it with --trust"):
        run("--store", str(tmp_path / "light.json"), "--node", net.primary, "--trust", trusted(net))
