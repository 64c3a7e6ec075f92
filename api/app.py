"""The FastAPI application of one node.

Handlers are `async def` and read SQLite on the loop: a point read takes a tenth of a millisecond, a thread hop more.
"""

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from api import metrics
from api.admission import Admission, TxRates
from api.errors import add_error_handlers
from api.guard import Guard
from api.node_view import NodeView
from api.openapi import describe_by
from api.routes import (
    accounts,
    adapters,
    blocks,
    changes,
    events,
    finals,
    light,
    node,
    pages,
    params,
    receipts,
    rounds,
    stakes,
    status,
    tasks,
    txs,
    validators,
)
from api.services import Services
from flockchain import __version__
from flockchain.store.blob_store import BlobStore
from flockchain.store.reader import Reader

_ROUTES = (
    *(status, blocks, light, txs, accounts, validators, stakes, tasks, rounds, finals),
    *(adapters, receipts, params, changes, node, events, pages, metrics),
)


def create_app(
    reader: Reader,
    node_view: NodeView,
    blobs: BlobStore,
    *,
    registry: CollectorRegistry | None = None,
    rates: TxRates | None = None,
) -> FastAPI:
    """The app over a node's store, its running parts and its adapter files; `registry` may hold the node's metrics."""
    app = FastAPI(
        title="flockchain",
        version=__version__,
        description="Fine-tune one language model together, on a proof-of-stake ledger.",
        docs_url=None,  # Swagger's page loads from elsewhere; ours works offline
        redoc_url=None,
    )
    app.state.services = Services(reader, node_view, blobs, Admission(rates or TxRates()))
    app.state.metrics = metrics.Metrics(app.state.services, registry or CollectorRegistry())
    app.add_middleware(Guard, observe=app.state.metrics.observe)
    add_error_handlers(app)
    for module in _ROUTES:
        app.include_router(module.router)
    app.openapi = describe_by(app)  # type: ignore[method-assign]
    return app
