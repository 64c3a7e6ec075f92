"""`/v1/mempool`, `/v1/peers`: what only this node knows."""

from dataclasses import asdict

from fastapi import APIRouter, Request

from api.json import Json
from api.services import services
from flockchain.crypto import format_address

router = APIRouter(prefix="/v1", tags=["node"])


@router.get("/mempool")
async def get_mempool(request: Request) -> Json:
    """How many transactions wait, and how many could."""
    return asdict(services(request).node.mempool())


@router.get("/peers")
async def get_peers(request: Request) -> Json:
    """Connected peers."""
    peers = services(request).node.peers()
    items = [{**asdict(peer), "address": format_address(peer.address)} for peer in peers]
    return {"items": items, "next_cursor": None}
