"""`/v1/adapters`: recorded adapters and their bytes.

Bytes are private until submissions close: from PUBLISH on a node takes them from their owner and hands them out.
Whoever uploads needs no key: only bytes with the recorded root are kept.
"""

import asyncio
import re
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from api.errors import NotFound
from api.json import Json, render
from api.services import HashPath, Services, parse_hash, services
from flockchain.errors import Malformed, Refused
from flockchain.types.rows import Adapter, FinalSet, TrainingRound

router = APIRouter(prefix="/v1/adapters", tags=["learning"])

WRITE_BYTES = 1_048_576
_PRIVATE_PHASES = ("enroll", "train")
_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")

Range = Annotated[
    str | None,
    Header(alias="Range", description="`bytes=0-1023`, one range.", json_schema_extra={"format": "byte-range"}),
]
ContentRange = Annotated[
    str | None,
    Header(
        description="`bytes 0-1023/4096`, or `bytes */4096` to ask how far it is.",
        json_schema_extra={"format": "content-range"},
    ),
]


@router.get("/{root}")
async def get_adapter(request: Request, root: HashPath) -> Json:
    """Who recorded this root, for which round, and whether this node holds the bytes."""
    to, name = services(request), parse_hash(root)
    adapter, _ = _find(to, name)
    return {**render(adapter), "is_held": to.blobs.has(name)}


@router.get("/{root}/blob", response_class=FileResponse)
async def get_blob(request: Request, root: HashPath, wanted: Range = None) -> FileResponse:
    """The bytes, whole or one range. 404 where this node does not hold them: ask another."""
    to, name = services(request), parse_hash(root)
    _check_published(*_find(to, name))
    path = to.blobs.path(name)
    if wanted is not None:
        _check_range(wanted, to.blobs.size(name) or 0)
    return FileResponse(path, media_type="application/octet-stream", filename=f"{root}.safetensors")


@router.put("/{root}/blob")
async def put_blob(request: Request, root: HashPath, content_range: ContentRange = None) -> Json:
    """The bytes of a recorded root, whole or by ranges from the front; `received_bytes` says where to go on."""
    to, name = services(request), parse_hash(root)
    adapter, row = _find(to, name)
    _check_published(adapter, row)
    to.blobs.expect(name, adapter.size_bytes)
    offset = _parse_content_range(content_range, adapter.size_bytes)
    pending = bytearray()
    async for data in request.stream():
        pending += data
        if len(pending) >= WRITE_BYTES:
            offset = await _write(to, name, offset, pending)
    if pending:
        await _write(to, name, offset, pending)
    received_bytes = to.blobs.received_bytes(name)
    return {
        "root": name.hex(),
        "received_bytes": received_bytes,
        "size_bytes": adapter.size_bytes,
        "complete": to.blobs.has(name),
    }


async def _write(to: Services, root: bytes, offset: int, pending: bytearray) -> int:
    """Write and clear what came, off the loop; returns the offset behind it."""
    data = bytes(pending)
    pending.clear()
    await asyncio.to_thread(to.blobs.write_range, root, offset, data)
    return offset + len(data)


def _find(to: Services, root: bytes) -> tuple[Adapter, TrainingRound | FinalSet | None]:
    with to.reader.snapshot() as chain:
        adapter = chain.find(Adapter, root)
        if adapter is None:
            raise NotFound(f"no transaction has recorded an adapter with root {root.hex()}")
        if adapter.kind == "final":
            return adapter, chain.find(FinalSet, adapter.task)
        return adapter, chain.find(TrainingRound, adapter.task, adapter.round)


def _check_published(adapter: Adapter, row: TrainingRound | FinalSet | None) -> None:
    if adapter.kind == "final" and row is not None and row.phase in ("hidden", "reveal"):
        raise Refused(
            "not-published", f"the final set of task {adapter.task} is hidden until its creator sends `reveal-final`"
        )
    if adapter.kind == "update" and row is not None and row.phase in _PRIVATE_PHASES:
        raise Refused(
            "not-published",
            f"round {adapter.round} of task {adapter.task} is in phase {row.phase}: bytes are private until publish",
        )


def _check_range(header: str, size_bytes: int) -> None:
    """Refuse what cannot be served, in our words; one range is enough for resuming."""
    match = _RANGE.fullmatch(header.strip())
    first, last = match.groups() if match else (None, None)
    if first is None and last is None:
        raise HTTPException(416, f"range {header[:64]!r}: give one as bytes=FIRST-LAST")
    if first is not None and (int(first) >= size_bytes or (last is not None and int(last) < int(first))):
        raise HTTPException(416, f"range {header[:64]!r} does not lie within {size_bytes} bytes")
    if first is None and int(last or 0) == 0:
        raise HTTPException(416, f"range {header[:64]!r} is empty")


def _parse_content_range(header: str | None, size_bytes: int) -> int:
    """Offset of the first byte of the body."""
    if header is None:
        return 0
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise Malformed(f"content-range {header[:64]!r}: give it as 'bytes FIRST-LAST/SIZE'")
    first, last, size = match.groups()
    if int(size) != size_bytes:
        raise Malformed(f"content-range says {size} bytes, the chain recorded {size_bytes}")
    if first is not None and int(last) < int(first):
        raise Malformed(f"content-range {header[:64]!r} ends before it begins")
    return int(first or 0)
