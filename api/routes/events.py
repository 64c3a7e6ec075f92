"""`WS /v1/events`: what happens, as it happens."""

import asyncio

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from api.events import Subscription
from api.services import Services
from flockchain.errors import Refused

router = APIRouter(tags=["node"])

TRY_AGAIN_LATER = 1013  # RFC 6455, section 7.4.1 and the IANA registry
MAX_KINDS_LENGTH = 256


@router.websocket("/v1/events")
async def stream_events(socket: WebSocket) -> None:
    """JSON messages `{"kind", "height", ...}`; `?kinds=block,slash` chooses. A listener that lags is disconnected."""
    to: Services = socket.app.state.services
    kinds = frozenset(filter(None, socket.query_params.get("kinds", "")[:MAX_KINDS_LENGTH].split(",")))
    await socket.accept()
    try:
        subscription = to.node.events.subscribe()
    except Refused as refusal:
        await socket.close(TRY_AGAIN_LATER, refusal.message)
        return
    sender = asyncio.create_task(_send(socket, subscription, kinds))
    listener = asyncio.create_task(_listen(socket))
    try:
        await asyncio.wait((sender, listener), return_when=asyncio.FIRST_COMPLETED)
    finally:
        to.node.events.unsubscribe(subscription)
        for task in (sender, listener):
            task.cancel()
        await asyncio.gather(sender, listener, return_exceptions=True)
    if subscription.is_lagging and socket.client_state is WebSocketState.CONNECTED:
        await socket.close(TRY_AGAIN_LATER, "events came faster than they were read: connect again")


async def _send(socket: WebSocket, subscription: Subscription, kinds: frozenset[str]) -> None:
    async for event in subscription:
        if not kinds or event.kind in kinds:
            await socket.send_json({"kind": event.kind, "height": event.height, **event.body})


async def _listen(socket: WebSocket) -> None:
    """Only to notice that the other side is gone; what it says is dropped."""
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        return
