"""`/v1/stakes`: bonds in validators and tasks, what others delegated to them, and what is on its way out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.json import Json, render
from api.proofs import Prove, fetch_proven
from api.services import DEFAULT_LIMIT, AddressQuery, Cursor, Limit, render_page, render_rows, services
from flockchain.crypto import ADDRESS_PREFIX, parse_address
from flockchain.errors import Malformed
from flockchain.store.reader import Page, Snapshot
from flockchain.store.writing import make_account_ref
from flockchain.types.delegation import compute_earned_uflk, compute_worth_uflk
from flockchain.types.rows import Delegation, DelegationPool, Stake, Unbonding

router = APIRouter(prefix="/v1/stakes", tags=["stake"])

Target = Annotated[
    str | None,
    Query(
        description="`task:<id>` or `validator:<address>`", max_length=128, json_schema_extra={"format": "stake-target"}
    ),
]


@router.get("")
async def get_stakes(
    request: Request,
    owner: AddressQuery = None,
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
        return render_rows(Page([proven], None)) | proof
    with services(request).reader.snapshot() as chain:
        page = _select(chain, address, _parse_target(target), limit, cursor)
    return render_rows(page)


@router.get("/delegations")
async def get_delegations(
    request: Request,
    delegator: AddressQuery = None,
    delegate: AddressQuery = None,
    target: Target = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    prove: Prove = False,
) -> Json:
    """Those of a delegator, those to a delegate (and target), or all. A proof is of one: give all three.

    `amount_uflk` is what its shares are worth now, `earned_uflk` what `claim-rewards` would pay; neither is in its row.
    """
    to = parse_address(delegate) if delegate is not None else None
    by = parse_address(delegator) if delegator is not None else None
    name = _parse_target(target)
    proven: Delegation | None = None
    proof: Json = {}
    if prove:
        if to is None or by is None or name is None:
            raise Malformed("a proof is of one delegation: give delegator, delegate and target")
        missing = f"{delegator} has no delegation to {delegate} in {target}"
        proven, proof = await fetch_proven(request, Delegation, to, name, by, missing=missing)
    with services(request).reader.snapshot() as chain:
        page = Page([proven], None) if proven else _select_delegations(chain, to, name, by, limit, cursor)
        items = [_render_delegation(chain, row) for row in page.items]
    return render_page(items, page) | proof


@router.get("/pools")
async def get_pools(
    request: Request,
    delegate: AddressQuery = None,
    target: Target = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Json:
    """Who takes delegations, with the share it offers, what is in its pool and what that has earned."""
    address, name = parse_address(delegate) if delegate is not None else None, _parse_target(target)
    if address is None and name is not None:
        raise Malformed("pools are found by their delegate: give delegate, and target if you want one")
    with services(request).reader.snapshot() as chain:
        prefix = () if address is None else (address,) if name is None else (address, name)
        page = chain.rows(DelegationPool, *prefix, limit=limit, cursor=cursor)
    return render_rows(page)


@router.get("/unbonding")
async def get_unbonding(
    request: Request, owner: AddressQuery = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Json:
    """Stake on its way out, of an account or of all, in the order of release: `release_ms` is header time."""
    ref = make_account_ref(parse_address(owner)) if owner is not None else None
    with services(request).reader.snapshot() as chain:
        if ref is None:
            page = chain.rows(Unbonding, limit=limit, cursor=cursor)
        else:
            page = chain.rows_by_ref(Unbonding, ref, limit=limit, cursor=cursor)
    return render_rows(page)


def _select_delegations(
    chain: Snapshot, delegate: bytes | None, target: str | None, delegator: bytes | None, limit: int, cursor: str | None
) -> Page[Delegation]:
    if delegate is not None and target is not None and delegator is not None:
        found = chain.find(Delegation, delegate, target, delegator)
        return Page([] if found is None else [found], None)
    if delegator is not None and delegate is None and target is None:
        return chain.rows_by_ref(Delegation, make_account_ref(delegator), limit=limit, cursor=cursor)
    if delegator is not None or (target is not None and delegate is None):
        raise Malformed("give the delegator alone, the delegate with or without the target, or all three")
    prefix = () if delegate is None else (delegate,) if target is None else (delegate, target)
    return chain.rows(Delegation, *prefix, limit=limit, cursor=cursor)


def _render_delegation(chain: Snapshot, row: Delegation) -> Json:
    pool = chain.find(DelegationPool, row.delegate, row.target)
    assert pool is not None, "a delegation is in a pool"
    worth, earned = compute_worth_uflk(pool, row.shares), compute_earned_uflk(pool, row)
    return {**render(row), "amount_uflk": worth, "earned_uflk": earned}


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
