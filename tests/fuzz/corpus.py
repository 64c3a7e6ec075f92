"""True messages of every kind: recorded from nodes that decide blocks and catch up, and the ones of the unit tests."""

from pathlib import Path

from flockchain.codec import encode
from flockchain.node.ports import Channel, PeerId
from tests.node.test_messages import MESSAGES
from tests.support.cluster import Cluster

MAX_PER_CHANNEL = 200


def build_cluster(folder: Path) -> tuple[Cluster, dict[Channel, list[bytes]]]:
    """Four nodes at a few heights, and what they said to each other on each channel."""
    cluster = Cluster(folder)
    heard: dict[Channel, list[bytes]] = {channel: [] for channel in Channel}
    for channel, message in MESSAGES:
        heard[channel].append(encode(message))

    def record(sender: PeerId, target: PeerId, channel: Channel, message: bytes) -> bool:
        if len(heard[channel]) < MAX_PER_CHANNEL and len(message) < 16_384:
            heard[channel].append(message)
        return True

    cluster.net.is_kept = record
    cluster.run_to(2)
    cluster.machines[3].kill()
    for amount in range(12):
        cluster.machines[0].running.submit(cluster.transfer("alice", "bob", amount + 1))
        cluster.world.run_for(300)
    cluster.restart(cluster.machines[3])
    cluster.run_to(cluster.machines[0].height + 1)
    cluster.net.is_kept = lambda *_: True
    return cluster, {channel: sorted(set(messages)) for channel, messages in heard.items()}
