"""`verify` recomputes a chain whose parameters and protocol version changed, and says what it cannot."""

from pathlib import Path

import pytest

from flockchain.errors import UpgradeNeeded
from flockchain.execution import upgrade
from flockchain.execution.context import Context
from flockchain.genesis import load_genesis
from flockchain.txs import approve_change, propose_change
from flockchain.types.change import Setting, Upgrade
from flockchain.types.rows import Account, Change
from flockchain.verify.audit import verify_home
from flockchain.verify.reexecution import reexecute
from tests.support.ledger import make_address
from tests.verify.chain import StoredLedger

UPGRADE_HEIGHT = 10


def pay_bob(context: Context) -> None:
    """A version that moves rows when it begins: alice's money becomes bob's."""
    state = context.state
    alice = state.get(Account, make_address("creator"))
    state.put(Account(alice.address, alice.balance_uflk - 5, alice.nonce))
    state.put(Account(make_address("bob"), 5, 0))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dozen blocks: a parameter changes, then version 2 begins at block 10 with a step of its own."""
    monkeypatch.setitem(upgrade.UPGRADES, 2, pay_bob)
    ledger = StoredLedger(tmp_path / "home")
    for content in (
        {"settings": (Setting("stake.jail_ms", 5), Setting("stake.liveness_window_ms", 9_000))},
        {"upgrade": Upgrade(2, "flockchain 0.2.0", UPGRADE_HEIGHT, 0)},
    ):
        deadline_ms = ledger.chain.time_ms + 600_000
        body = propose_change.Body(validator=make_address("val0"), deadline_ms=deadline_ms, **content)  # type: ignore[arg-type]
        ledger.must("owner0", body)
        number = max(row.id for row in ledger.state.iterate(Change))
        for i in (1, 2):
            ledger.must(f"owner{i}", approve_change.Body(make_address(f"val{i}"), number))
    ledger.skip(6_000, 6)
    assert ledger.balance("bob") == 5
    ledger.store.close()
    return tmp_path / "home"


def test_both_changes_are_recomputed(home: Path) -> None:
    report = verify_home(home)
    assert report.problems == []
    assert (report.height, report.unchecked) == (12, [])


def test_software_without_the_version_checks_up_to_it_and_names_the_rest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(upgrade.UPGRADES, 2)
    report = verify_home(home)
    assert report.problems == []
    assert report.height == UPGRADE_HEIGHT - 1
    said = " ".join(item.what for item in report.unchecked)
    assert "block 10 and all after it follow protocol version 2" in said
    assert "blocks 10 to 12" in said


def test_replay_goes_through_both_changes_and_stops_where_it_lacks_the_version(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genesis = load_genesis(home / "genesis.json")
    assert reexecute(home, genesis).height == 12
    monkeypatch.delitem(upgrade.UPGRADES, 2)
    with pytest.raises(UpgradeNeeded, match="block 10 and all after it follow protocol version 2"):
        reexecute(home, genesis)


def test_another_upgrade_step_is_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(upgrade.UPGRADES, 2, lambda context: None)
    problems = verify_home(home).problems
    assert problems[0].height == UPGRADE_HEIGHT
