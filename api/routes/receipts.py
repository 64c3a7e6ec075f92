"""`/v1/receipts`: why money was paid or taken."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.json import Json, render_receipt
from api.services import DEFAULT_LIMIT, AddressQuery, Cursor, Limit, render_page, services
from flockchain.crypto import parse_address
from flockchain.types.ids import I63_MAX

router = APIRouter(prefix="/v1/receipts", tags=["chain"])

Kind = Annotated[str | None, Query(description="reward, slash, refund, verdict ...", max_length=32)]
Id = Annotated[int | None, Query(ge=0, le=I63_MAX)]


@router.get("")
async def get_receipts(
    request: Request,
    account: AddressQuery = None,
    kind: Kind = None,
    task: Id = None,
    round: Id = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Json:
    """Newest first, those that match all that is given."""
    address = parse_address(account) if account is not None else None
    with services(request).reader.snapshot() as chain:
        page = chain.receipts(account=address, kind=kind, task=task, round=round, limit=limit, cursor=cursor)
    return render_page([render_receipt(item) for item in page.items], page)
