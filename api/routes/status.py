"""`/v1/status`, `/health`: where this node stands."""

from fastapi import APIRouter, Request, Response

from api.epochs import find_epoch
from api.errors import make_error
from api.json import Json
from api.services import services
from flockchain import PROTOCOL_VERSION, __version__
from flockchain.crypto import format_address

router = APIRouter(tags=["node"])


@router.get("/v1/status")
async def get_status(request: Request) -> Json:
    """Height, id, time and state root of the newest block; `state_root` is the one after it.

    `first_height` is the lowest whose block is held here: 1 unless the node prunes or began from a snapshot.
    `protocol_version` is that of the next block, `newest_protocol_version` the newest that this node's software runs.
    """
    to = services(request)
    with to.reader.snapshot() as snapshot:
        chain, tip, first_height = snapshot.chain(), snapshot.tip(), snapshot.first_height()
        epoch = find_epoch(snapshot, tip.height + 1)
    validator = to.node.validator_address
    return {
        "chain_id": chain.chain_id,
        "genesis_hash": chain.genesis_hash.hex(),
        "height": tip.height,
        "first_height": first_height,
        "block_id": tip.block_id.hex() or None,
        "state_root": tip.state_root.hex(),
        "time_ms": tip.time_ms,
        "catching_up": to.node.is_catching_up,
        "peers": len(to.node.peers()),
        "validator": format_address(validator) if validator is not None else None,
        "version": __version__,
        "protocol_version": epoch.protocol_version,
        "newest_protocol_version": PROTOCOL_VERSION,
    }


@router.get("/health", response_model=None)
async def get_health(request: Request) -> Json | Response:
    """200 when ready; 503 with the reason when not."""
    reason = services(request).node.health()
    if reason is not None:
        return make_error(503, "not-ready", reason)
    return {"ready": True}
