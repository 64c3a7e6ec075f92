"""How many transactions this node takes from its clients: so many a second from each, so many from all together.

A transaction costs this node its check, and every node its check, its gossip and its execution: more than can be
executed would only push blocks apart. What is over is answered before its body is read.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil

from flockchain.errors import Refused

BURST_S = 2.0
"""A client that was quiet may send so many seconds' worth at once."""
MAX_CLIENTS = 4_096
"""Remembered; beyond it the one not heard longest is forgotten, and begins with a full burst."""


class RateLimited(Refused):
    """More than this node takes from one client, or from all."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__("rate-limited", message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class TxRates:
    """Transactions per second."""

    per_client: int = 200
    of_all: int = 250


class Admission:
    """`check` before the body is read, `spend` once it is known how many transactions it holds."""

    def __init__(self, rates: TxRates, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._clock_s = clock_s
        self._paid_until_s: OrderedDict[str, float] = OrderedDict()
        """Per client, oldest first: when what it sent is paid off at its rate (the virtual time of GCRA, ITU I.371)."""
        self._all_paid_until_s = 0.0

    def check(self, client: str) -> None:
        """Raise `RateLimited` while the client, or all together, are more than a burst ahead of their rate."""
        now_s = self._clock_s()
        ahead_s = self._paid_until_s.get(_group(client), now_s) - now_s
        if ahead_s > BURST_S:
            raise _limited(f"this node takes {self._rates.per_client} transactions a second of a client", ahead_s)
        ahead_s = self._all_paid_until_s - now_s
        if ahead_s > BURST_S:
            raise _limited(f"this node takes {self._rates.of_all} transactions a second of all clients", ahead_s)

    def spend(self, client: str, txs: int) -> None:
        """Note what was taken. A batch may reach beyond the burst and is paid off after."""
        now_s, name = self._clock_s(), _group(client)
        paid_s = max(now_s, self._paid_until_s.pop(name, now_s))
        self._paid_until_s[name] = paid_s + txs / self._rates.per_client
        self._all_paid_until_s = max(now_s, self._all_paid_until_s) + txs / self._rates.of_all
        if len(self._paid_until_s) > MAX_CLIENTS:
            self._paid_until_s.popitem(last=False)


def _limited(rule: str, ahead_s: float) -> RateLimited:
    wait_s = max(1, ceil(ahead_s - BURST_S))
    return RateLimited(f"{rule}: send on in {wait_s} s", wait_s)


def _group(client: str) -> str:
    """An IPv6 network of /64 is one client: each has 2^64 addresses to send from."""
    try:
        ip = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    return str(IPv6Address(int(ip) >> 64 << 64)) if isinstance(ip, IPv6Address) else str(ip)
