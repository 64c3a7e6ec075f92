"""The node's own numbers for `/metrics`; the API adds its own to the same registry."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from flockchain.execution.block import BlockOutcome
from flockchain.types.chain import Block
from flockchain.types.tx import OK

_ROUND_BUCKETS = (0, 1, 2, 3, 5, 10, 20)
_TX_BUCKETS = (0, 1, 10, 100, 500, 1_000, 5_000)


class NodeMetrics:
    """Listens to decided blocks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._txs = Counter("flockchain_txs", "Transactions in decided blocks.", ("kind", "outcome"), registry=registry)
        self._block_txs = Histogram(
            "flockchain_block_txs", "Transactions of a block.", buckets=_TX_BUCKETS, registry=registry
        )
        self._rounds = Histogram(
            "flockchain_commit_round",
            "Round in which the block before was decided; 0 when all goes well.",
            buckets=_ROUND_BUCKETS,
            registry=registry,
        )
        self._late = Counter("flockchain_late_precommits", "Precommits that missed their commit.", registry=registry)

    def on_block(self, block: Block, outcome: BlockOutcome) -> None:
        self._block_txs.observe(len(block.txs))
        self._rounds.observe(block.last_commit.round)
        self._late.inc(len(block.late_precommits))
        for result in outcome.results:
            self._txs.labels(result.kind, "ok" if result.code == OK else "refused").inc()
