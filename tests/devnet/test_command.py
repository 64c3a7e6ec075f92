"""`flockchain devnet` as scripts use it: up, up again, status, down, resume, purge; and refusals at the prompt."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flockchain.devnet import Devnet, find_free_base_port, stop_devnet
from tests.devnet.network import Network

pytestmark = pytest.mark.devnet


def run(*words: str | int | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flockchain", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=90,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "NO_COLOR": "1"},
    )


def answer(*words: str | int | Path) -> Any:
    """stdout as JSON of a command that succeeds."""
    done = run(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "net"
    yield home
    if (home / "devnet.json").exists():
        stop_devnet(Devnet(home))


def test_up_again_status_down_resume_and_purge(home: Path) -> None:
    port = find_free_base_port(2)
    up = answer("devnet", "up", "--validators", 2, "--home", home, "--base-port", port)
    assert up.keys() >= {"chain_id", "nodes", "accounts"}
    assert [node["index"] for node in up["nodes"]] == [0, 1]
    for index, node in enumerate(up["nodes"]):
        assert node["p2p"] == f"127.0.0.1:{port + 10 * index}"
        assert node["api"] == f"http://127.0.0.1:{port + 10 * index + 1}"
        assert node["home"] == str(home / f"node{index}")
        assert node["height"] >= 2
        assert len(bytes.fromhex(node["state_root"])) == 32
        assert node["address"].startswith("flk1")
        assert psutil.pid_exists(node["pid"])
    assert all(account.keys() >= {"name", "address", "balance_uflk"} for account in up["accounts"])
    assert all(account["balance_uflk"] > 0 for account in up["accounts"])
    pids = [node["pid"] for node in up["nodes"]]

    again = answer("devnet", "up", "--home", home)
    assert [node["pid"] for node in again["nodes"]] == pids
    other = run("devnet", "up", "--home", home, "--validators", 3)
    check_refused(other, 1, "validators 2, not 3", "--home", "--purge")
    status = answer("devnet", "status", "--home", home)
    assert [node["pid"] for node in status["nodes"]] == pids
    assert status["accounts"] == up["accounts"]

    sender, receiver = up["accounts"][:2]
    sent = answer(
        *("tx", "transfer", "--to", receiver["address"], "--amount-uflk", 5, "--wait"),
        *("--key", sender["name"], "--home", home),
    )
    assert (sent["code"], sent["height"] > 0) == ("ok", True)

    assert answer("devnet", "down", "--home", home)["purged"] is False
    down = answer("devnet", "status", "--home", home)
    assert [(node["pid"], node["height"]) for node in down["nodes"]] == [(None, None)] * 2

    resumed = answer("devnet", "up", "--home", home)
    assert [node["api"] for node in resumed["nodes"]] == [node["api"] for node in up["nodes"]]
    assert not {node["pid"] for node in resumed["nodes"]} & set(pids)
    assert min(node["height"] for node in resumed["nodes"]) >= sent["height"]
    assert resumed["accounts"][1]["balance_uflk"] == receiver["balance_uflk"] + 5

    assert answer("devnet", "down", "--purge", "--home", home)["purged"] is True
    assert not home.exists()


def test_a_taken_port_is_one_clear_line_and_leaves_nothing_running(home: Path) -> None:
    port = find_free_base_port(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 11))
        taken.listen()
        done = run("devnet", "up", "--validators", 2, "--home", home, "--base-port", port)
        check_refused(done, 1, f"port {port + 11} is in use", "--base-port")
    running = [p for p in psutil.process_iter(["cmdline"]) if str(home) in " ".join(p.info["cmdline"] or [])]
    assert not running
    assert not home.exists()


def test_a_port_that_does_not_exist_is_refused(home: Path) -> None:
    check_refused(run("devnet", "up", "--home", home, "--base-port", 70_000), 1, "base port 70000", "need 1024 to")
    assert not home.exists()


def test_a_folder_that_holds_something_else_is_neither_used_nor_deleted(home: Path) -> None:
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    check_refused(run("devnet", "up", "--home", home), 1, "is not empty")
    check_refused(run("devnet", "down", "--purge", "--home", home), 1, "holds no devnet")
    check_refused(run("devnet", "status", "--home", home), 1, "holds no devnet")
    assert (home / "thesis.txt").read_text() == "years of work"


def test_refusals_at_the_prompt_against_a_live_network(network: Network) -> None:
    home, alice = network.devnet.home, ("--key", "trainer0", "--home", network.devnet.home)
    bob = answer("keys", "show", "trainer1", "--home", home)["address"]
    check_refused(
        run("tx", "transfer", "--to", bob, "--amount-uflk", 10**18, *alice), 1, "exceeds", "balance", str(10**18)
    )
    check_refused(run("tx", "transfer", "--to", bob, "--amount-uflk", 0, *alice), 2, "greater than or equal to 1")
    check_refused(run("tx", "transfer", "--to", "bob", "--amount-uflk", 1, *alice), 2, "bob")
    check_refused(run("tx", "transfer", "--to", bob, "--amount-uflk", "many", *alice), 2, "valid integer")
    check_refused(run("tx", "transfer", "--to", bob, *alice), 2, "--amount-uflk")
    check_refused(
        run("tx", "transfer", "--to", bob, "--amount-uflk", 1, "--key", "nobody", "--home", home), 1, "nobody"
    )
    check_refused(run("tx", "leave-task", "--task", 999_999, *alice), 1, "no bond in task 999999")
    check_refused(run("query", "tasks", 999_999, "--home", home), 1, "no task 999999")
    check_refused(run("query", "block", 999_999_999, "--home", home), 1, "no block 999999999")
    check_refused(run("status", "--node", "http://127.0.0.1:9"), 1, "no node answers")
