"""`/v1/txs`: hand transactions in, and see what became of them."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.convertors import StringConvertor, register_url_convertor

from api.errors import NotFound
from api.json import Json, render_pending_tx, render_tx
from api.services import HashPath, Services, client_of, parse_hash, services
from flockchain.codec import decode
from flockchain.crypto import sha256
from flockchain.errors import Malformed, Refused
from flockchain.store.reader import StoredTx

router = APIRouter(prefix="/v1/txs", tags=["transactions"])

MAX_BATCH = 500


class _HashConvertor(StringConvertor):
    """Any word but `batch`, which takes POST alone: what is no hash gets a sentence and not a 404."""

    regex = "(?!batch$)[^/]+"


register_url_convertor("hash", _HashConvertor())
MAX_WAIT_MS = 10_000
_BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/{tx_hash:hash}")
async def get_tx(
    request: Request,
    tx_hash: HashPath,
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
        with to.reader.snapshot() as chain:
            first = chain.first_height()
        where = f"a block from height {first} on, where this node's blocks begin," if first > 1 else "a block"
        raise NotFound(f"no transaction {tx_hash}: neither in {where} nor waiting on this node")
    return render_pending_tx(pending)


@router.post("", openapi_extra=_BYTES)
async def post_tx(request: Request) -> Json:
    """Canonical bytes of one `SignedTx`. The same bytes may be handed in again."""
    to, client = services(request), client_of(request)
    to.admission.check(client)
    data = await request.body()
    if not data:
        raise Malformed("the body is empty: it holds the canonical bytes of a signed transaction")
    to.admission.spend(client, 1)
    [answer] = await _submit(to, (data,))
    if isinstance(answer, Refused):
        raise answer
    return {"hash": answer.hex()}


@router.post("/batch", openapi_extra=_BYTES)
async def post_txs(request: Request) -> Json:
    """A MessagePack array of at most 500 byte strings. Each is answered by itself, in order: a hash or an error."""
    to, client = services(request), client_of(request)
    to.admission.check(client)
    batch = decode(tuple[bytes, ...], await request.body())
    if not 1 <= len(batch) <= MAX_BATCH:
        raise Malformed(f"a batch holds 1 to {MAX_BATCH} transactions, this one {len(batch)}")
    to.admission.spend(client, len(batch))
    return {"results": [_render_answer(answer) for answer in await _submit(to, batch)]}


async def _submit(to: Services, txs: Sequence[bytes]) -> list[bytes | Refused]:
    """Hash of each transaction that the node took, or that it or the chain holds already: re-sending is no offence."""
    answers = await to.node.submit_all(txs)
    for i, answer in enumerate(answers):
        if isinstance(answer, Refused):
            tx_hash = sha256(txs[i])
            if to.node.find_pending(tx_hash) is not None or _find_final(to, tx_hash) is not None:
                answers[i] = tx_hash
    return answers


def _render_answer(answer: bytes | Refused) -> dict[str, Any]:
    if isinstance(answer, Refused):
        return {"error": {"code": answer.code, "message": answer.message, "details": {}}}
    return {"hash": answer.hex()}


def _find_final(to: Services, tx_hash: bytes) -> StoredTx | None:
    with to.reader.snapshot() as chain:
        return chain.tx(tx_hash)
