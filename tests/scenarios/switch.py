"""An Ethernet switch in user space between the namespaces of one network, with a rule for each direction of each pair.

    python -m tests.scenarios.switch SEED NAMESPACE...

Frames come and go through TAP devices (`eth0` in each namespace), so that TCP, its retransmissions and its timeouts
are the kernel's own. `tc netem` would do delay and loss, but small kernels lack it (docs/decisions/0028). Reads a
table of rules as one JSON line from stdin and answers with the frames counted so far. When stdin ends, the one who
started it is gone: it kills what runs in the namespaces and removes them.
"""

import contextlib
import fcntl
import heapq
import os
import selectors
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from time import monotonic

import msgspec

from tests.scenarios.namespaces import TUN, enter, enter_file, remove_namespaces

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 2_048
FRAMES_PER_TURN = 64
MAX_WAITING = 20_000
"""Frames under way; beyond it a frame is lost, as in any switch."""
IPV4, ARP = b"\x08\x00", b"\x08\x06"


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """What happens to a frame on its way from one node to another."""

    is_cut: bool = False
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Added to the delay, drawn evenly from 0 to this; frames may overtake each other."""
    loss_ppm: int = 0


OPEN = Rule()
Rules = list[list[Rule]]
"""By sender, then by receiver."""


class Switch:
    def __init__(self, seed: int, names: Sequence[str]) -> None:
        self._names = names
        self._random = Random(seed)
        self._taps = _open_taps(names)
        self._rules: Rules = [[OPEN] * len(names) for _ in names]
        self._waiting: list[tuple[float, int, int, bytes]] = []
        """(due, sequence, receiver, frame), a heap."""
        self._sequence = 0
        self._commands = b""
        self.counted: Counter[str] = Counter(passed=0, lost=0, cut=0, overflown=0)

    def run(self) -> None:
        """Until stdin ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
            for port, tap in enumerate(self._taps):
                selector.register(tap, selectors.EVENT_READ, port)
            _answer("ready")
            while True:
                for key, _ in selector.select(self._time_to_next_s()):
                    if key.data is not None:
                        self._receive(key.data)
                    elif not self._obey():
                        return
                self._deliver_due()

    def _obey(self) -> bool:
        """Take new rules from stdin; whether it is still open."""
        read = os.read(sys.stdin.fileno(), 65_536)
        *lines, self._commands = (self._commands + read).split(b"\n")
        for line in lines:
            self._rules = msgspec.json.decode(line, type=Rules)
            _answer(msgspec.json.encode(self.counted).decode())
        return bool(read)

    def _receive(self, port: int) -> None:
        for _ in range(FRAMES_PER_TURN):
            try:
                frame = os.read(self._taps[port], FRAME_BYTES)
            except OSError:  # nothing more, or the device is down
                return
            if frame[12:14] in (IPV4, ARP):
                is_for_all = bool(frame[0] & 1)
                for receiver in range(len(self._taps)) if is_for_all else (frame[5] - 1,):
                    if receiver != port and 0 <= receiver < len(self._taps):
                        self._forward(port, receiver, frame)

    def _forward(self, sender: int, receiver: int, frame: bytes) -> None:
        rule = self._rules[sender][receiver]
        if rule.is_cut:
            self.counted["cut"] += 1
        elif rule.loss_ppm and self._random.randrange(1_000_000) < rule.loss_ppm:
            self.counted["lost"] += 1
        elif not rule.delay_ms and not rule.jitter_ms:
            self._send(receiver, frame)
        elif len(self._waiting) >= MAX_WAITING:
            self.counted["overflown"] += 1
        else:
            due = monotonic() + (rule.delay_ms + self._random.uniform(0, rule.jitter_ms)) / 1_000
            self._sequence += 1
            heapq.heappush(self._waiting, (due, self._sequence, receiver, frame))

    def _deliver_due(self) -> None:
        now = monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, receiver, frame = heapq.heappop(self._waiting)
            self._send(receiver, frame)

    def _send(self, receiver: int, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # down, or its queue is full: lost, as on any wire
            os.write(self._taps[receiver], frame)
            self.counted["passed"] += 1

    def _time_to_next_s(self) -> float | None:
        return max(0.0, self._waiting[0][0] - monotonic()) if self._waiting else None


def _open_taps(names: Sequence[str]) -> list[int]:
    """A TAP device named `eth0` in each namespace; it is gone when this process is. See Documentation/networking/tuntap
    of the kernel."""
    taps = []
    with Path("/proc/self/ns/net").open() as home:
        for name in names:
            enter(name)
            tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", b"eth0", IFF_TAP | IFF_NO_PI))
            taps.append(tap)
        enter_file(home.fileno(), "the first namespace")
    return taps


def _answer(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    namespaces = sys.argv[2:]
    try:
        Switch(int(sys.argv[1]), namespaces).run()
    finally:
        remove_namespaces(namespaces)
