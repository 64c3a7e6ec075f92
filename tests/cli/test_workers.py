"""`flockchain trainer run` and `voter run`: what an operator reads before a worker begins."""

from pathlib import Path

import pytest

from flockchain.keystore import Keystore
from tests.support.command import Shell
from tests.support.ledger import make_key
from tests.support.processes import find_free_ports


@pytest.mark.parametrize(
    "words", [("trainer", "run", "--data", "notes.txt"), ("voter", "run", "--holdout", "law=law.txt")]
)
def test_a_worker_without_a_node_waits_says_so_and_then_what_to_do(
    shell: Shell, tmp_path: Path, words: tuple[str, ...]
) -> None:
    Keystore(tmp_path / "keystore").add("alice", make_key("alice"), b"")
    (port,) = find_free_ports(1)
    where = ("--node", f"http://127.0.0.1:{port}", "--home", tmp_path, "--key", "alice")
    ran = shell(*words, "--task", 1, "--base", "tiny", "--wait-s", 1, *where)
    assert ran.code == 1
    assert ran.out.startswith("waiting for a node  error no node answers")
    assert "Waited 1 s: start a node, or wait longer by --wait-s" in ran.err
