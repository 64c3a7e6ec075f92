"""docs/operations.md is run: its five commands make a network that decides blocks, its task file is a task."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flockchain.cli.structs import read_struct
from flockchain.client import Client, Unreachable
from flockchain.crypto import parse_address
from flockchain.execution.tasks import check_spec, check_spec_limits
from flockchain.params import Params
from flockchain.types.task import TaskSpec
from tests.support.command import Shell
from tests.support.processes import find_free_ports, wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def read_block(language: str) -> str:
    """The first block of that language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_five_commands_lead_to_a_running_network(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("open sesame")
    monkeypatch.setenv("FLOCKCHAIN_PASSPHRASE_FILE", "secret")
    p2p, api = find_free_ports(2)
    page = read_block("sh").replace(":26600", f":{p2p}").replace(":26601", f":{api}")
    first, *rest, start = page.strip().splitlines()
    address = shell.must(*shlex.split(first)[1:])["address"]
    for line in rest:
        ran = shell(*shlex.split(line.replace("flk1...", address))[1:])
        assert ran.code == 0, f"{line}: {ran.err}"
    node = subprocess.Popen(
        [sys.executable, "-m", "flockchain", *shlex.split(start)[1:]], stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    try:
        with Client([f"http://127.0.0.1:{api}"]) as client:

            def is_running() -> bool:
                try:
                    return int(client.status()["height"]) >= 1
                except Unreachable:
                    return False

            wait_until(is_running, 60)
            assert client.account(parse_address(address))["balance_uflk"] == 1_000_000_000
        node.send_signal(signal.SIGTERM)
        assert node.wait(20) == 0
        assert shell.must("verify", "--home", "node", "--strict")["ok"]
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()


def test_the_task_file_is_one_that_the_chain_takes(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text(read_block("toml"))
    hashes = {"model.base_hash": "ab" * 32, "model.tokenizer_hash": "cd" * 32}
    spec = read_struct(path, TaskSpec, hashes)
    check_spec(spec)
    check_spec_limits(spec, Params())
    assert spec.phases.enroll_limit_ms == 2 * 86_400_000
