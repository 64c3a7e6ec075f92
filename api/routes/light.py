"""`/v1/light`: what a light client verifies headers with. `canonical`: the bytes that are hashed and signed."""

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render
from api.services import HeightPath, parse_height, services
from flockchain.codec import encode

router = APIRouter(prefix="/v1/light", tags=["chain"])


@router.get("/{height}")
async def get_light_block(request: Request, height: HeightPath) -> Json:
    """Header, commit, the validators of this height and of the next; a height or `latest`."""
    with services(request).reader.snapshot() as chain:
        newest = chain.tip().height
        number = newest if height == "latest" else parse_height(height)
        chain.check_not_pruned(number)
        found = chain.light_block(number)
    if found is None:
        raise NotFound(f"no light block {number}: this node holds blocks up to {newest}")
    return {
        "height": found.height,
        "block_id": found.block_id().hex(),
        **render(found),
        "canonical": encode(found).hex(),
    }
