"""`/v1/blocks`: decided blocks with their commit certificates."""

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render_block, render_block_summary
from api.services import DEFAULT_LIMIT, Cursor, HeightPath, Limit, parse_height, render_page, services

router = APIRouter(prefix="/v1/blocks", tags=["chain"])


@router.get("")
async def get_blocks(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Json:
    """Summaries, newest first."""
    with services(request).reader.snapshot() as chain:
        page = chain.blocks(limit=limit, cursor=cursor)
    return render_page([render_block_summary(block) for block in page.items], page)


@router.get("/{height}")
async def get_block(request: Request, height: HeightPath) -> Json:
    """One block by its height, or `latest`. Transactions by hash: see `/v1/txs`."""
    with services(request).reader.snapshot() as chain:
        newest = chain.tip().height
        number = newest if height == "latest" else parse_height(height)
        chain.check_not_pruned(number)
        found = chain.block(number)
    if found is None:
        raise NotFound(f"no block {number}: this node holds blocks up to {newest}")
    return render_block(found)
