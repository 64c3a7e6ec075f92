"""Snapshots, export and import, replay and rollback, as an operator types them, on a home whose node has stopped."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flockchain.codec import decode, encode
from flockchain.errors import Fault, Refused
from flockchain.genesis import save_genesis
from flockchain.node.home import HomeLock, create_home
from flockchain.node.signer import PersistedSigner, read_signed_height
from flockchain.store.chain_store import ChainStore
from flockchain.types.chain import PRECOMMIT, VoteBody
from flockchain.types.rows import Account, compute_key
from flockchain.verify.audit import verify_home
from tests.support.command import Shell
from tests.support.ledger import make_address, make_genesis, make_key
from tests.support.stored_chain import StoredChain

TIP = 12


@pytest.fixture
def chain(tmp_path: Path) -> StoredChain:
    """Four validators of equal power; this home is the first's."""
    chain = StoredChain(tmp_path / "node")
    chain.grow(TIP, txs=2)
    chain.store.close()
    return chain


@pytest.fixture
def fresh(chain: StoredChain, tmp_path: Path) -> Path:
    """Another home of the same network, without a chain."""
    home = create_home(tmp_path / "fresh")
    save_genesis(chain.genesis, home.genesis)
    return home.path


def read_tip(home: Path) -> tuple[int, bytes]:
    store = ChainStore(home / "data" / "chain.sqlite")
    try:
        return store.height, store.state_root()
    finally:
        store.close()


def sign_up_to(chain: StoredChain, height: int) -> PersistedSigner:
    signer = PersistedSigner(make_key("val0"), chain.home.signer_state, chain.genesis_hash)
    signer.sign_vote(VoteBody(PRECOMMIT, height, 0, b"b" * 32))
    return signer


# -- snapshots --------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_made_listed_and_restored_elsewhere(shell: Shell, chain: StoredChain, fresh: Path) -> None:
    made = shell.must("snapshot", "create", "--home", chain.home.path)
    assert (made["height"], made["state_root"]) == (TIP, chain.roots[TIP].hex())
    assert shell.must("snapshot", "list", "--home", chain.home.path) == [made]
    restored = shell.must("snapshot", "restore", made["folder"], "--state-root", made["state_root"], "--home", fresh)
    assert (restored["height"], restored["first_height"]) == (TIP, TIP)
    assert read_tip(fresh) == (TIP, chain.roots[TIP])


def test_an_own_snapshot_replaces_a_lost_chain_and_the_key_signs_only_above(shell: Shell, chain: StoredChain) -> None:
    sign_up_to(chain, TIP + 1)
    shell.must("snapshot", "create", "--home", chain.home.path)
    ran = shell("snapshot", "restore", TIP, "--home", chain.home.path)
    assert "holds blocks up to 12: nothing was changed" in ran.err
    for path in chain.home.data.glob("chain.sqlite*"):
        path.unlink()
    restored = shell.must("snapshot", "restore", TIP, "--home", chain.home.path)
    assert restored["signs_from_height"] == TIP + 2
    assert read_tip(chain.home.path) == (TIP, chain.roots[TIP])


def test_a_state_from_elsewhere_needs_a_root_and_must_have_it(shell: Shell, chain: StoredChain, fresh: Path) -> None:
    folder = shell.must("snapshot", "create", "--home", chain.home.path)["folder"]
    assert "needs --state-root HEX" in shell("snapshot", "restore", folder, "--home", fresh).err
    ran = shell("snapshot", "restore", folder, "--state-root", chain.roots[3].hex(), "--home", fresh)
    assert ran.code == 1
    assert "leads to the state root" in ran.err
    assert "64 hex digits" in shell("snapshot", "restore", folder, "--state-root", "5f", "--home", fresh).err
    assert "no exported file" in shell("snapshot", "restore", "none", "--state-root", "5f", "--home", fresh).err
    store = ChainStore(fresh / "data" / "chain.sqlite")
    assert (store.height, store.genesis_bytes) == (0, None)
    store.close()


# -- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [None, 5])
def test_an_exported_state_has_the_same_root_when_it_is_restored(
    shell: Shell, chain: StoredChain, fresh: Path, tmp_path: Path, height: int | None
) -> None:
    out, at = tmp_path / "state.jsonl", height or TIP
    options = ["--height", str(height)] if height else []
    written = shell.must("export", "--home", chain.home.path, "--out", out, *options)
    assert (written["height"], written["state_root"]) == (at, chain.roots[at].hex())
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 1 + written["rows"]
    alice = next(line for line in lines if line.get("key") == compute_key(Account, make_address("alice")).hex())
    assert alice["table"] == "account"
    assert alice["row"]["nonce"] == 2 * at
    shell.must("snapshot", "restore", out, "--state-root", written["state_root"], "--home", fresh)
    assert read_tip(fresh) == (at, chain.roots[at])


def test_a_changed_export_is_refused(shell: Shell, chain: StoredChain, fresh: Path, tmp_path: Path) -> None:
    out = tmp_path / "state.jsonl"
    root = shell.must("export", "--home", chain.home.path, "--out", out)["state_root"]
    key = compute_key(Account, make_address("bob")).hex()
    lines = out.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if key in line)
    item = json.loads(lines[at])
    account = decode(Account, bytes.fromhex(item["value"]))
    item["value"] = encode(Account(account.address, account.balance_uflk + 1, account.nonce)).hex()
    lines[at] = json.dumps(item)
    out.write_text("\n".join(lines))
    assert "leads to the state root" in shell("snapshot", "restore", out, "--state-root", root, "--home", fresh).err
    out.write_text("{}\n")
    assert (
        "no document of `flockchain export`"
        in shell("snapshot", "restore", out, "--state-root", root, "--home", fresh).err
    )


def test_an_export_goes_to_stdout_and_replaces_no_file(shell: Shell, chain: StoredChain, tmp_path: Path) -> None:
    ran = shell("export", "--home", chain.home.path)
    assert ran.code == 0
    assert json.loads(ran.out.splitlines()[0])["height"] == TIP
    (tmp_path / "there").write_text("mine")
    assert "cannot write" in shell("export", "--home", chain.home.path, "--out", tmp_path / "there").err
    assert (tmp_path / "there").read_text() == "mine"


# -- replay -----------------------------------------------------------------------------------------------------------


def test_a_replay_leads_to_the_stored_root(shell: Shell, chain: StoredChain) -> None:
    found = shell.must("replay", "--home", chain.home.path)
    assert found == {"ok": True, "from_height": 0, "height": TIP, "state_root": chain.roots[TIP].hex()}
    assert shell.must("replay", "--home", chain.home.path, "--to", 4)["state_root"] == chain.roots[4].hex()
    assert "newest block is 12" in shell("replay", "--home", chain.home.path, "--to", 13).err


def test_a_replay_begins_at_the_nearest_snapshot_unless_told(shell: Shell, chain: StoredChain) -> None:
    shell.must("snapshot", "create", "--home", chain.home.path)
    chain.store = ChainStore(chain.home.chain)
    chain.grow(2)
    chain.store.close()
    assert shell.must("replay", "--home", chain.home.path)["from_height"] == TIP
    assert shell.must("replay", "--home", chain.home.path, "--to", TIP - 1)["from_height"] == 0
    assert shell.must("replay", "--home", chain.home.path, "--from-genesis")["from_height"] == 0


@pytest.mark.parametrize(("column", "what"), [("state_root", "the state root is"), ("results_root", "other results")])
def test_a_replay_names_the_first_difference(shell: Shell, chain: StoredChain, column: str, what: str) -> None:
    with closing(sqlite3.connect(chain.home.chain)) as connection, connection:
        connection.execute(f"UPDATE blocks SET {column} = ? WHERE height >= 7", (bytes(32),))
    ran = shell("replay", "--home", chain.home.path, "--json")
    assert ran.code == 1
    assert (ran.json["ok"], ran.json["height"]) == (False, 7)
    assert what in ran.json["what"]


# -- rollback ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [None, 3])
def test_a_rollback_leaves_the_chain_as_it_was_at_that_height(shell: Shell, chain: StoredChain, to: int | None) -> None:
    height = to or TIP - 1
    shell.must("snapshot", "create", "--home", chain.home.path)
    found = shell.must("rollback", "--home", chain.home.path, *(["--to", str(to)] if to else []))
    assert (found["height"], found["forgotten_blocks"]) == (height, TIP - height)
    assert read_tip(chain.home.path) == (height, chain.roots[height])
    assert shell.must("snapshot", "list", "--home", chain.home.path) == []
    assert verify_home(chain.home.path).ok, "nothing of the blocks above is left"


def test_after_a_rollback_the_same_blocks_follow_again(shell: Shell, chain: StoredChain) -> None:
    shell.must("rollback", "--home", chain.home.path, "--to", 5)
    store = ChainStore(chain.home.chain)
    for height in range(6, TIP + 1):
        store.persist_block(chain.blocks[height - 1], chain.commits[height], chain.outcomes[height - 1])
    assert store.light_block(TIP) is not None
    store.close()
    assert verify_home(chain.home.path).ok


def test_after_a_rollback_the_key_signs_only_above_what_it_signed(shell: Shell, chain: StoredChain) -> None:
    sign_up_to(chain, TIP + 1)
    for _ in range(2):
        found = shell.must("rollback", "--home", chain.home.path)
        assert found["signs_from_height"] == TIP + 2
    assert read_signed_height(chain.home.signer_state)[1] == TIP + 1
    signer = PersistedSigner(make_key("val0"), chain.home.signer_state, chain.genesis_hash)
    for body in (VoteBody(PRECOMMIT, TIP + 1, 0, b"b" * 32), VoteBody(PRECOMMIT, TIP + 1, 9, b"")):
        with pytest.raises(Refused, match="already signed"):
            signer.sign_vote(body)
    signer.sign_vote(VoteBody(PRECOMMIT, TIP + 2, 0, b"b" * 32))


def test_a_rollback_that_would_halt_the_chain_is_refused(shell: Shell, tmp_path: Path) -> None:
    """Two validators: neither decides without the other, and a signer signs no height twice."""
    chain = StoredChain(tmp_path / "two", make_genesis(validators=2))
    chain.grow(3)
    chain.store.close()
    sign_up_to(chain, 3)
    ran = shell("rollback", "--home", chain.home.path)
    assert ran.code == 1
    assert "the chain would stand still" in ran.err
    assert read_tip(chain.home.path) == (3, chain.roots[3])
    assert read_signed_height(chain.home.signer_state)[1] == 3


def test_a_rollback_to_nowhere_or_beside_a_running_node_is_refused(shell: Shell, chain: StoredChain) -> None:
    for height in (TIP, TIP + 5):
        assert "holds blocks 1 to 12" in shell("rollback", "--home", chain.home.path, "--to", height).err
    lock = HomeLock(chain.home)
    assert "another process" in shell("rollback", "--home", chain.home.path).err
    lock.release()
    assert read_tip(chain.home.path) == (TIP, chain.roots[TIP])


def test_a_crash_in_a_rollback_leaves_the_chain_as_it_was(
    shell: Shell, chain: StoredChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Fault("the power is out")

    monkeypatch.setattr("flockchain.store.restoring.write_rows", fail)
    assert "the power is out" in shell("rollback", "--home", chain.home.path).err
    assert read_tip(chain.home.path) == (TIP, chain.roots[TIP])
    assert verify_home(chain.home.path).ok


@pytest.mark.parametrize("words", [("snapshot", "create"), ("replay",), ("export",), ("rollback",)])
def test_a_home_without_a_chain_is_said(shell: Shell, fresh: Path, words: tuple[str, ...]) -> None:
    ran = shell(*words, "--home", fresh)
    assert ran.code == 1
    assert "holds no chain" in ran.err
    assert len(ran.error_lines) == 1
