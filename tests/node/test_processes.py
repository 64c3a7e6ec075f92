"""Real node processes: start, decide, die by -9, come back, stop cleanly."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flockchain.node.signer import read_signed_height
from flockchain.txs import transfer
from tests.support.ledger import Ledger, make_address
from tests.support.processes import NodeProcess, Processes, wait_until

pytestmark = pytest.mark.devnet


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        processes.wait_for_height(2)
        yield processes


def send(node: NodeProcess, data: bytes) -> dict[str, object]:
    """Post and wait until final."""
    with httpx.Client(base_url=node.url, timeout=20, trust_env=False) as client:
        answer = client.post("/v1/txs", content=data, headers={"content-type": "application/octet-stream"})
        assert answer.status_code == 200, answer.text
        final: dict[str, object] = client.get(f"/v1/txs/{answer.json()['hash']}", params={"wait_ms": 10_000}).json()
        return final


def test_killed_at_random_moments_each_node_returns_and_all_agree(network: Processes) -> None:
    txs = Ledger(network.genesis)
    expires_ms = time.time_ns() // 1_000_000 + 600_000
    for i in range(8):
        victim, sender = network.nodes[i % 4], network.nodes[(i + 1) % 4]
        victim.kill()
        data = txs.tx("alice", transfer.Body(make_address("bob"), i + 1, ""), expires_ms=expires_ms)
        assert send(sender, data)["code"] == "ok"
        victim.start()
        wait_until(lambda victim=victim, sender=sender: victim.height() >= sender.height() > 0, 30)  # type: ignore[misc]
    height = max(node.height() for node in network.nodes)
    network.wait_for_height(height)
    blocks = [httpx.get(f"{node.url}/v1/blocks/{height}", trust_env=False).json() for node in network.nodes]
    assert len({block["state_root"] for block in blocks}) == 1
    assert "signer-refused" not in "".join(node.errors() for node in network.nodes)


def test_sigterm_stops_cleanly_and_the_chain_goes_on_after_a_restart_of_all(network: Processes) -> None:
    assert [node.kill(signal.SIGTERM) for node in network.nodes] == [0, 0, 0, 0]
    for node in network.nodes:
        node.start()
    txs = Ledger(network.genesis)
    wait_until(lambda: all(node.status().get("peers") == 3 for node in network.nodes), 20)
    data = txs.tx("alice", transfer.Body(make_address("bob"), 1, ""), expires_ms=time.time_ns() // 1_000_000 + 60_000)
    assert send(network.nodes[2], data)["code"] == "ok"


def test_a_second_process_on_a_running_home_is_refused(network: Processes) -> None:
    node = network.nodes[0]
    second = NodeProcess(node.home, 0)
    second.start()
    assert second.process is not None
    assert second.process.wait(timeout=20) == 1
    assert "two of them would sign twice" in second.errors()
    assert node.height() >= 2


def test_a_validator_whose_blocks_were_deleted_fetches_them_and_votes_where_it_never_voted(network: Processes) -> None:
    """Signer state and log stay. Three others go on meanwhile, so the height that it signed last is behind it."""
    node, others = network.nodes[3], network.nodes[:3]
    assert node.kill(signal.SIGTERM) == 0
    signed = read_signed_height(node.home.signer_state)[1]
    node.home.chain.unlink()
    wait_until(lambda: min(other.height() for other in others) > signed, 30)
    node.start()
    wait_until(lambda: read_signed_height(node.home.signer_state)[1] > signed + 1, 30)
    said = node.errors()
    assert f"ends at height 0 and this key signed at height {signed}" in said
    assert f"this validator votes from height {signed + 1} on" in said
    assert "signer-refused" not in said


def test_a_validator_whose_log_was_deleted_leaves_the_height_in_progress_to_the_others(network: Processes) -> None:
    """With two of four gone the height cannot end; the third signs in it, dies, and its log is deleted."""
    node, gone = network.nodes[3], network.nodes[:2]
    for other in gone:
        other.kill()
    wait_until(lambda: read_signed_height(node.home.signer_state)[1] == node.height() + 1, 30)
    node.kill()
    signed = read_signed_height(node.home.signer_state)[1]
    node.home.wal.unlink()
    for one in (*gone, node):
        one.start()
    wait_until(lambda: node.height() == signed, 60)
    expires_ms = time.time_ns() // 1_000_000 + 60_000
    data = Ledger(network.genesis).tx("alice", transfer.Body(make_address("bob"), 1, ""), expires_ms=expires_ms)
    assert send(node, data)["code"] == "ok"
    wait_until(lambda: read_signed_height(node.home.signer_state)[1] > signed, 30)
    said = node.errors()
    assert f"holds nothing of height {signed}, at which this key signed already" in said
    assert f"this validator votes from height {signed + 1} on" in said
    assert "Traceback" not in said


def test_a_home_without_its_signer_state_refuses_to_start(tmp_path: Path) -> None:
    processes = Processes(tmp_path, validators=1)
    node = processes.nodes[0]
    node.home.signer_state.unlink()
    node.start()
    assert node.process is not None
    assert node.process.wait(timeout=20) == 1
    assert "could sign twice" in node.errors()
    assert "Traceback" not in node.errors()
