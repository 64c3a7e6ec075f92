"""Linux network namespaces, one per node: made, entered by a thread, and removed with all that runs in them.

Nothing is made in the namespace of the caller: no device, no address, no route. What is inside reaches only the
other namespaces of its network, through `switch.py`.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil

PREFIX = "flocknet"
NAMESPACES = Path("/run/netns")
TUN = Path("/dev/net/tun")
CLONE_NEWNET = 0x40000000
COMMAND_TIMEOUT_S = 20
T = TypeVar("T")


def find_obstacle() -> str | None:
    """Why namespaces cannot be used here and what would help; None when they can."""
    if sys.platform != "linux":
        return f"network namespaces are a feature of Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "network namespaces need root: run this as root, or in a container with CAP_NET_ADMIN and CAP_SYS_ADMIN"
    if shutil.which("ip") is None:
        return "the command `ip` is missing: install the package iproute2"
    if not TUN.exists():
        return f"{TUN} is missing: the kernel needs CONFIG_TUN (`modprobe tun`), a container the device"
    probe = f"{PREFIX}-{os.getpid()}-probe"
    try:
        _ip("netns", "add", probe)
        _ip("netns", "exec", probe, "true")
    except NamespaceError as error:
        return f"this machine does not permit network namespaces: {error}"
    finally:
        subprocess.run(["ip", "netns", "del", probe], check=False, capture_output=True, timeout=COMMAND_TIMEOUT_S)
    return None


class NamespaceError(Exception):
    """`ip` refused; its words."""


def make_namespaces(count: int) -> list[str]:
    """Fresh namespaces whose only device is `lo`; their names hold this process id."""
    names = [f"{PREFIX}-{os.getpid()}-{index}" for index in range(count)]
    for name in names:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
    return names


def address_of_node(index: int) -> str:
    """IPv4 address inside its namespaces: of a private range (RFC 1918) that exists nowhere else."""
    return f"10.77.0.{index + 1}"


def mac_of_node(index: int) -> str:
    """Locally administered (second bit of the first byte); its last byte names the port of the switch."""
    return f"02:00:00:00:00:{index + 1:02x}"


def set_up_device(name: str, index: int) -> None:
    """Address and MAC of `eth0`, which the switch has made."""
    _ip("-n", name, "link", "set", "eth0", "address", mac_of_node(index))
    _ip("-n", name, "addr", "add", f"{address_of_node(index)}/24", "dev", "eth0")
    set_link(name, is_up=True)


def set_link(name: str, *, is_up: bool) -> None:
    """Down: what the node sends fails at once (ENETUNREACH), as with a pulled cable."""
    _ip("-n", name, "link", "set", "eth0", "up" if is_up else "down")


def remove_namespaces(names: Sequence[str]) -> None:
    """Kill what runs in them, paused or not, and delete them; those that are gone already are no error."""
    for name in names:
        listed = subprocess.run(
            ["ip", "netns", "pids", name], check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
        )
        for pid in map(int, listed.stdout.split()):
            if pid != os.getpid():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=COMMAND_TIMEOUT_S)


def remove_stale_namespaces() -> list[str]:
    """Clear what a run left that was killed with everything that should have cleared up after it; the names."""
    if not NAMESPACES.is_dir():
        return []
    found = {entry.name: re.fullmatch(rf"{PREFIX}-(\d+)-\w+", entry.name) for entry in NAMESPACES.iterdir()}
    stale = sorted(name for name, match in found.items() if match and not psutil.pid_exists(int(match[1])))
    remove_namespaces(stale)
    return stale


def enter(name: str) -> None:
    """Move this thread into the namespace: every socket that it opens from now on belongs there (setns(2))."""
    with (NAMESPACES / name).open() as file:
        enter_file(file.fileno(), name)


def enter_file(descriptor: int, name: str) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise NamespaceError(f"cannot enter {name}: {os.strerror(number)}")


class Inside:
    """A thread that lives in a namespace and does there what it is told."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=enter, initargs=(name,))

    def begin(self, action: Callable[..., T], *arguments: object) -> "Future[T]":
        return self._pool.submit(action, *arguments)

    def do(self, action: Callable[..., T], *arguments: object) -> T:
        return self.begin(action, *arguments).result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    if done.returncode:
        raise NamespaceError(f"`ip {' '.join(words)}`: {done.stderr.strip() or f'exit code {done.returncode}'}")
