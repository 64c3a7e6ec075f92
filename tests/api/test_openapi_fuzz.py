"""Schemathesis over the whole OpenAPI document: valid and broken requests, every answer held against the document.

Checks: no server error, documented statuses, content types, bodies and headers; valid requests are served, broken
ones refused; undeclared methods are 405 with `Allow`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.specs.openapi.checks import positive_data_acceptance

from api.app import create_app
from api.routes.txs import MAX_WAIT_MS
from tests.api import openapi_formats  # noqa: F401  registers the formats
from tests.api.node import Node, running_node
from tests.api.rows import ADAPTER, STAKE, SUBMISSION, TASK, UPDATE, make_round

EXAMPLES = int(os.environ.get("FLOCKCHAIN_OPENAPI_EXAMPLES", "20"))
"""Per operation, beside the covering ones; `make sim` asks for more."""
OPAQUE = frozenset({"POST /v1/txs", "POST /v1/txs/batch", "PUT /v1/adapters/{root}/blob"})
"""The document calls their bodies bytes, and few bytes are a transaction or that file: refusing is right."""


class Switch:
    """The document is read at collection, from an app without a chain; then the fixture's app serves."""

    def __init__(self) -> None:
        self.app: Any = create_app(None, None, None)  # type: ignore[arg-type]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


switch = Switch()
schema = schemathesis.openapi.from_asgi("/openapi.json", switch)


@pytest.fixture(scope="module", autouse=True)
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A chain with a task, a round in PUBLISH, an adapter recorded and held, a stake and receipts."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    with running_node(folder) as node:
        node.produce(TASK, STAKE, SUBMISSION, ADAPTER, make_round("publish"))
        node.produce()
        (folder / "update").write_bytes(UPDATE)
        node.blobs.add_file(folder / "update")
        switch.app = node.app
        yield node


NEEDS = {
    ("/v1/stakes", "prove"): {"owner", "target"},
    ("/v1/stakes/delegations", "prove"): {"delegator", "delegate", "target"},
    ("/v1/stakes/delegations", "target"): {"delegate"},
    ("/v1/stakes/delegations", "delegate"): {"target"},
    ("/v1/stakes/pools", "target"): {"delegate"},
}
"""Parameters that mean something only beside others; the document says so in words."""


def narrow(case: Any) -> None:
    """What the document can say in words alone."""
    query = case.query or {}
    for (path, name), others in NEEDS.items():
        if case.operation.path == path and not others <= set(query):
            query.pop(name, None)
    if str(query.get("wait_ms")).isdecimal() and 20 < int(query["wait_ms"]) <= MAX_WAIT_MS:
        query["wait_ms"] = 20  # holds its answer back: there is nothing more to see in ten seconds


@schema.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_every_answer_is_as_documented(case: Any) -> None:
    """`call_and_validate` raises for an answer that one of the checks refuses: status, schema, headers, 5xx."""
    narrow(case)
    is_opaque = case.operation.label in OPAQUE
    case.call_and_validate(checks=CHECKS.get_all(), excluded_checks=[positive_data_acceptance] if is_opaque else [])
