"""`/v1/params`: the numbers that all nodes share."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.epochs import find_epoch
from api.errors import NotFound
from api.json import Json, render
from api.services import services
from flockchain.types.ids import I63_MAX

router = APIRouter(prefix="/v1/params", tags=["chain"])

Height = Annotated[int | None, Query(ge=1, le=I63_MAX, description="Of this block; default: of the next one.")]


@router.get("")
async def get_params(request: Request, height: Height = None) -> Json:
    """Chain parameters that a block follows, with the hash that its header carries."""
    with services(request).reader.snapshot() as snapshot:
        following = snapshot.tip().height + 1
        if height is not None and height > following:
            raise NotFound(f"block {height} is not decided, and its parameters are not known: the next is {following}")
        epoch = find_epoch(snapshot, following if height is None else height)
    return {
        **render(epoch.params),
        "params_hash": epoch.params.hash().hex(),
        "protocol_version": epoch.protocol_version,
        "since_height": epoch.since_height,
    }
