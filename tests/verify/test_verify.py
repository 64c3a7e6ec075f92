"""A sound chain verifies; one altered row of any table, or one byte of an adapter, is found and named."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from flockchain.chunks import compute_file_root
from flockchain.codec import decode, encode
from flockchain.store.tables import make_id
from flockchain.types.chain import Commit, CommitSignature
from flockchain.types.rows import Account, compute_key
from flockchain.types.task import Coefficient
from flockchain.types.tx import Receipt
from flockchain.verify.audit import verify_home
from flockchain.verify.report import Report
from tests.support.ledger import make_address
from tests.verify.chain import Chain, make_chain


def alter(chain: Chain, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(chain.home / "data" / "chain.sqlite")) as connection, connection:
        assert connection.execute(sql, values).rowcount == 1, "exactly one row is altered"


def read(chain: Chain, sql: str, *values: object) -> bytes:
    with closing(sqlite3.connect(chain.home / "data" / "chain.sqlite")) as connection:
        data: bytes = connection.execute(sql, values).fetchone()[0]
        return data


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def say(report: Report) -> str:
    return "\n".join(f"{item.height}: {item.what}" for item in report.problems)


def test_a_sound_chain_is_recomputed_to_its_end(chain: Chain, base: Path) -> None:
    report = verify_home(chain.home, bases=[base])
    assert report.ok, say(report)
    assert (report.height, report.rounds, report.adapters) == (chain.tip, 2, 2)
    assert report.is_complete
    (private,) = report.unchecked
    assert "holdouts are private" in private.what


# One altered row in each table


def alter_balance(chain: Chain) -> int:
    key = compute_key(Account, make_address("creator"))
    row = decode(Account, read(chain, "SELECT value FROM state_rows WHERE key = ?", key))
    richer = encode(replace(row, balance_uflk=row.balance_uflk + 1))
    alter(chain, "UPDATE state_rows SET value = ? WHERE key = ?", richer, key)
    return chain.tip


def alter_ref(chain: Chain) -> int:
    key = read(chain, "SELECT key FROM state_rows WHERE ref = 'task:1' LIMIT 1")
    alter(chain, "UPDATE state_rows SET ref = 'task:2' WHERE key = ?", key)
    return chain.tip


def drop_state_row(chain: Chain) -> int:
    alter(chain, "DELETE FROM state_rows WHERE key = ?", compute_key(Account, make_address("judge0")))
    return chain.tip


def add_state_row(chain: Chain) -> int:
    row = Account(bytes(20), 1, 0)
    alter(chain, "INSERT INTO state_rows VALUES (?, NULL, ?)", compute_key(Account, row.address), encode(row))
    return chain.tip


def alter_block(chain: Chain) -> int:
    data = bytearray(read(chain, "SELECT block FROM blocks WHERE height = 9"))
    data[60] ^= 1
    alter(chain, "UPDATE blocks SET block = ? WHERE height = 9", bytes(data))
    return 9


def alter_newest_state_root(chain: Chain) -> int:
    alter(chain, "UPDATE blocks SET state_root = ? WHERE height = ?", bytes(32), chain.tip)
    return chain.tip


def alter_block_time(chain: Chain) -> int:
    alter(chain, "UPDATE blocks SET time_ms = time_ms + 1 WHERE height = 4")
    return 4


def forge_certificate(chain: Chain) -> int:
    commit = decode(Commit, read(chain, "SELECT commit_certificate FROM blocks WHERE height = 7"))
    first = CommitSignature(commit.signatures[0].validator, bytes(64))
    forged = encode(replace(commit, signatures=(first, *commit.signatures[1:])))
    alter(chain, "UPDATE blocks SET commit_certificate = ? WHERE height = 7", forged)
    return 7


def thin_certificate(chain: Chain) -> int:
    commit = decode(Commit, read(chain, "SELECT commit_certificate FROM blocks WHERE height = ?", chain.tip))
    thin = encode(replace(commit, signatures=commit.signatures[:2]))
    alter(chain, "UPDATE blocks SET commit_certificate = ? WHERE height = ?", thin, chain.tip)
    return chain.tip


def drop_block(chain: Chain) -> int:
    alter(chain, "DELETE FROM blocks WHERE height = 6")
    return 6


def alter_tx_bytes(chain: Chain) -> int:
    data = bytearray(read(chain, "SELECT bytes FROM txs WHERE id = ?", make_id(3, 0)))
    data[-1] ^= 1
    alter(chain, "UPDATE txs SET bytes = ? WHERE id = ?", bytes(data), make_id(3, 0))
    return 3


def alter_tx_result(chain: Chain) -> int:
    alter(chain, "UPDATE txs SET code = 'refused', message = 'no' WHERE id = ?", make_id(3, 0))
    return 3


def drop_tx(chain: Chain) -> int:
    alter(chain, "DELETE FROM txs WHERE id = ?", make_id(3, 0))
    return 3


def add_tx(chain: Chain) -> int:
    copy = "INSERT INTO txs SELECT ?, hash, kind, sender, code, message, fee_uflk, bytes FROM txs WHERE id = ?"
    alter(chain, copy, make_id(chain.tip + 1, 0), make_id(3, 0))
    return chain.tip + 1


def alter_receipt(chain: Chain) -> int:
    height = chain.settled_heights[0]
    record = read(chain, "SELECT id FROM receipts WHERE kind = 'reward' AND round = 1 LIMIT 1")
    receipt = decode(Receipt, read(chain, "SELECT body FROM receipts WHERE id = ?", record))
    body = encode(replace(receipt, amount_uflk=receipt.amount_uflk + 1))
    alter(chain, "UPDATE receipts SET body = ? WHERE id = ?", body, record)
    return height


def alter_receipt_column(chain: Chain) -> int:
    alter(
        chain, "UPDATE receipts SET amount_uflk = 0 WHERE id = (SELECT max(id) FROM receipts WHERE kind = 'settlement')"
    )
    return chain.settled_heights[1]


def drop_receipt(chain: Chain) -> int:
    alter(chain, "DELETE FROM receipts WHERE id = (SELECT id FROM receipts WHERE kind = 'slash')")
    return -1  # wherever the poisoner was slashed


def alter_stored_genesis(chain: Chain) -> int:
    alter(chain, "UPDATE meta SET value = ? WHERE name = 'genesis'", b"another")
    return 0


def alter_genesis_root(chain: Chain) -> int:
    alter(chain, "UPDATE meta SET value = ? WHERE name = 'genesis_state_root'", bytes(32))
    return 0


def flip_update(chain: Chain) -> int:
    root = chain.accepted_roots[0][0]
    flip(chain.home / "data" / "blobs" / root)
    return chain.submitted_heights[root]


def flip_global(chain: Chain) -> int:
    flip(chain.home / "data" / "blobs" / chain.result_roots[1])
    return chain.settled_heights[1]


@dataclass(frozen=True)
class Case:
    change: Callable[[Chain], int]
    said: str


CASES = [
    Case(alter_balance, "state row account flk1"),
    Case(alter_ref, "ref is 'task:2', the replay gives 'task:1'"),
    Case(drop_state_row, "is missing"),
    Case(add_state_row, "follows from no block"),
    Case(alter_block, "block"),
    Case(alter_newest_state_root, "state_root is 0000"),
    Case(alter_block_time, "block: time_ms is"),
    Case(forge_certificate, "certificate: the precommit of flk1"),
    Case(thin_certificate, "more than 2/3 is needed"),
    Case(drop_block, "the block is missing"),
    Case(alter_tx_bytes, "transaction 0: its bytes are not those of its hash"),
    Case(alter_tx_result, "transaction 0: code is 'refused', the replay gives 'ok'"),
    Case(drop_tx, "txs_root"),
    Case(add_tx, "txs holds a record of height"),
    Case(alter_receipt, "body is"),
    Case(alter_receipt_column, "amount_uflk is 0"),
    Case(drop_receipt, "is missing"),
    Case(alter_stored_genesis, "the genesis stored with the chain is not that of genesis.json"),
    Case(alter_genesis_root, "the state root stored for genesis"),
    Case(flip_update, "the bytes of adapter"),
    Case(flip_global, "the bytes of adapter"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.change.__name__)
def test_one_altered_row_is_found_and_named(chain: Chain, base: Path, case: Case) -> None:
    height = case.change(chain)
    report = verify_home(chain.home, bases=[base])
    found = [item for item in report.problems if case.said in item.what]
    assert found, f"not said: {case.said!r}; said:\n{say(report)}"
    assert height < 0 or found[0].height == height, say(report)


def test_a_broken_block_ends_the_replay_and_what_follows_is_named_as_unchecked(chain: Chain, base: Path) -> None:
    alter_block(chain)
    report = verify_home(chain.home, bases=[base])
    assert report.height == 8
    assert f"blocks 9 to {chain.tip} and the stored state" in report.unchecked[-1].what
    assert not report.is_complete


# Adapters


def test_missing_bytes_are_named_and_only_strict_fails(chain: Chain, base: Path) -> None:
    (chain.home / "data" / "blobs" / chain.accepted_roots[1][0]).unlink()
    report = verify_home(chain.home, bases=[base])
    assert report.ok
    assert not report.is_complete
    assert report.adapters == 1
    (left_out,) = (item for item in report.unchecked if not item.private)
    assert left_out.height == chain.settled_heights[1]
    assert chain.accepted_roots[1][0][:12] in left_out.what


def test_a_recomputed_global_adapter_stands_in_for_bytes_that_are_gone(chain: Chain, base: Path) -> None:
    (chain.home / "data" / "blobs" / chain.result_roots[0]).unlink()
    report = verify_home(chain.home, bases=[base])
    assert report.ok
    assert report.is_complete
    assert report.adapters == 2


class OtherNode:
    """As `Client.get_blob`, from a folder: an empty home's bytes are on another node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_blob(self, root: bytes, path: Path) -> bool:
        source = self.folder / root.hex()
        if not source.exists():
            return False
        shutil.copy(source, path)
        return compute_file_root(path)[0] == root


def test_bytes_come_from_a_node_where_the_home_lacks_them(chain: Chain, finished: Chain, base: Path) -> None:
    shutil.rmtree(chain.home / "data" / "blobs")
    client = OtherNode(finished.home / "data" / "blobs")
    report = verify_home(chain.home, client=client, bases=[base])  # type: ignore[arg-type]
    assert report.ok
    assert report.is_complete
    assert report.adapters == 2


def test_without_the_base_roots_are_recomputed_and_coefficients_taken_as_attested(chain: Chain) -> None:
    report = verify_home(chain.home)
    assert report.ok, say(report)
    assert report.adapters == 2
    assert not report.is_complete
    assert sum("coefficients were taken as attested" in item.what for item in report.unchecked) == 2


def test_a_committee_that_attested_another_root_is_found(tmp_path: Path, base: Path) -> None:
    chain = make_chain(tmp_path / "home", base, lie={"candidate": bytes(31) + b"\x01"})
    report = verify_home(chain.home, bases=[base])
    (problem,) = report.problems
    assert problem.height == chain.settled_heights[1]
    assert "the accepted updates give global adapter" in problem.what


def test_a_committee_that_attested_other_coefficients_is_found(tmp_path: Path, base: Path, finished: Chain) -> None:
    """The updates are the same in both chains, so are their roots but for the trainers' place in the draw."""
    honest = finished.accepted_roots[1]
    lie = {"coefficients": tuple(Coefficient(bytes.fromhex(root), 999_999) for root in sorted(honest))}
    chain = make_chain(tmp_path / "home", base, lie=lie)
    report = verify_home(chain.home, bases=[base])
    (problem,) = report.problems
    assert "other coefficients than were attested" in problem.what


# The command


def test_verification_needs_no_torch(chain: Chain, base: Path) -> None:
    program = (
        "import sys\n"
        "class Wall:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.split('.')[0] not in ('torch', 'transformers', 'peft'), name\n"
        "sys.meta_path.insert(0, Wall())\n"
        f"sys.argv = ['flockchain', 'verify', '--home', {str(chain.home)!r}, '--base', {str(base)!r}, '--strict']\n"
        "from flockchain.cli import main\n"
        "main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "2 global adapters" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "nothing differs"
