"""`/` the explorer and `/docs` the list of paths: two files, nothing loaded from elsewhere."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_PAGES = Path(__file__).resolve().parent.parent / "pages"
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/", response_class=HTMLResponse)
async def get_explorer() -> HTMLResponse:
    return _page("explorer.html")


@router.get("/docs", response_class=HTMLResponse)
async def get_docs() -> HTMLResponse:
    return _page("docs.html")


def _page(name: str) -> HTMLResponse:
    return HTMLResponse((_PAGES / name).read_text(encoding="utf-8"), headers=_HEADERS)
