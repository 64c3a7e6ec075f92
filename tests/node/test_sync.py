"""Catching up, with peers that are silent, lie, or leave."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from flockchain.codec import decode, encode
from flockchain.execution.block import BlockOutcome
from flockchain.node.messages import BlockResponse, BlocksPruned, Decision, Status, decode_message
from flockchain.node.ports import Channel, Decided, Received
from flockchain.node.sync import BLOCKS_PER_COMMIT
from flockchain.types.chain import Block
from tests.support.cluster import Cluster, Machine

BLOCKS = 120


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[tuple[Cluster, Machine]]:
    """Four nodes, the last of which was away for more than a hundred blocks."""
    cluster = Cluster(tmp_path, seed=5)
    cluster.run_to(2)
    away = cluster.machines[3]
    away.kill()
    cluster.world.run_for(100)
    while cluster.min_height() < BLOCKS:
        cluster.machines[0].running.submit(cluster.transfer("alice", "bob", 1))
        cluster.world.run_for(100)
    yield cluster, away
    cluster.check_agreement()


def test_a_node_far_behind_asks_for_ranges_and_arrives(behind: tuple[Cluster, Machine]) -> None:
    cluster, away = behind
    cluster.restart(away)
    cluster.world.run_until(lambda: away.running.is_catching_up, 1_000)
    cluster.run_to(BLOCKS, 5_000)
    cluster.world.run_until(lambda: not away.running.is_catching_up, 1_000)


def test_silent_peers_are_given_up(behind: tuple[Cluster, Machine]) -> None:
    cluster, away = behind
    silent = {cluster.machines[0].id, cluster.machines[1].id}
    cluster.net.is_kept = lambda sender, target, channel, _: not (sender in silent and channel is Channel.SYNC)
    cluster.restart(away)
    cluster.run_to(BLOCKS, 60_000)
    assert {peer for peer, _, reason in away.network.penalties if "in time" in reason} <= silent


def test_a_changed_block_is_refused_and_its_sender_banned(behind: tuple[Cluster, Machine]) -> None:
    cluster, away = behind
    liars: list[bytes] = []
    honest_transmit = cluster.net.transmit

    def transmit(sender: bytes, target: bytes, channel: Channel, data: bytes) -> bool:
        if channel is Channel.SYNC and sender != away.id:
            liars[:] = liars or [sender]  # whoever is asked first
            message = decode_message(channel, data)
            if sender in liars and isinstance(message, BlockResponse) and message.decisions:
                first, commit = message.decisions[0]
                block = decode(Block, first)
                header = msgspec.structs.replace(block.header, time_ms=block.header.time_ms + 1)
                forged = encode(msgspec.structs.replace(block, header=header))
                data = encode(BlockResponse(message.first, ((forged, commit), *message.decisions[1:])))
        return honest_transmit(sender, target, channel, data)

    cluster.net.transmit = transmit  # type: ignore[method-assign]
    cluster.restart(away)
    cluster.run_to(BLOCKS, 60_000)
    assert {peer for peer, points, _ in away.network.penalties if points == 100} == set(liars)


def test_a_peer_that_leaves_is_replaced(behind: tuple[Cluster, Machine]) -> None:
    cluster, away = behind
    cluster.restart(away)
    cluster.world.run_until(lambda: away.height > 40)
    cluster.machines[0].kill()
    cluster.run_to(BLOCKS, 60_000)
    cluster.restart(cluster.machines[0])


def test_blocks_are_persisted_together_and_told_of_afterwards(behind: tuple[Cluster, Machine]) -> None:
    cluster, away = behind
    sizes: list[int] = []
    persist = away.store.persist_blocks

    def persist_blocks(decided: Sequence[Decided]) -> None:
        persist(decided)
        sizes.append(len(decided))

    away.store.persist_blocks = persist_blocks  # type: ignore[method-assign]
    cluster.restart(away)
    told: list[int] = []

    def listen(block: Block, _: BlockOutcome) -> None:
        assert away.store.height >= block.height
        told.append(block.height)

    away.running.listeners.append(listen)
    cluster.run_to(BLOCKS, 5_000)
    assert told == list(range(told[0], told[-1] + 1)), "each block once, in order"
    assert len(told) == sum(sizes)
    assert 16 < max(sizes) <= BLOCKS_PER_COMMIT


def test_an_observer_from_genesis_syncs_in_bounded_slices(behind: tuple[Cluster, Machine]) -> None:
    cluster, away = behind
    fresh = Machine(cluster, 9, is_validator=False)
    cluster.machines.append(fresh)
    cluster.restart(fresh)
    cluster.restart(away)
    cluster.run_to(BLOCKS, 60_000)
    assert fresh.height >= BLOCKS
    cluster.check_agreement()


def test_a_peer_that_has_pruned_is_asked_for_newer_blocks_alone(behind: tuple[Cluster, Machine]) -> None:
    """Two of three peers forgot the blocks up to 60: nobody is at fault, the third gives those."""
    cluster, away = behind
    pruned = {cluster.machines[0].id, cluster.machines[1].id}
    for machine in cluster.machines[:2]:
        forget_below(machine, 61)
    told: list[bytes] = []
    transmit = cluster.net.transmit

    def listen(sender: bytes, target: bytes, channel: Channel, data: bytes) -> bool:
        if channel is Channel.SYNC and isinstance(decode_message(channel, data), BlocksPruned):
            told.append(sender)
        return transmit(sender, target, channel, data)

    cluster.net.transmit = listen  # type: ignore[method-assign]
    cluster.restart(away)
    cluster.run_to(BLOCKS, 60_000)
    assert set(told) == pruned
    assert max(told.count(peer) for peer in pruned) <= 4, "once it has said so it is asked no more"
    assert away.network.penalties == []


def test_blocks_that_nobody_holds_are_said_and_wait_for_somebody(
    behind: tuple[Cluster, Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, away = behind
    for machine in cluster.machines[:3]:
        forget_below(machine, 61)
    height = away.height
    cluster.restart(away)
    cluster.world.run_for(20_000)
    assert away.height == height
    assert away.network.penalties == []
    assert capsys.readouterr().out.count("blocks-pruned") == 1
    for machine in cluster.machines[:3]:
        forget_below(machine, 1)
        cluster.net.disconnect(away.id, machine.id)
    cluster.world.run_for(1_000)
    for machine in cluster.machines[:3]:
        cluster.net.connect(away.id, machine.id)
    cluster.run_to(BLOCKS, 60_000)


def test_a_peer_just_behind_a_snapshot_gets_no_help_and_does_no_harm(behind: tuple[Cluster, Machine]) -> None:
    """A node that began from a snapshot holds no block below it, whatever a peer says it lacks."""
    cluster, _ = behind
    machine, peer = cluster.machines[0], cluster.machines[1]
    cluster.world.run_for(1_000)  # past the interval between two helps
    forget_below(machine, machine.height)
    sent: list[bytes] = []
    cluster.net.is_kept = lambda sender, target, channel, data: not sent.append(data)  # type: ignore[func-returns-value]
    for behind_by, is_helped in ((2, False), (1, True)):
        status = Status(machine.height - behind_by, 0, False, (), 3)
        machine.running.handle(Received(peer.id, Channel.CONSENSUS, encode(status)))
        helped = [data for data in sent if isinstance(decode_message(Channel.CONSENSUS, data), Decision)]
        assert bool(helped) == is_helped
        machine.running.gossip._helped_ms.clear()


def forget_below(machine: Machine, height: int) -> None:
    machine.store.pruned_below = height
