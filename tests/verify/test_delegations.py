"""A chain with delegations, a slash of them and their income verifies; one share too many is found."""

import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from flockchain.codec import encode
from flockchain.execution.evidence import double_vote
from flockchain.execution.staking import make_validator_target
from flockchain.txs import claim_rewards, edit_validator, slash, stake, unstake
from flockchain.types.chain import PREVOTE, VoteBody
from flockchain.types.rows import Delegation, row_key
from flockchain.verify.audit import verify_home
from tests.support.ledger import make_address
from tests.verify.chain import StoredLedger

OWNER, TARGET = make_address("owner0"), make_validator_target(make_address("val0"))


def make_home(folder: Path) -> tuple[Path, Delegation]:
    """A stored chain in which two accounts delegate to val0, which then signs twice; one of their delegations."""
    ledger = StoredLedger(folder / "home")
    ledger.must("owner0", edit_validator.Body(make_address("val0"), "", b"", 900_000))
    for name in ("creator", "judge0"):
        ledger.must(name, stake.Body(TARGET, 5_000_000_000, delegate=OWNER))
    ledger.skip(4_000, blocks=4)
    ledger.must("judge0", claim_rewards.Body(delegate=OWNER, target=TARGET))
    place = VoteBody(PREVOTE, ledger.chain.height, 0, b"")
    votes = [ledger.sign_vote("val0", replace(place, block_id=block_id)) for block_id in (b"", b"x" * 32)]
    ledger.must("judge1", slash.Body("double-vote", encode(double_vote.make_evidence(*votes))))
    ledger.must("judge0", unstake.Body(TARGET, 1_000_000, OWNER))
    ledger.produce()
    ledger.store.close()
    return folder / "home", ledger.state.get(Delegation, OWNER, TARGET, make_address("creator"))


def test_delegations_are_recomputed_and_one_share_too_many_is_found(tmp_path: Path) -> None:
    home, row = make_home(tmp_path)
    report = verify_home(home)
    assert report.ok, [item.what for item in report.problems]
    forged = encode(replace(row, shares=row.shares + 1))
    with closing(sqlite3.connect(home / "data" / "chain.sqlite")) as connection, connection:
        connection.execute("UPDATE state_rows SET value = ? WHERE key = ?", (forged, row_key(row)))
    problems = [item.what for item in verify_home(home).problems]
    assert any("delegation" in problem for problem in problems), problems
