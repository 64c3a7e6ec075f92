"""Real nodes reach the height of an upgrade: those whose software has the version go on, the others stop before it."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from flockchain.execution import upgrade
from flockchain.node.node import NodeOptions
from flockchain.node.run import UPGRADE_EXIT_CODE
from flockchain.params import ConsensusParams, Params
from flockchain.txs import approve_change, propose_change
from flockchain.types.change import Setting, Upgrade
from flockchain.types.rows import Change
from flockchain.verify.audit import verify_home
from tests.support.cluster import Cluster, Machine
from tests.support.ledger import Ledger, make_address
from tests.support.processes import Processes, wait_until

OLD, NEW = NodeOptions(protocol_versions=(1,)), NodeOptions(protocol_versions=(1, 2))


@pytest.fixture(autouse=True)
def _second_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol version 2 that changes no rule: what a machine runs of it is up to its options."""
    monkeypatch.setitem(upgrade.UPGRADES, 2, lambda context: None)


def decide_change(cluster: Cluster, **content: Any) -> int:
    """Proposed by val0, approved by val1 and val2, on any node; its number."""
    world, node = cluster.world, cluster.machines[0].running
    expires_ms, deadline_ms = world.now_ms + 600_000, world.now_ms + 600_000
    body = propose_change.Body(validator=make_address("val0"), deadline_ms=deadline_ms, **content)
    node.submit(cluster.txs.tx("owner0", body, expires_ms=expires_ms))
    state = node.ledger.state
    before = {row.id for row in state.iterate(Change)}
    world.run_until(lambda: {row.id for row in state.iterate(Change)} != before, 5_000)
    (number,) = {row.id for row in state.iterate(Change)} - before
    for i in (1, 2):
        approval = approve_change.Body(make_address(f"val{i}"), number)
        node.submit(cluster.txs.tx(f"owner{i}", approval, expires_ms=expires_ms))
    world.run_until(lambda: state.get(Change, number).status == "approved", 5_000)
    return number


def version_of(machine: Machine, height: int) -> int:
    block = machine.store.block(height)
    assert block is not None
    version: int = block.header.protocol_version
    return version


def test_four_nodes_change_a_parameter_and_go_on_with_its_hash_in_their_headers(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    number = decide_change(cluster, settings=(Setting("consensus.idle_block_interval_ms", 4_000),))
    effective = cluster.machines[0].running.ledger.state.get(Change, number).effective_height
    cluster.run_to(effective + 2)
    old, new = (cluster.machines[3].store.block(h).header.params_hash for h in (effective - 1, effective))
    assert old != new == cluster.machines[3].running.ledger.params.hash()
    cluster.check_agreement()


def test_nodes_without_the_version_stop_before_its_height_and_those_with_it_go_on(tmp_path: Path) -> None:
    """Three of four have it: a quorum. The fourth has every block before, and its signer never sees the height."""
    cluster = Cluster(tmp_path)
    for machine in cluster.machines:
        machine.kill()
        machine.options = OLD if machine.name == "val3" else NEW
    for machine in cluster.machines:
        cluster.restart(machine)
    cluster.run_to(2)
    height = cluster.min_height() + 8
    decide_change(cluster, upgrade=Upgrade(2, "flockchain 0.2.0", height, 0))
    old = cluster.machines[3]
    cluster.world.run_until(lambda: all(m.height >= height + 3 for m in cluster.machines[:3]), 200_000)
    cluster.world.run_for(20_000)
    assert old.height == height - 1
    assert old.running.halt is not None
    assert "Install flockchain 0.2.0" in str(old.running.halt)
    assert max(slot[0] for slot in old.signer._signed) == height - 1, "nothing of that height was signed"
    assert [version_of(cluster.machines[0], h) for h in (height - 1, height, height + 1)] == [1, 2, 2]
    assert all(old.id in m.running._network.peers() for m in cluster.machines[:3]), "nobody banned it"
    old.kill()
    old.options = NEW
    cluster.restart(old)
    cluster.run_to(cluster.machines[0].height)
    cluster.check_agreement()


def test_all_nodes_without_the_version_stand_still_and_go_on_after_their_software_is_replaced(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    for machine in cluster.machines:
        machine.kill()
        machine.options = OLD
    for machine in cluster.machines:
        cluster.restart(machine)
    cluster.run_to(2)
    height = cluster.min_height() + 6
    decide_change(cluster, upgrade=Upgrade(2, "", height, 0))
    cluster.world.run_for(120_000)
    assert {machine.height for machine in cluster.machines} == {height - 1}
    for machine in cluster.machines:
        machine.kill()
        machine.options = NEW
        cluster.restart(machine)
    cluster.run_to(height + 2)
    assert version_of(cluster.machines[2], height) == 2
    cluster.check_agreement()


def test_a_node_that_syncs_without_the_version_stops_at_the_same_height(tmp_path: Path) -> None:
    """The observer catches up by blocks, many in one transaction, and keeps those before the upgrade."""
    cluster = Cluster(tmp_path, observers=1)
    observer = cluster.machines[4]
    observer.kill()
    cluster.run_to(2)
    height = cluster.min_height() + 6
    decide_change(cluster, upgrade=Upgrade(2, "", height, 0))
    cluster.run_to(height + 4, timeout_ms=200_000)
    observer.options = OLD
    cluster.restart(observer)
    cluster.world.run_until(lambda: observer.height == height - 1, 60_000)
    cluster.world.run_for(20_000)
    assert observer.height == height - 1
    assert not observer.running.is_catching_up
    assert len(observer.running._network.peers()) == 4, "it bans nobody for blocks that it cannot judge"


# -- one real process -------------------------------------------------------------------------------------------------

NEW_PROGRAM = """
import sys
from pathlib import Path
from flockchain.execution import upgrade
from flockchain.node.run import run_node
upgrade.UPGRADES[2] = lambda context: None
sys.exit(run_node(Path(sys.argv[1])))
"""


@pytest.mark.devnet
def test_a_process_exits_with_its_own_code_and_new_software_goes_on_from_the_same_home(tmp_path: Path) -> None:
    params = Params(consensus=ConsensusParams(idle_block_interval_ms=500))
    with Processes(tmp_path, validators=1, params=params) as processes:
        processes.wait_for_height(2)
        (node,) = processes.nodes
        height = node.height() + 8
        body = propose_change.Body(
            validator=make_address("val0"),
            upgrade=Upgrade(2, "flockchain 0.2.0", height, 0),
            deadline_ms=time.time_ns() // 1_000_000 + 600_000,
        )
        txs = Ledger(processes.genesis)
        data = txs.tx("owner0", body, expires_ms=time.time_ns() // 1_000_000 + 600_000)
        headers = {"content-type": "application/octet-stream"}
        answer = httpx.post(f"{node.url}/v1/txs", content=data, headers=headers, timeout=20, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert node.process is not None
        assert node.process.wait(timeout=40) == UPGRADE_EXIT_CODE == 79
        said = node.errors()
        for words in (
            f"block {height} and all after it follow protocol version 2",
            f"nothing of block {height} was signed or executed",
            "Install flockchain 0.2.0 and start it on this home",
        ):
            assert words in said
        assert "Traceback" not in said
        signed = json.loads(node.home.signer_state.read_text())
        assert str(height) not in json.dumps(signed.get("height", "")), "the signer never saw that height"

        started = time.monotonic()
        node.start()
        assert node.process.wait(timeout=20) == 79, "the old software stops at once"
        assert time.monotonic() - started < 15

        report = verify_home(node.home.path)
        assert report.ok

        node.process = subprocess.Popen([sys.executable, "-c", NEW_PROGRAM, str(node.home.path)])
        wait_until(lambda: node.height() >= height, 30)
        header = httpx.get(f"{node.url}/v1/blocks/{height}", trust_env=False).json()["header"]
        assert header["protocol_version"] == 2
        assert node.status()["protocol_version"] == 2
