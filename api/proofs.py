"""`?prove=true`: a row as the newest header proves it, with the proof, that header and its commit.

The state after the newest block has no header yet, so the proven row is the one before that block. After a block with
transactions an empty one follows at once, and proves what they did.
"""

from typing import Annotated, Any, TypeVar

from fastapi import Query, Request

from api.errors import NotFound
from api.json import Json, render
from api.services import services
from flockchain.codec import decode, encode
from flockchain.types.light import ProvenRow
from flockchain.types.rows import Row, compute_key

R = TypeVar("R", bound=Row)

Prove = Annotated[bool, Query(description="Add the state proof, and the header and commit that prove it.")]


async def fetch_proven(request: Request, kind: type[R], *key: bytes | int | str, missing: str) -> tuple[R, Json]:
    """The proven row, and what to add to its answer; raises `NotFound` with the proof that there is none."""
    proven = await services(request).node.prove(compute_key(kind, *key))
    proof = render_proof(proven)
    if proven.value is None:
        raise NotFound(missing, proof)
    return decode(kind, proven.value), proof


def render_proof(proven: ProvenRow) -> Json:
    """`height`: the state after that block is proven; `canonical`: the bytes of a `ProvenRow`, for a program."""
    proof: dict[str, Any] = {
        "height": proven.header.height - 1,
        "state_root": proven.header.prev_state_root.hex(),
        "key": proven.key.hex(),
        "value": None if proven.value is None else proven.value.hex(),
        **render(proven.proof),
        "canonical": encode(proven).hex(),
    }
    return {"proof": proof, "header": render(proven.header), "commit": render(proven.commit)}
