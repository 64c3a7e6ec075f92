"""`/v1/stakes`: bonds in validators and tasks."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.json import Json, render
from api.proofs import Prove, fetch_proven
from api.services import DEFAULT_LIMIT, Cursor, Limit, render_page, services
from flockchain.crypto import ADDRESS_PREFIX, parse_address
from flockchain.errors import Malformed
from flockchain.store.reader import Page, Snapshot
from flockchain.types.rows import Stake

router = APIRouter(prefix="/v1/stakes", tags=["stake"])

Owner = Annotated[str | None, Query(description="Account, flk1...", max_length=128)]
Target = Annotated[str | None, Query(description="`task:<id>` or `validator:<address>`", max_length=128)]


@router.get("")
async def get_stakes(
    request: Request,
    owner: Owner = None,
    target: Target = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    prove: Prove = False,
) -> Json:
    """Those of an owner, those in a target, the one that is both, or all. A proof is of one: give both."""
    address = parse_address(owner) if owner is not None else None
    if prove:
        name = _parse_target(target)
        if address is None or name is None:
            raise Malformed("a proof is of one stake: give owner and target")
        missing = f"{owner} has no stake in {target}"
        proven, proof = await fetch_proven(request, Stake, address, name, missing=missing)
        return render_page([render(proven)], Page([proven], None)) | proof
    with services(request).reader.snapshot() as chain:
        page = _select(chain, address, _parse_target(target), limit, cursor)
    return render_page([render(row) for row in page.items], page)


def _select(chain: Snapshot, owner: bytes | None, target: str | None, limit: int, cursor: str | None) -> Page[Stake]:
    if owner is not None and target is not None:
        found = chain.find(Stake, owner, target)
        return Page([] if found is None else [found], None)
    if owner is not None:
        return chain.rows(Stake, owner, limit=limit, cursor=cursor)
    if target is not None:
        return chain.rows_by_ref(Stake, target, limit=limit, cursor=cursor)
    return chain.rows(Stake, limit=limit, cursor=cursor)


def _parse_target(target: str | None) -> str | None:
    """As rows name it: a validator by its address in hex."""
    kind, _, name = (target or "").partition(":")
    if kind == "validator" and name.startswith(f"{ADDRESS_PREFIX}1"):
        return f"{kind}:{parse_address(name).hex()}"
    return target
