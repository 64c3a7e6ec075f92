"""`/v1/txs`: hand transactions in, and see what became of them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from api.errors import NotFound
from api.json import Json, render_pending_tx, render_tx
from api.services import Services, parse_hash, services
from flockchain.codec import decode
from flockchain.crypto import sha256
from flockchain.errors import Malformed, Refused
from flockchain.store.reader import StoredTx

router = APIRouter(prefix="/v1/txs", tags=["transactions"])

MAX_BATCH = 500
MAX_WAIT_MS = 10_000
_BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/{tx_hash}")
async def get_tx(
    request: Request,
    tx_hash: str,
    wait_ms: Annotated[int, Query(ge=0, le=MAX_WAIT_MS, description="Answer later, once it is final.")] = 0,
) -> Json:
    """A transaction by its hash: its result once a block holds it, `height` null while it waits for one."""
    to, name = services(request), parse_hash(tx_hash)
    final = _find_final(to, name)
    if final is None and wait_ms:
        await to.node.events.wait_for_tx(name, lambda: _find_final(to, name) is not None, wait_ms / 1000)
        final = _find_final(to, name)
    if final is not None:
        return render_tx(final)
    pending = to.node.find_pending(name)
    if pending is None:
        raise NotFound(f"no transaction {tx_hash}: neither in a block nor waiting on this node")
    return render_pending_tx(pending)


@router.post("", openapi_extra=_BYTES)
async def post_tx(request: Request) -> Json:
    """Canonical bytes of one `SignedTx`. The same bytes may be handed in again."""
    data = await request.body()
    if not data:
        raise Malformed("the body is empty: it holds the canonical bytes of a signed transaction")
    return {"hash": (await _submit(services(request), data)).hex()}


@router.post("/batch", openapi_extra=_BYTES)
async def post_txs(request: Request) -> Json:
    """A MessagePack array of at most 500 byte strings. Each is answered by itself, in order: a hash or an error."""
    batch = decode(tuple[bytes, ...], await request.body())
    if not 1 <= len(batch) <= MAX_BATCH:
        raise Malformed(f"a batch holds 1 to {MAX_BATCH} transactions, this one {len(batch)}")
    to = services(request)
    results: list[dict[str, Any]] = []
    for data in batch:
        try:
            results.append({"hash": (await _submit(to, data)).hex()})
        except Refused as refusal:
            results.append({"error": {"code": refusal.code, "message": refusal.message, "details": {}}})
    return {"results": results}


async def _submit(to: Services, data: bytes) -> bytes:
    """Hash of a transaction that the node took, or that it or the chain holds already: re-sending is no offence."""
    try:
        return await to.node.submit(data)
    except Refused:
        tx_hash = sha256(data)
        if to.node.find_pending(tx_hash) is None and _find_final(to, tx_hash) is None:
            raise
        return tx_hash


def _find_final(to: Services, tx_hash: bytes) -> StoredTx | None:
    with to.reader.snapshot() as chain:
        return chain.tx(tx_hash)
