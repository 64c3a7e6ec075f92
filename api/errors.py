"""One error shape everywhere: ``{"error": {"code", "message", "details"}}``.

400 refused by a rule   404 unknown id   410 pruned here   413 too large   422 malformed
429, 503 overload, with Retry-After
"""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.admission import RateLimited
from api.openapi import find_methods
from flockchain.errors import Fault, Malformed, Refused

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
_STATUS_OF_CODE = {
    "not-found": 404,
    "no-blob": 404,
    "unexpected-blob": 404,
    "pruned": 410,
    "too-large": 413,
    "range-gap": 416,
    "account-limit": 429,
    "mempool-full": 503,
    "blobs-full": 503,
    "overloaded": 503,
    "not-proven-yet": 503,
}
_CODE_OF_STATUS = {404: "not-found", 405: "wrong-method", 413: "too-large", 416: "bad-range", 422: "malformed"}


class NotFound(Refused):
    """No such thing on this chain, as far as this node knows; `details` may hold the proof of that."""

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__("not-found", message)
        self.details = details


class Overloaded(Refused):
    """More at once than this node serves; the same request may succeed a moment later."""

    def __init__(self, message: str) -> None:
        super().__init__("overloaded", message)


def make_error(
    status: int, code: str, message: str, details: dict[str, Any] | None = None, *, retry_after_s: int = RETRY_AFTER_S
) -> JSONResponse:
    headers = {"Retry-After": str(retry_after_s)} if status in (429, 503) else None
    body = {"error": {"code": code, "message": message, "details": details or {}}}
    return JSONResponse(body, status_code=status, headers=headers)


def make_refusal(refusal: Refused) -> JSONResponse:
    """The answer to what breaks a rule."""
    if isinstance(refusal, RateLimited):
        return make_error(429, refusal.code, refusal.message, retry_after_s=refusal.retry_after_s)
    status = 422 if isinstance(refusal, Malformed) else _STATUS_OF_CODE.get(refusal.code, 400)
    return make_error(status, refusal.code, refusal.message, refusal.details if isinstance(refusal, NotFound) else None)


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(Refused, _answer_refused)
    app.add_exception_handler(Fault, _answer_fault)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)


async def _answer_refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return make_refusal(error)


async def _answer_fault(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s: %s", request.method, request.url.path, error)
    return make_error(503, "fault", "this node cannot read its own files at the moment: ask another node")


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own: unknown path, wrong method, bad request."""
    assert isinstance(error, HTTPException)
    message = {
        404: f"no such path: {request.url.path[:200]}; see /docs",
        405: f"{request.method} is not possible here; see /docs",
    }.get(error.status_code, str(error.detail))
    answer = make_error(error.status_code, _CODE_OF_STATUS.get(error.status_code, "bad-request"), message)
    if error.status_code == 405:
        answer.headers["Allow"] = ", ".join(find_methods(request.app, request.scope["path"]))
    return answer


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [
        {"where": ".".join(str(part) for part in problem["loc"]), "what": problem["msg"]} for problem in error.errors()
    ]
    first = problems[0]
    return make_error(422, "malformed", f"{first['where']}: {first['what']}", {"problems": problems[:10]})
