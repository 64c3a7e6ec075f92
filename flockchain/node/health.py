"""How a running node is doing, as `/health` and `/v1/status` say it."""

from flockchain.node.node import Node

STALLED_MS = 30_000
"""Beyond the idle interval: rounds of consensus take a few seconds when one validator is away."""


def find_trouble(node: Node, peers: int, now_ms: int) -> str | None:
    """Why nobody should send this node requests now, as `/health` says it; None when all is well."""
    ledger = node.ledger
    if node.is_catching_up:
        return f"catching up: at height {ledger.height} of {node.sync.target}"
    if not peers and len(ledger.members(ledger.height + 1)) > 1:
        return "no peer is connected"
    still_ms = now_ms - ledger.chain.time_ms
    if still_ms > ledger.params.consensus.idle_block_interval_ms + STALLED_MS:
        return (
            f"no block for {still_ms // 1_000} s: the network has no two thirds of its power together, or this "
            "machine's clock is ahead"
        )
    return None
