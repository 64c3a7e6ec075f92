"""Chains made by earlier commits' code (tests/fixtures/chain-*.tar.gz) go on under this one."""

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flockchain.errors import Fault
from flockchain.execution.balances import get_account
from flockchain.execution.invariants import assert_all
from flockchain.genesis import load_genesis
from flockchain.store.chain_store import ChainStore
from flockchain.store.reader import Reader
from flockchain.store.tables import SCHEMA_VERSION
from flockchain.types.change import Setting
from flockchain.types.rows import Task, TrainingRound
from flockchain.verify.audit import verify_home
from tests.node.test_upgrade import decide_change
from tests.support.cluster import Cluster
from tests.support.ledger import Ledger, make_address

ARCHIVES = sorted((Path(__file__).parents[1] / "fixtures").glob("chain-*.tar.gz"))
MAX_BYTES = 300_000


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """`home`, the `base` of its task, and `facts.json` as the earlier code wrote them."""
    assert request.param.stat().st_size < MAX_BYTES
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path / "then", filter="data")
    return tmp_path / "then"


@pytest.fixture
def cluster(folder: Path, tmp_path: Path) -> Iterator[Cluster]:
    """Four real nodes, each with a copy of the home's file."""
    stores: list[ChainStore] = []

    def open_copy(name: str) -> ChainStore:
        data = tmp_path / name / "data"
        shutil.copytree(folder / "home" / "data", data)
        stores.append(ChainStore(data / "chain.sqlite"))
        return stores[-1]

    genesis = load_genesis(folder / "home" / "genesis.json")
    ChainStore(folder / "home" / "data" / "chain.sqlite").close()
    with closing(Reader(folder / "home" / "data" / "chain.sqlite")) as reader, reader.snapshot() as snapshot:
        start_ms = snapshot.tip().time_ms + 5_000
    made = Cluster(tmp_path, genesis=genesis, make_store=open_copy, start_ms=start_ms)
    made.txs = Ledger(genesis)
    yield made
    for store in stores:
        store.close()


def read_facts(folder: Path) -> dict[str, str | int]:
    found: dict[str, str | int] = json.loads((folder / "facts.json").read_text())
    return found


def test_it_is_verified_from_genesis_to_its_tip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a start has migrated the file."""
    path = folder / "home" / "data" / "chain.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        ((version,),) = connection.execute("SELECT CAST(value AS TEXT) FROM meta WHERE name = 'schema_version'")
    if int(version) < SCHEMA_VERSION:
        with pytest.raises(Fault, match="run `flockchain start` on its home"):
            verify_home(folder / "home")
    ChainStore(path).close()
    monkeypatch.setenv("FLOCKCHAIN_CACHE", str(folder / "no-cache"))
    report = verify_home(folder / "home", bases=[folder / "base"])
    assert report.problems == []
    assert (report.height, report.rounds, report.adapters) == (read_facts(folder)["height"], 2, 2)


def test_there_is_one_from_before_the_chain_could_change_its_rules() -> None:
    assert [path.name for path in ARCHIVES][:1] == ["chain-1.tar.gz"]


def test_four_nodes_go_on_with_it(cluster: Cluster, folder: Path) -> None:
    """Old state, old blocks and an old task under way; new blocks, a change of parameters, the task moves."""
    facts = read_facts(folder)
    height = int(facts["height"])
    for machine in cluster.machines:
        block = machine.store.block(height)
        assert block is not None
        assert block.block_id().hex() == facts["block_id"]
    node = cluster.machines[0].running
    for name in ("owner0", "owner1", "owner2"):
        cluster.txs._nonces[name] = get_account(node.ledger.state, make_address(name)).nonce
    state = node.ledger.state
    assert (state.get(Task, 1).status, state.get(TrainingRound, 1, 3).phase) == ("open", "train")
    decide_change(cluster, settings=(Setting("fees.min_fee_uflk", 200),))
    cluster.run_to(height + 5)
    assert node.ledger.params.fees.min_fee_uflk == 200
    cluster.world.run_until(lambda: state.get(Task, 1).status == "finished", 2 * 60_000)
    assert_all(node.ledger.state)
    shared = cluster.min_height()
    assert len({machine.store.block(shared).block_id() for machine in cluster.machines}) == 1
    for machine in cluster.machines:
        machine.kill()
    for machine in cluster.machines:
        cluster.restart(machine)
    cluster.run_to(cluster.min_height() + 1)
