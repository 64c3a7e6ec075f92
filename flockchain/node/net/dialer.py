"""Keeps one persistent peer connected: dials, waits for the loss, dials again, ever more patiently."""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable

from flockchain.errors import Refused
from flockchain.node.net.connection import Connection
from flockchain.node.net.handshake import RefusedByPeer
from flockchain.node.net.limits import NetworkLimits
from flockchain.node.net.peers import PeerAddress
from flockchain.node.ports import PeerId

log = logging.getLogger(__name__)


class Dialer:
    """`connect` opens a socket and starts the handshake; `find` gives a peer's live connection, whoever dialled."""

    def __init__(
        self,
        target: PeerAddress,
        connect: Callable[[PeerAddress], Awaitable[Connection]],
        find: Callable[[PeerId], Connection | None],
        limits: NetworkLimits,
    ) -> None:
        self.target = target
        self.last_error = ""
        """Why the peer is not connected; empty while it is, or before the first attempt."""
        self._connect = connect
        self._find = find
        self._limits = limits
        self.known_peer = target.peer
        """Who answers there, once known."""
        self._delay_s = limits.first_redial_s

    async def run(self) -> None:
        """Until cancelled, or until the target proves to be this very node."""
        while True:
            live = self._find(self.known_peer) if self.known_peer is not None else None
            if live is not None:
                self.last_error = ""
                await self._wait_for_loss(live)
            else:
                connection, reason = await dial(self._connect, self.target, self._limits, self._note_open)
                if connection is not None:
                    self._note_end(connection)
                self.last_error = reason.message
                if reason.code == "self" and not isinstance(reason, RefusedByPeer):
                    log.warning("persistent peer %s is this node itself: not dialling it again", self.target)
                    return
                log.info("peer %s: %s", self.target, reason.message)
            # Half to all of the delay: nodes that lost a peer together do not dial it together.
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.0))  # noqa: S311
            self._delay_s = min(2 * self._delay_s, self._limits.max_redial_s)

    async def _wait_for_loss(self, connection: Connection) -> None:
        await asyncio.shield(connection.closed)
        self._note_end(connection)

    def _note_open(self) -> None:
        self.last_error = ""

    def _note_end(self, connection: Connection) -> None:
        if connection.is_proven and self.target.peer is None:
            self.known_peer = connection.peer
        if connection.was_stable(self._limits.stable_connection_s):
            self._delay_s = self._limits.first_redial_s


async def dial(
    connect: Callable[[PeerAddress], Awaitable[Connection]],
    target: PeerAddress,
    limits: NetworkLimits,
    on_open: Callable[[], None] = lambda: None,
) -> tuple[Connection | None, Refused]:
    """Dial once and stay until it ends: the connection, if a socket opened, and why there is none any more."""
    try:
        async with asyncio.timeout(limits.connect_timeout_s):
            connection = await connect(target)
    except TimeoutError:
        return None, Refused("connect-timeout", f"no answer within {limits.connect_timeout_s} s")
    except OSError as error:
        return None, Refused("connect-failed", f"cannot connect: {describe(error)}")
    on_open()
    return connection, await asyncio.shield(connection.closed)


def describe(error: OSError) -> str:
    """asyncio hides "Connection refused" behind "Connect call failed"; names that do not resolve have no errno."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
