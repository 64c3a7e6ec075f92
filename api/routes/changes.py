"""`/v1/changes`: what validators propose, approve and have changed."""

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render
from api.services import DEFAULT_LIMIT, Cursor, Limit, Number, render_page, services
from flockchain.store.reader import Snapshot
from flockchain.types.rows import Approval, Change

router = APIRouter(prefix="/v1/changes", tags=["chain"])


@router.get("")
async def get_changes(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Json:
    """By number: open ones, and those that were approved. What ran out is gone; its receipt tells."""
    with services(request).reader.snapshot() as snapshot:
        page = snapshot.rows(Change, limit=limit, cursor=cursor)
        powers = _get_counting_powers(snapshot)
        items = [_render(snapshot, row, powers) for row in page.items]
    return render_page(items, page)


@router.get("/{number}")
async def get_change(request: Request, number: Number) -> Json:
    """One change; `approvals` with the power that each would count with now."""
    with services(request).reader.snapshot() as snapshot:
        row = snapshot.find(Change, number)
        if row is None:
            raise NotFound(f"no change {number}: it never was, or it ran out")
        powers = _get_counting_powers(snapshot)
        given = snapshot.all_rows(Approval, number)
        approvals = [{**render(approval), "power": powers.get(approval.validator, 0)} for approval in given]
        return {**_render(snapshot, row, powers), "approvals": approvals}


def _get_counting_powers(snapshot: Snapshot) -> dict[bytes, int]:
    """Of the newest set: the one in which approvals are counted."""
    return snapshot.powers(snapshot.tip().height + 2)


def _render(snapshot: Snapshot, row: Change, powers: dict[bytes, int]) -> Json:
    """An open change with the powers as of now, a closed one with those of its count."""
    if row.status != "open":
        return render(row)
    agreed = sum(powers.get(approval.validator, 0) for approval in snapshot.all_rows(Approval, row.id))
    return {**render(row), "approved_power": agreed, "total_power": sum(powers.values())}
