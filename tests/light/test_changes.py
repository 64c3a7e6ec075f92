"""REST, light client and its command across a change of parameters and of the protocol version."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from flockchain.cli import app
from flockchain.crypto import format_address
from flockchain.execution import upgrade
from flockchain.params import DAY_MS
from flockchain.txs import approve_change, propose_change
from flockchain.types.change import Setting, Upgrade
from flockchain.types.rows import Change
from tests.light.chain import LightChain
from tests.light.node import ServingNode, serving
from tests.support.ledger import BOND_UFLK, Ledger, make_address, make_genesis

UPGRADE_HEIGHT = 12


class Net:
    """A chain of 20 blocks: parameters change at block 5, the version at block 12; one change stays open."""

    def __init__(self) -> None:
        self.chain = LightChain(Ledger(make_genesis()))
        self.chain.run(1)
        self.setting = self.propose(settings=(Setting("stake.trusting_period_ms", 19 * DAY_MS),))
        self.approve(self.setting, 1, 2)
        self.upgrade = self.propose(upgrade=Upgrade(2, "flockchain 0.2.0", UPGRADE_HEIGHT, 0))
        self.approve(self.upgrade, 1, 2)
        self.open = self.propose(settings=(Setting("fees.min_fee_uflk", 200),))
        self.approve(self.open, 3)
        self.chain.run(20 - self.chain.height)

    def propose(self, **content: Any) -> int:
        ledger = self.chain.ledger
        deadline_ms = ledger.chain.time_ms + DAY_MS
        body = propose_change.Body(validator=make_address("val0"), deadline_ms=deadline_ms, **content)
        self.chain.produce(ledger.tx("owner0", body))
        return max(row.id for row in ledger.state.iterate(Change))

    def approve(self, number: int, *indexes: int) -> None:
        ledger = self.chain.ledger
        bodies = {f"owner{i}": approve_change.Body(make_address(f"val{i}"), number) for i in indexes}
        self.chain.produce(*(ledger.tx(name, body) for name, body in bodies.items()))

    @contextmanager
    def serve(self, folder: Path) -> Iterator[str]:
        with serving(ServingNode(folder, self.chain)) as url:
            yield url


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    monkeypatch.setitem(upgrade.UPGRADES, 2, lambda context: None)
    return Net()


def get(url: str, path: str, status: int = 200) -> dict[str, Any]:
    answer = httpx.get(url + path, trust_env=False)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_rest_shows_changes_with_who_agrees_and_the_parameters_of_every_block(net: Net, tmp_path: Path) -> None:
    with net.serve(tmp_path) as url:
        listed = get(url, "/v1/changes")["items"]
        assert [(c["id"], c["status"]) for c in listed] == [
            (net.setting, "enacted"),
            (net.upgrade, "enacted"),
            (net.open, "open"),
        ]
        one = get(url, f"/v1/changes/{net.open}")
        assert (one["approved_power"], one["total_power"]) == (2 * BOND_UFLK, 4 * BOND_UFLK)
        assert sorted((a["validator"], a["power"]) for a in one["approvals"]) == sorted(
            (format_address(make_address(name)), BOND_UFLK) for name in ("val0", "val3")
        )
        assert one["settings"] == [{"path": "fees.min_fee_uflk", "value": 200}]
        assert listed[1]["upgrade"]["release"] == "flockchain 0.2.0"
        assert get(url, "/v1/changes/999", 404)["error"]["code"] == "not-found"
        for height in (1, listed[0]["effective_height"] - 1, listed[0]["effective_height"], UPGRADE_HEIGHT, 20):
            header = get(url, f"/v1/blocks/{height}")["header"]
            found = get(url, f"/v1/params?height={height}")
            assert found["params_hash"] == header["params_hash"]
            assert found["protocol_version"] == header["protocol_version"]
        assert get(url, "/v1/params") == get(url, "/v1/params?height=21")
        assert get(url, "/v1/params?height=22", 404)["error"]["code"] == "not-found"
        status = get(url, "/v1/status")
        assert (status["protocol_version"], status["newest_protocol_version"]) == (2, 1)


@pytest.mark.parametrize("mode", ["skipping", "sequential"])
def test_the_light_client_follows_from_before_both_changes_to_after_them(net: Net, mode: Any) -> None:
    client = net.chain.client(mode=mode)
    block = client.update(net.chain.now_ms)
    assert (block.height, block.header.protocol_version) == (20, 2)
    assert client.verify_height(UPGRADE_HEIGHT - 1, net.chain.now_ms).header.protocol_version == 1


def test_the_command_takes_the_trusting_period_of_the_block_that_it_trusts(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parameters have changed since: the present ones are not those of block 1. The clock is the chain's."""
    monkeypatch.setattr("flockchain.cli.light._now_ms", lambda: net.chain.now_ms)
    root = net.chain.blocks[1].block_id().hex()
    with net.serve(tmp_path) as url:
        store = ["--store", str(tmp_path / "light.json"), "--node", url]
        ran = CliRunner().invoke(app, ["light", "--trust", f"1:{root}", "--json", *store], catch_exceptions=False)
        answer = json.loads(ran.stdout)
        assert (answer["verified"], answer["height"], answer["protocol_version"]) == (True, 20, 2)
        again = CliRunner().invoke(app, ["light", *store], catch_exceptions=False)
        assert "follows protocol version 2, this program knows 1" in " ".join(again.output.split())
