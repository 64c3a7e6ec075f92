"""What every route works with, and how it reads ids out of a path."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Path, Query, Request

from api.admission import Admission
from api.json import Json, render
from api.node_view import NodeView
from api.openapi import HASH_PATTERN, HEIGHT_PATTERN
from flockchain.crypto import HASH_BYTES
from flockchain.errors import Malformed
from flockchain.store.blob_store import BlobStore
from flockchain.store.reader import MAX_PAGE, Page, Reader
from flockchain.types.ids import I63_MAX
from flockchain.types.rows import Row

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most items of this page.")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=512,
        description="`next_cursor` of the page before.",
        json_schema_extra={"format": "cursor"},
    ),
]
Number = Annotated[int, Path(ge=0, le=I63_MAX)]
AddressPath = Annotated[str, Path(description="flk1...", json_schema_extra={"format": "flk-address"})]
AddressQuery = Annotated[
    str | None, Query(description="flk1...", max_length=128, json_schema_extra={"format": "flk-address"})
]
HashPath = Annotated[str, Path(description="64 hex digits.", json_schema_extra={"pattern": HASH_PATTERN})]
HeightPath = Annotated[str, Path(description="A height, or `latest`.", json_schema_extra={"pattern": HEIGHT_PATTERN})]
DEFAULT_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Services:
    reader: Reader
    node: NodeView
    blobs: BlobStore
    admission: Admission


def services(request: Request) -> Services:
    """Of the app that answers this request."""
    found: Services = request.app.state.services
    return found


def client_of(request: Request) -> str:
    """Its IP. Behind a proxy on this machine that sends `X-Forwarded-For`, uvicorn has put that in its place."""
    return request.client.host if request.client is not None else ""


def parse_hash(text: str) -> bytes:
    """A hash or root from its 64 hex digits; raises `Malformed`."""
    try:
        data = bytes.fromhex(text) if text.isascii() and len(text) == 2 * HASH_BYTES else b""
    except ValueError:
        data = b""
    if len(data) != HASH_BYTES:
        raise Malformed(f"{text[:80]!r} is not a hash: {2 * HASH_BYTES} hex digits name one")
    return data


def parse_height(text: str) -> int:
    """A height from a path that also takes `latest`; raises `Malformed`."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= I63_MAX):
        raise Malformed(f"{text[:80]!r} is no height: give a number or 'latest'")
    return int(text)


def render_page(items: list[Json], page: "Page[object]") -> Json:
    """The form of every list."""
    return {"items": items, "next_cursor": page.next_cursor}


def render_rows(page: Page[Row]) -> Json:
    """A list of rows as they are."""
    return render_page([render(row) for row in page.items], page)
