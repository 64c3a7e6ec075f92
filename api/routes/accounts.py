"""`/v1/accounts`: balances and nonces."""

from fastapi import APIRouter, Request

from api.errors import NotFound
from api.json import Json, render
from api.proofs import Prove, fetch_proven
from api.services import AddressPath, services
from flockchain.crypto import parse_address
from flockchain.types.rows import Account

router = APIRouter(prefix="/v1/accounts", tags=["chain"])


@router.get("/{address}")
async def get_account(request: Request, address: AddressPath, prove: Prove = False) -> Json:
    """Balance and nonce of an address that the chain has met."""
    key, missing = parse_address(address), f"the chain has not met account {address}"
    if prove:
        proven, proof = await fetch_proven(request, Account, key, missing=missing)
        return render(proven) | proof
    with services(request).reader.snapshot() as chain:
        account = chain.find(Account, key)
    if account is None:
        raise NotFound(missing)
    return render(account)
