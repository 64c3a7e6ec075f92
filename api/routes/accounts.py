"""`/v1/accounts`: balances and nonces."""

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render
from api.services import services
from flockchain.crypto import parse_address
from flockchain.types.rows import Account

router = APIRouter(prefix="/v1/accounts", tags=["chain"])


@router.get("/{address}")
async def get_account(request: Request, address: str) -> Json:
    """Balance and nonce of an address that the chain has met."""
    with services(request).reader.snapshot() as chain:
        account = chain.find(Account, parse_address(address))
    if account is None:
        raise NotFound(f"the chain has not met account {address}")
    return render(account)
