"""What a peer's gossip of transactions may cost: a flood that only our state refuses is bounded, faults are told."""

from pathlib import Path

import pytest

from flockchain.errors import Refused
from flockchain.node import tx_gossip
from flockchain.node.messages import MAX_TXS, TxBatch
from flockchain.node.tx_gossip import CHECKED_BURST, CHECKED_PER_S
from flockchain.txs import transfer
from tests.support.cluster import Cluster
from tests.support.ledger import make_address

PEER, OTHER = b"p" * 20, b"o" * 20


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    return cluster


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The transactions that were checked; every one is refused for a reason of ours, as with spent nonces."""
    seen: list[bytes] = []

    def check(state: object, data: bytes, now_ms: int) -> None:
        seen.append(data)
        raise Refused("nonce-spent", "nonce 0 was used")

    monkeypatch.setattr(tx_gossip, "check_tx", check)
    return seen


def flood(cluster: Cluster, peer: bytes, first: int, count: int) -> None:
    gossip = cluster.machines[0].running.txs
    for start in range(first, first + count, MAX_TXS):
        gossip.receive(peer, TxBatch(tuple(i.to_bytes(8, "big") for i in range(start, start + MAX_TXS))))


def test_a_peers_flood_is_checked_up_to_its_rate_and_another_peer_is_heard(
    cluster: Cluster, checks: list[bytes]
) -> None:
    flood(cluster, PEER, 0, 4 * CHECKED_BURST)
    assert len(checks) == CHECKED_BURST
    flood(cluster, OTHER, 10**6, MAX_TXS)
    assert len(checks) == CHECKED_BURST + MAX_TXS
    cluster.world.now_ms += 500
    flood(cluster, PEER, 2 * 10**6, 4 * CHECKED_BURST)
    assert len(checks) == CHECKED_BURST + MAX_TXS + CHECKED_PER_S // 2


def test_a_flood_is_no_fault_and_its_memory_goes_with_the_peer(cluster: Cluster, checks: list[bytes]) -> None:
    flood(cluster, PEER, 0, 2 * CHECKED_BURST)
    gossip = cluster.machines[0].running.txs
    assert cluster.machines[0].network.penalties == []
    assert set(gossip._allowances) >= {PEER}
    gossip.forget(PEER)
    assert PEER not in gossip._allowances


def test_what_is_known_costs_no_allowance(cluster: Cluster) -> None:
    """Relays meet each other: the same transaction may come a thousand times."""
    gossip = cluster.machines[0].running.txs
    body = transfer.Body(make_address("bob"), 1, "")
    data = cluster.txs.tx("alice", body, expires_ms=cluster.world.now_ms + 60_000)
    assert gossip.receive(PEER, TxBatch((data,)))
    left = gossip._allowances[PEER][0]
    assert not any(gossip.receive(PEER, TxBatch((data,) * MAX_TXS)) for _ in range(5))
    assert gossip._allowances[PEER][0] == left
