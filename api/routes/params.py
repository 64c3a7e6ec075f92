"""`/v1/params`: the numbers that all nodes share."""

from fastapi import APIRouter, Request

from api.json import Json, render
from api.services import services

router = APIRouter(prefix="/v1/params", tags=["chain"])


@router.get("")
async def get_params(request: Request) -> Json:
    """Chain parameters in force, with the hash that headers carry."""
    with services(request).reader.snapshot() as chain:
        params = chain.chain().params
    return {**render(params), "params_hash": params.hash().hex()}
