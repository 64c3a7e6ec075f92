"""`/v1/validators`: staked consensus identities."""

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render
from api.proofs import Prove, fetch_proven
from api.services import DEFAULT_LIMIT, AddressPath, Cursor, Limit, render_page, services
from flockchain.crypto import parse_address
from flockchain.store.reader import Snapshot
from flockchain.types.delegation import get_share_ppm
from flockchain.types.rows import DelegationPool, Liveness, ValidatorRow

router = APIRouter(prefix="/v1/validators", tags=["stake"])


@router.get("")
async def get_validators(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Json:
    """All that are or were staked, by address; `power` is that for the next block."""
    with services(request).reader.snapshot() as chain:
        page = chain.rows(ValidatorRow, limit=limit, cursor=cursor)
        powers = chain.powers(chain.tip().height + 1)
        items = [_render(chain, row, powers) for row in page.items]
    return render_page(items, page)


@router.get("/{address}")
async def get_validator(request: Request, address: AddressPath, prove: Prove = False) -> Json:
    """One validator by the address of its consensus key. A proof is of its row, not of what is added.

    `share_ppm`: what its delegators get of what they earn; null: it takes no delegation.
    """
    key, missing = parse_address(address), f"no validator {address}"
    proven, proof = await fetch_proven(request, ValidatorRow, key, missing=missing) if prove else (None, {})
    with services(request).reader.snapshot() as chain:
        row = proven or chain.find(ValidatorRow, key)
        if row is None:
            raise NotFound(missing)
        return _render(chain, row, chain.powers(chain.tip().height + 1)) | proof


def _render(chain: Snapshot, row: ValidatorRow, powers: dict[bytes, int]) -> Json:
    liveness = chain.find(Liveness, row.address)
    missed = liveness.missed if liveness is not None else 0
    pool = chain.find(DelegationPool, row.owner, f"validator:{row.address.hex()}")
    share_ppm = None if pool is None else get_share_ppm(pool, chain.tip().time_ms)
    return {**render(row), "power": powers.get(row.address, 0), "missed_blocks": missed, "share_ppm": share_ppm}
