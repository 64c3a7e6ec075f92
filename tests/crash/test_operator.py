"""Whatever file of a home is missing, in the way, damaged or not ours: the start is refused with what to do about it.

One real home of five blocks is copied and broken in one place. A process starts each (`run_node`) and must end with
exit code 1 and a sentence that names the file and the next step: never a traceback, and nothing is changed.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flockchain.codec import encode
from flockchain.errors import Fault
from flockchain.node.home import Home, HomeLock, create_home
from flockchain.types.rows import Account, row_key
from tests.support.ledger import make_address, make_key

from .life import make_home
from .story import Story

START_ALL = """
import os, sys
from pathlib import Path
from flockchain.node.run import run_node
for name in sys.argv[1:]:
    file = os.open(Path(name) / "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 2)
    os.write(2, f"exit code {run_node(Path(name))}\\n".encode())
"""


def put_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def put_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"a file where a folder belongs")


def flip_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 8, len(data)):
        data[at] ^= 0x5A
    path.write_bytes(data)


def alter_balance(path: Path) -> None:
    """A row that still decodes: only the state root can tell."""
    row = Account(make_address("bob"), 1, 0)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE state_rows SET value = ? WHERE key = ?", (encode(row), row_key(row)))
    connection.close()


def damage_block(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE blocks SET block = x'00' WHERE height = (SELECT max(height) FROM blocks)")
    connection.close()


Break = tuple[str, str, Callable[[Path], object], str]
BREAKS: tuple[Break, ...] = (
    ("config-missing", "config.toml", Path.unlink, "make a home with `flockchain init`"),
    ("config-folder", "config.toml", put_folder, "start again"),
    ("genesis-missing", "genesis.json", Path.unlink, "put it back"),
    ("genesis-folder", "genesis.json", put_folder, "start again"),
    ("node-key-missing", "node_key.json", Path.unlink, "restore it"),
    ("node-key-folder", "node_key.json", put_folder, "start again"),
    ("validator-key-missing", "validator_key.json", Path.unlink, "restore it"),
    ("signer-missing", "data/signer_state.json", Path.unlink, "Bring the file from where this key signed last"),
    ("signer-folder", "data/signer_state.json", put_folder, "start again"),
    ("signer-empty", "data/signer_state.json", lambda path: path.write_bytes(b""), "do not sign with this key before"),
    ("log-folder", "data/wal", put_folder, "start again"),
    ("store-missing", "data/chain.sqlite", Path.unlink, "put the newest copy of the file back"),
    ("store-folder", "data/chain.sqlite", put_folder, "may this user write to its folder"),
    ("store-garbage", "data/chain.sqlite", flip_middle, "the node syncs from its peers"),
    ("store-altered", "data/chain.sqlite", alter_balance, "do not have the state root"),
    ("store-block", "data/chain.sqlite", damage_block, "block 5 is damaged"),
    ("blobs-file", "data/blobs", put_file, "start again"),
    ("logs-file", "logs", put_file, "start again"),
    ("lock-folder", "data/lock", put_folder, "start again"),
)


def test_a_start_on_a_broken_home_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    make_home(tmp_path / "template")
    whole.mkdir()
    Story(whole, tmp_path / "template", None).tell()
    for name, place, damage, _ in BREAKS:
        home = tmp_path / name
        shutil.copytree(whole / "0", home)
        damage(home / place)
    starts = [sys.executable, "-c", START_ALL, *(str(tmp_path / name) for name, *_ in BREAKS)]
    assert subprocess.run(starts, timeout=120, check=False).returncode == 0
    for name, place, _, advice in BREAKS:
        told = (tmp_path / name / "stderr.txt").read_text()
        assert told.endswith("exit code 1\n"), f"{name}: {told}"
        assert advice in told, f"{name}: {told}"
        assert Path(place).name in told, f"{name} names the file: {told}"
        assert "Traceback" not in told, f"{name}: {told}"


def test_a_second_process_is_refused_by_the_firsts_number_until_that_one_is_gone(tmp_path: Path) -> None:
    home = create_home(tmp_path, validator_key=make_key("val0"))
    program = (
        "import sys\nfrom pathlib import Path\nfrom flockchain.node.home import Home, HomeLock\n"
        "lock = HomeLock(Home(Path(sys.argv[1])))\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", program, str(home.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(Fault, match=rf"another process \({first.pid}\) uses .*stop it first"):
            HomeLock(home)
        os.kill(first.pid, signal.SIGKILL)
        first.wait(20)
    HomeLock(Home(tmp_path)).release()
