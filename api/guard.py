"""Before any route: bodies stay within their limit, requests in flight within theirs, and no traceback gets out."""

import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import make_error

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 1_024
_KIB = 1024
DEFAULT_BODY_BYTES = 64 * _KIB
_BODY_BYTES = {
    ("POST", "/v1/txs"): 128 * _KIB,
    ("POST", "/v1/txs/batch"): 16 * _KIB * _KIB,
}
BLOB_BODY_BYTES = 4 * _KIB * _KIB * _KIB
"""Of one upload request; it is streamed to disk, and the size that the chain recorded bounds it further."""

Observe = Callable[[str, int, float], None]


class BodyTooLarge(Exception):
    """More bytes came than announced or allowed."""


class Guard:
    """ASGI middleware; `observe(method, status, seconds)` hears of every answered request."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = _body_limit(scope)
        if _announced_bytes(scope) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        if self._in_flight >= MAX_IN_FLIGHT:
            answer = make_error(503, "overloaded", f"{MAX_IN_FLIGHT} requests are being answered: try again")
            await answer(scope, receive, send)
            return
        self._in_flight += 1
        try:
            await self._pass_on(scope, receive, send, limit)
        finally:
            self._in_flight -= 1

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        began, status, left = time.perf_counter(), 0, limit

        async def receive_counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise BodyTooLarge
            return message

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive_counted, send_noted)
        except BodyTooLarge:
            if not status:
                await _too_large(limit)(scope, receive, send_noted)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if status:
                raise  # half an answer is out: only closing the connection tells
            answer = make_error(500, "internal", "this node met an error of its own, noted in its log")
            await answer(scope, receive, send_noted)
        finally:
            self._observe(scope["method"], status, time.perf_counter() - began)


def _body_limit(scope: Scope) -> int:
    if scope["method"] == "PUT" and scope["path"].endswith("/blob"):
        return BLOB_BODY_BYTES
    return _BODY_BYTES.get((scope["method"], scope["path"]), DEFAULT_BODY_BYTES)


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _too_large(limit: int) -> ASGIApp:
    return make_error(413, "too-large", f"the body exceeds {limit} bytes, the most this path takes")
