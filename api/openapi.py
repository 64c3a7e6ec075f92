"""The OpenAPI document: what FastAPI derives from the routes, and what every route shares.

The formats named here carry a checksum or a meaning that no pattern can state; `tests/api/openapi_formats.py` makes
valid ones.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

Json = dict[str, Any]

HASH_PATTERN = r"^[0-9a-f]{64}$"
HEIGHT_PATTERN = r"^(latest|0|[1-9][0-9]{0,17})$"

_MEANINGS = {
    400: "Refused by a rule of the chain or of this node; the code names it.",
    404: "No such thing, or its bytes are not here.",
    413: "The body is larger than this path takes.",
    416: "The range cannot be served, or does not continue what is here.",
    422: "Malformed: the message says what and where.",
    429: "Too much from one client; `Retry-After` says when.",
    503: "Not now: too busy, full, or not ready; `Retry-After` says when.",
}
_NAMES_ONE = frozenset({"prove", "height"})
"""Parameters by which a path without an id in it asks for one thing, that may not be."""
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "additionalProperties": False,
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "details": {"type": "object"}},
        }
    },
}


def describe_by(app: FastAPI) -> Callable[[], Json]:
    """What `app.openapi` becomes; the document is made once."""

    def describe() -> Json:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            document["components"] = {"schemas": {"Error": _ERROR}}
            for path, method, operation in _operations(document):
                _add_errors(path, method, operation)
                for parameter in operation.get("parameters", ()):
                    parameter["schema"] = _without_null(parameter["schema"])
            app.openapi_schema = document
        return app.openapi_schema

    return describe


def find_methods(app: FastAPI, path: str) -> list[str]:
    """The methods of every route at this path, for the `Allow` header of a 405 (RFC 9110, section 15.5.6)."""
    found: set[str] = set()
    for route in app.routes:
        pattern: re.Pattern[str] | None = getattr(route, "path_regex", None)
        if pattern is not None and pattern.match(path):
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


def _operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _add_errors(path: str, method: str, operation: Json) -> None:
    statuses = {503}
    if operation.get("parameters") or "requestBody" in operation:
        statuses.add(422)
    if "{" in path or any(parameter["name"] in _NAMES_ONE for parameter in operation.get("parameters", ())):
        statuses.add(404)
    if method in ("post", "put"):
        statuses |= {400, 413}
    if method == "post":
        statuses.add(429)
    if path.endswith("/blob"):
        statuses |= {400, 416}
    for status in sorted(statuses):
        answer: Json = {
            "description": _MEANINGS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        if status in (429, 503):
            seconds = {"type": "integer", "minimum": 1}
            answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": seconds, "required": True}}
        operation["responses"][str(status)] = answer


def _without_null(schema: Json) -> Json:
    """A parameter is left out, never null. A format says more of its length than `maxLength`, which guards alone."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema = {**{name: value for name, value in schema.items() if name != "anyOf"}, **kinds[0]}
    return {name: value for name, value in schema.items() if name != "maxLength" or "format" not in schema}
