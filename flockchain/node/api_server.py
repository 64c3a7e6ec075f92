"""The REST interface in a thread with a loop of its own: a long answer never delays a prevote.

What crosses between the two loops crosses here: transactions in, decided blocks out. Everything else that the API
shows comes from the read-only `Reader`, or from a snapshot that the node takes every tick.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import uvicorn
import uvloop

from api.events import EventHub
from api.node_view import MempoolView, PeerView
from flockchain.errors import Fault, FlockchainError, Refused
from flockchain.execution.block import BlockOutcome
from flockchain.node.config import parse_host_port
from flockchain.node.node import Node
from flockchain.types.chain import Block
from flockchain.types.light import ProvenRow

T = TypeVar("T")

STOP_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 10
"""Of the node's loop to a question from here."""
MAX_PROOFS_ASKED = 64
TXS_AT_ONCE = 32
"""Transactions handed to the node's loop in one turn: a few milliseconds, for which votes can wait."""
BACKLOG = 1_024
MAX_CONNECTIONS = 2_048

_NO_MEMPOOL = MempoolView(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the API shows of the running node; replaced as a whole."""

    is_catching_up: bool = False
    peers: tuple[PeerView, ...] = ()
    mempool: MempoolView = _NO_MEMPOOL
    health: str | None = "the node is starting"


class LiveNode:
    """The API's `NodeView` of a node that runs on another loop."""

    def __init__(
        self,
        node: Node,
        node_loop: asyncio.AbstractEventLoop,
        guard: Callable[[Callable[[], None]], None],
        validator_address: bytes | None,
    ) -> None:
        """`guard` runs the node's code on its loop and stops the process when that fails."""
        self.snapshot = Snapshot()
        self.events = EventHub()
        self.validator_address = validator_address
        self._node = node
        self._node_loop = node_loop
        self._guard = guard
        self._proofs_asked = 0

    @property
    def is_catching_up(self) -> bool:
        return self.snapshot.is_catching_up

    async def submit_all(self, txs: Sequence[bytes]) -> list[bytes | Refused]:
        """Hand transactions to the node's loop, a few at a time: crossing to it costs as much as checking one."""
        answers: list[bytes | Refused] = []
        for start in range(0, len(txs), TXS_AT_ONCE):
            answers += await self._submit_some(txs[start : start + TXS_AT_ONCE])
        return answers

    async def _submit_some(self, txs: Sequence[bytes]) -> list[bytes | Refused]:
        return await self._ask_node(lambda: self._node.submit_all(txs))

    async def prove(self, key: bytes) -> ProvenRow:
        """A row of the state as the newest header proves it; raises `Refused`."""
        if self._proofs_asked >= MAX_PROOFS_ASKED:
            raise Refused("overloaded", f"{MAX_PROOFS_ASKED} proofs are being made: try again")
        self._proofs_asked += 1
        try:
            return await self._ask_node(lambda: self._node.ledger.prove(key))
        finally:
            self._proofs_asked -= 1

    async def _ask_node(self, question: Callable[[], T]) -> T:
        """Its answer on the node's loop: what it refuses is raised here, any other error stops the node."""
        loop = asyncio.get_running_loop()
        promise: asyncio.Future[T] = loop.create_future()
        is_asked = False

        def answer(result: T) -> None:
            if not promise.done():
                promise.set_result(result)

        def fail(error: FlockchainError) -> None:
            if not promise.done():
                promise.set_exception(error)

        def ask() -> None:
            nonlocal is_asked
            is_asked = True
            try:
                result = question()
            except Refused as refusal:
                loop.call_soon_threadsafe(fail, refusal)
            except Exception:
                loop.call_soon_threadsafe(fail, Fault("this node failed and stops"))
                raise
            else:
                loop.call_soon_threadsafe(answer, result)

        def ask_unless_closed() -> None:
            self._guard(ask)
            if not is_asked:  # the guard lets nobody call a node that has stopped: do not wait for its answer
                loop.call_soon_threadsafe(fail, Fault("this node is stopping: ask another one"))

        self._node_loop.call_soon_threadsafe(ask_unless_closed)
        try:
            return await asyncio.wait_for(promise, ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise Fault("this node is busy or stopping") from None

    def find_pending(self, tx_hash: bytes) -> bytes | None:
        return self._node.mempool.get(tx_hash)

    def peers(self) -> list[PeerView]:
        return list(self.snapshot.peers)

    def mempool(self) -> MempoolView:
        return self.snapshot.mempool

    def health(self) -> str | None:
        return self.snapshot.health


class ApiServer:
    """uvicorn in its thread."""

    def __init__(self, listen: str, view: LiveNode, make_app: Callable[[], Any]) -> None:
        """Bind at once; raises `Fault` when the address is taken."""
        host, port = parse_host_port(listen)
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise Fault(
                f"cannot listen for REST requests on {listen}: {error.strerror or error}. Nothing was changed: stop "
                "what uses it, or correct [api] listen in config.toml, then start again"
            ) from None
        self.port: int = self._socket.getsockname()[1]
        self._view = view
        self._make_app = make_app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def publish(self, block: Block, outcome: BlockOutcome) -> None:
        """Called on the node's loop after a block was persisted."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._view.events.publish_block, block, outcome)

    def stop(self) -> None:
        """Finish the answers that are under way, for a while."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._view.events.close)
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S)
        self._socket.close()

    def _run(self) -> None:
        config = uvicorn.Config(
            self._make_app(),
            loop="none",
            log_config=None,
            access_log=False,
            backlog=BACKLOG,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=STOP_TIMEOUT_S - 2,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._server.serve([self._socket]))
        finally:
            self._loop.close()


def make_peer_views(infos: Sequence[Any], heights: Callable[[bytes], int]) -> tuple[PeerView, ...]:
    """Connected peers for the API; `heights` tells what each last reported."""
    return tuple(
        PeerView(
            address=info.peer,
            endpoint=f"{info.host}:{info.port}",
            height=heights(info.peer),
            is_outbound=info.is_outbound,
        )
        for info in infos
    )
