"""`/metrics` for Prometheus: this node's numbers, named `flockchain_*`, in a registry of their own."""

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.services import Services
from flockchain.types.rows import ValidatorSet

router = APIRouter(tags=["node"])

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)


class Metrics:
    """Counters of the API, and gauges read at the moment of the scrape. The node adds its own to `registry`."""

    def __init__(self, services: Services, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "flockchain_http_requests", "Requests answered.", ("method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "flockchain_http_seconds", "Time to answer a request.", buckets=_BUCKETS_S, registry=registry
        )
        registry.register(_ChainCollector(services))

    def observe(self, method: str, status: int, seconds: float) -> None:
        """One answered request; status 0: the client left first."""
        known = method if method in ("GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE") else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.observe(seconds)


class _ChainCollector(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        node = self._services.node
        with self._services.reader.snapshot() as snapshot:
            tip, chain = snapshot.tip(), snapshot.chain()
            signers = snapshot.find(ValidatorSet, tip.height + 1)
        mempool = node.mempool()
        yield _gauge("height", "Newest persisted block.", tip.height)
        yield _gauge("block_time_ms", "Header time of the newest block, Unix milliseconds.", tip.time_ms)
        yield _gauge("validators", "Validators of the next block.", len(signers.members) if signers else 0)
        yield _gauge("supply_uflk", "All money.", chain.supply_uflk)
        yield _gauge("community_pool_uflk", "Money in the community pool.", chain.community_pool_uflk)
        yield _gauge("peers", "Connected peers.", len(node.peers()))
        yield _gauge("catching_up", "1 while the node lacks decided blocks.", int(node.is_catching_up))
        yield _gauge("ready", "1 when /health is 200.", int(node.health() is None))
        yield _gauge("mempool_txs", "Transactions that wait.", mempool.txs)
        yield _gauge("mempool_bytes", "Bytes of transactions that wait.", mempool.size_bytes)
        yield _gauge("blob_bytes", "Bytes of adapters, kept or reserved.", self._services.blobs.used_bytes)

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry would otherwise collect once to learn the names, before the node is up."""
        return iter(())


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"flockchain_{name}", text, value=value)


@router.get("/metrics", response_class=Response)
async def get_metrics(request: Request) -> Response:
    """Prometheus text format."""
    metrics: Metrics = request.app.state.metrics
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
