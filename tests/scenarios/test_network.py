"""The instrument itself: what a rule of the switch says happens to real datagrams, in that direction alone."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.namespaces import NAMESPACES, address_of_node, find_obstacle, remove_stale_namespaces
from tests.scenarios.network import ROOT, NamespaceNetwork
from tests.scenarios.switch import Rule
from tests.support.processes import wait_until

OBSTACLE = find_obstacle()
pytestmark = [pytest.mark.devnet, pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))]
PORT = 7_000
PATIENCE_S = 10.0
Send = Callable[[int, int], float | None]


@pytest.fixture(scope="module")
def network() -> Iterator[NamespaceNetwork]:
    with NamespaceNetwork(3, seed=1) as network:
        yield network


@pytest.fixture
def send(network: NamespaceNetwork) -> Iterator[Send]:
    """Send a datagram from one node to another; seconds that it took, None when another one came first."""

    def bind() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", PORT))
        made.settimeout(PATIENCE_S)
        return made

    sockets = [inside.do(bind) for inside in network.inside]
    network.set_rules({})
    network.set_links(range(3), is_up=True)

    def send(sender: int, receiver: int) -> float | None:
        begin = time.monotonic()
        sockets[sender].sendto(b"wanted", (address_of_node(receiver), PORT))
        return time.monotonic() - begin if sockets[receiver].recv(16) == b"wanted" else None

    for sender in range(3):
        for receiver in range(3):
            if sender != receiver:
                assert send(sender, receiver) is not None  # every address is resolved from here on
    yield send
    network.set_rules({})
    for made in sockets:
        made.close()


def count_cut(network: NamespaceNetwork, rules: dict[tuple[int, int], Rule], send: Callable[[], None]) -> int:
    """Frames that were cut while `send` ran under `rules`."""
    before = network.set_rules(rules)["cut"]
    send()
    after = before

    def is_counted() -> bool:
        nonlocal after
        after = network.set_rules(rules)["cut"]
        return after > before

    wait_until(is_counted)
    return after - before


def test_a_cut_is_of_one_direction(network: NamespaceNetwork, send: Send) -> None:
    rules = {(0, 1): Rule(is_cut=True)}

    def shout() -> None:
        with network.inside[0].do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as lost:
            lost.sendto(b"unwanted", (address_of_node(1), PORT))

    assert count_cut(network, rules, shout) >= 1
    assert send(1, 0) is not None
    assert send(0, 2) is not None
    network.set_rules({})
    assert send(0, 1) is not None, "the datagram that was cut came later"


def test_delay_is_kept_and_is_of_one_direction(network: NamespaceNetwork, send: Send) -> None:
    network.set_rules({(0, 1): Rule(delay_ms=300, jitter_ms=100)})
    taken_s = send(0, 1)
    assert taken_s is not None
    assert taken_s >= 0.3
    back_s = send(1, 0)
    assert back_s is not None
    assert back_s < taken_s


def test_loss_takes_about_its_share(network: NamespaceNetwork, send: Send) -> None:
    """400 datagrams at a loss of half: 150 to 250 are lost with a probability of 1 - 1e-6 (five sigma)."""
    rules = {(0, 2): Rule(loss_ppm=500_000)}
    before = network.set_rules(rules)
    with network.inside[0].do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as noisy:
        for _ in range(400):
            noisy.sendto(b"noise", (address_of_node(2), PORT + 1))  # nobody listens there: ICMP goes back, unharmed
    lost = 0

    def is_still() -> bool:
        nonlocal lost
        last, lost = lost, network.set_rules(rules)["lost"] - before["lost"]
        return lost == last > 0

    wait_until(is_still)
    assert 150 <= lost <= 250


def test_a_link_that_is_down_fails_at_once_and_comes_back(network: NamespaceNetwork, send: Send) -> None:
    network.set_links([1], is_up=False)
    with pytest.raises(OSError, match="unreachable"):
        send(1, 0)
    network.set_links([1], is_up=True)
    assert send(1, 0) is not None


def test_a_run_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """kill -9 of the process that made a network: its switch removes namespaces and what runs in them."""
    program = """
import os, signal, sys
from pathlib import Path
from tests.scenarios.network import NamespaceNetwork
with NamespaceNetwork(2) as network:
    sleeper = network.start(1, ["sleep", "600"], Path(sys.argv[1]))
    print(sleeper.pid, *network.names, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -9, done.stderr
    pid, *names = done.stdout.split()
    assert len(names) == 2
    wait_until(lambda: not any((NAMESPACES / name).exists() for name in names))
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_what_a_killed_run_left_is_cleared_by_the_next() -> None:
    """A namespace named after a process that is gone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    name = f"flocknet-{gone.pid}-0"
    subprocess.run(["ip", "netns", "add", name], check=True)
    assert name in remove_stale_namespaces()
    assert not (NAMESPACES / name).exists()
