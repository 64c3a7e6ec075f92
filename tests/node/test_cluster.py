"""Four real nodes over simulated ports: decide, crash, lag, lose messages, and agree."""

import asyncio
import re
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from flockchain.codec import decode, encode
from flockchain.errors import Fault
from flockchain.execution.balances import get_account
from flockchain.node.api_server import LiveNode
from flockchain.node.health import find_trouble
from flockchain.node.ledger import BUSY_INTERVAL_MS
from flockchain.node.messages import ProposalMessage, VoteMessage, decode_message
from flockchain.node.ports import Channel, Received
from flockchain.types.chain import PREVOTE, Block, ProposalBody, VoteBody
from flockchain.types.rows import ValidatorRow
from tests.support.cluster import Cluster, Machine
from tests.support.ledger import make_address


def balance(machine: Machine, name: str) -> int:
    return get_account(machine.running.ledger.state, make_address(name)).balance_uflk


def test_a_transfer_is_final_on_all_nodes_within_moments(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    cluster.world.run_for(1_000)
    before, started_ms = balance(cluster.machines[0], "bob"), cluster.world.now_ms
    cluster.machines[0].running.submit(cluster.transfer("alice", "bob", 7))
    cluster.world.run_until(lambda: all(balance(m, "bob") == before + 7 for m in cluster.machines), 1_000)
    assert cluster.world.now_ms - started_ms < 100
    cluster.check_agreement()


def test_blocks_under_load_keep_a_pace_and_the_proof_of_a_lone_transfer_does_not_delay_the_next(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    node, store = cluster.machines[0].running, cluster.machines[0].store
    for count in (30, 30, 1, 1):
        for _ in range(count):
            node.submit(cluster.transfer("alice", "bob", 1))
        cluster.world.run_until(lambda: not len(node.mempool), 5_000)
    blocks = [block for h in range(3, node.ledger.height + 1) if (block := store.block(h)) is not None]
    gaps = [(len(a.txs), b.header.time_ms - a.header.time_ms) for a, b in pairwise(blocks)]
    assert [gap for txs, gap in gaps if txs >= 20], "there was load"
    assert all(gap >= BUSY_INTERVAL_MS for txs, gap in gaps if txs >= 20)
    assert [len(block.txs) for block in blocks][-2:] == [1, 1], "no empty block between two that follow each other"
    assert gaps[-1][1] < BUSY_INTERVAL_MS


def test_an_idle_network_makes_a_block_only_when_the_idle_interval_passes(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    height = cluster.min_height()
    cluster.world.run_for(9_000)
    assert cluster.min_height() == height
    cluster.world.run_for(2_000)
    assert cluster.min_height() == height + 1


def test_three_of_four_go_on_without_the_fourth_which_catches_up(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    away = cluster.machines[3]
    away.kill()
    for i in range(100):
        cluster.machines[0].running.submit(cluster.transfer("alice", "bob", i + 1))
        cluster.world.run_for(300)
    others = cluster.min_height()
    assert others > 40
    cluster.restart(away)
    cluster.run_to(others)
    cluster.world.run_until(lambda: len({m.height for m in cluster.machines}) == 1)
    cluster.check_agreement()


def test_a_node_that_is_killed_at_any_moment_neither_signs_twice_nor_stops_the_others(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, seed=7)
    cluster.run_to(2)
    rng = cluster.net.rng
    for i in range(60):
        machine = cluster.machines[i % 4]
        cluster.machines[(i + 1) % 4].running.submit(cluster.transfer("carol", "dave", i + 1))
        cluster.world.run_for(rng.randint(0, 40))
        machine.kill()
        cluster.world.run_for(rng.choice((0, 10, 500)))
        cluster.restart(machine)
        cluster.world.run_for(rng.randint(0, 200))
    height = max(machine.height for machine in cluster.machines)
    cluster.run_to(height + 1)
    cluster.check_agreement()
    assert not any(reason for m in cluster.machines for _, _, reason in m.network.penalties), "nobody is at fault"
    assert cluster.txs.chain.supply_uflk <= cluster.machines[0].running.ledger.chain.supply_uflk


def test_all_four_killed_at_once_go_on_where_they_were(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, seed=3)
    cluster.run_to(2)
    for i in range(10):
        cluster.machines[i % 4].running.submit(cluster.transfer("erin", "frank", i + 1))
        cluster.world.run_for(i * 7)
        for machine in cluster.machines:
            machine.kill()
        for machine in cluster.machines:
            cluster.restart(machine)
        cluster.run_to(max(machine.height for machine in cluster.machines) + 1)
    cluster.check_agreement()


def test_loss_of_a_tenth_of_all_messages_slows_but_never_stops(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, seed=11, loss=0.1)
    cluster.run_to(2)
    for i in range(20):
        cluster.machines[i % 4].running.submit(cluster.transfer("alice", "bob", i + 1))
        cluster.world.run_for(500)
    cluster.run_to(15, 120_000)
    cluster.check_agreement()


def test_an_observer_follows_without_a_key(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, observers=1)
    cluster.run_to(2)
    observer = cluster.machines[4]
    before = balance(observer, "bob")
    observer.running.submit(cluster.transfer("alice", "bob", 5))
    cluster.world.run_until(lambda: balance(observer, "bob") == before + 5)
    cluster.check_agreement()


def test_a_line_of_nodes_decides_through_relays(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    ids = [machine.id for machine in cluster.machines]
    for i, one in enumerate(ids):
        for other in ids[i + 2 :]:
            cluster.net.disconnect(one, other)
    cluster.world.run_for(5_000)
    height = cluster.min_height()
    cluster.machines[0].running.submit(cluster.transfer("alice", "bob", 5))
    cluster.run_to(height + 1, 5_000)
    cluster.check_agreement()


def test_late_precommits_are_carried_by_a_later_block(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    slow = cluster.machines[2]
    held: list[tuple[bytes, bytes, bytes]] = []

    def is_kept(sender: bytes, target: bytes, channel: Channel, data: bytes) -> bool:
        if sender != slow.id or channel is not Channel.CONSENSUS:
            return True
        message = decode_message(channel, data)
        if isinstance(message, VoteMessage) and any(vote.body.kind == 2 for vote in message.votes):
            held.append((sender, target, data))
            return False
        return True

    cluster.net.is_kept = is_kept
    for _ in range(4):
        cluster.machines[0].running.submit(cluster.transfer("alice", "bob", 1))
        cluster.world.run_for(500)
    cluster.net.is_kept = lambda *_: True
    for sender, target, data in held:
        cluster.net.transmit(sender, target, Channel.CONSENSUS, data)
    cluster.world.run_for(50)
    height = cluster.min_height()
    cluster.machines[0].running.submit(cluster.transfer("alice", "bob", 1))
    cluster.run_to(height + 1)
    block = cluster.machines[0].store.block(height + 1)
    assert block is not None
    assert slow.signer is not None
    assert {vote.validator for vote in block.late_precommits} == {slow.signer.address}


def test_garbage_is_penalised_and_harms_nobody(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    victim, sender = cluster.machines[0], cluster.machines[1]
    for channel in Channel:
        cluster.net.transmit(sender.id, victim.id, channel, b"\xff" * 40)
    cluster.world.run_for(100)
    assert len(victim.network.penalties) == len(Channel)
    victim.running.submit(cluster.transfer("alice", "bob", 1))
    cluster.run_to(cluster.min_height() + 1)
    cluster.check_agreement()


def test_an_equivocator_is_reported_slashed_and_out(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    culprit, witness = cluster.machines[3], cluster.machines[0]
    assert culprit.signer is not None
    address, height = culprit.signer.address, cluster.min_height() + 1
    culprit.kill()
    cluster.world.run_for(100)
    cluster.net.links.add(frozenset((culprit.id, witness.id)))
    for block_id in (b"a" * 32, b""):
        vote = cluster.txs.sign_vote("val3", VoteBody(PREVOTE, height, 0, block_id))
        cluster.net.transmit(culprit.id, witness.id, Channel.CONSENSUS, encode(VoteMessage((vote,))))

    def is_out() -> bool:
        return witness.running.ledger.state.get(ValidatorRow, address).tombstoned

    cluster.world.run_until(is_out)
    block = witness.store.block(witness.height)
    assert block is not None
    assert 1 <= len(block.txs) <= 3, "each that saw it reports it; the chain punishes once"
    cluster.world.run_for(5_000)
    assert all(member.address != address for member in witness.running.ledger.members(witness.height + 1))
    cluster.check_agreement()


def test_two_equivocators_seen_at_one_height_are_both_punished(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, validators=7)
    cluster.run_to(2)
    culprits, witness = cluster.machines[5:], cluster.machines[0]
    height = cluster.min_height() + 1
    addresses = [culprit.signer.address for culprit in culprits if culprit.signer is not None]
    for culprit in culprits:
        culprit.kill()
    cluster.world.run_for(100)
    for culprit in culprits:
        cluster.net.links.add(frozenset((culprit.id, witness.id)))
        for block_id in (b"a" * 32, b""):
            vote = cluster.txs.sign_vote(culprit.name, VoteBody(PREVOTE, height, 0, block_id))
            cluster.net.transmit(culprit.id, witness.id, Channel.CONSENSUS, encode(VoteMessage((vote,))))

    def are_out() -> bool:
        state = witness.running.ledger.state
        return all(state.get(ValidatorRow, address).tombstoned for address in addresses)

    cluster.world.run_until(are_out)
    cluster.check_agreement()


def test_an_equivocation_at_the_first_height_is_punished_when_the_chain_knows_that_height(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    culprit, witness = cluster.machines[3], cluster.machines[0]
    assert culprit.signer is not None
    address = culprit.signer.address
    for block_id in (b"a" * 32, b""):
        vote = cluster.txs.sign_vote("val3", VoteBody(PREVOTE, 1, 0, block_id))
        witness.running.handle(Received(culprit.id, Channel.CONSENSUS, encode(VoteMessage((vote,)))))
    assert witness.height == 0
    cluster.world.run_until(lambda: witness.running.ledger.state.get(ValidatorRow, address).tombstoned)


def test_a_chain_that_stands_still_is_not_ready(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    witness = cluster.machines[0].running

    def ask() -> str | None:
        return find_trouble(witness, len(cluster.machines[0].network.peers()), cluster.world.now_ms)

    assert ask() is None
    cluster.world.run_for(30_000)
    assert ask() is None, "an idle network makes a block every ten seconds"
    for machine in cluster.machines[2:]:
        machine.kill()
    cluster.world.run_for(60_000)
    trouble = ask()
    assert trouble is not None
    assert re.match(r"no block for (5|6)\d s: the network has no two thirds of its power together", trouble)
    cluster.machines[1].kill()
    assert ask() == "no peer is connected"


@pytest.mark.parametrize("seed", range(6))
def test_forged_consensus_messages_change_nothing(tmp_path: Path, seed: int) -> None:
    cluster = Cluster(tmp_path, seed=seed)
    cluster.run_to(2)
    rng, victim, sender = cluster.net.rng, cluster.machines[0], cluster.machines[1]
    for _ in range(200):
        body = VoteBody(
            rng.randint(1, 2), victim.height + rng.randint(0, 3), rng.randint(0, 5), rng.choice((b"", b"x" * 32))
        )
        signed = cluster.txs.sign_vote(rng.choice(("val1", "alice")), body)
        forged = msgspec.structs.replace(signed, validator=rng.choice((make_address("val2"), make_address("alice"))))
        cluster.net.transmit(sender.id, victim.id, Channel.CONSENSUS, encode(VoteMessage((forged,))))
        proposal = cluster.txs.sign_proposal("val1", ProposalBody(victim.height + 1, rng.randint(0, 3), b"y" * 32, -1))
        wrong = ProposalMessage(msgspec.structs.replace(proposal, signature=b"s" * 64), b"block", ())
        cluster.net.transmit(sender.id, victim.id, Channel.CONSENSUS, encode(wrong))
    cluster.world.run_for(100)
    assert len(victim.network.penalties) > 100, f"seed {seed}"
    victim.running.submit(cluster.transfer("alice", "bob", 1))
    cluster.run_to(cluster.min_height() + 1)
    cluster.check_agreement()


def test_a_proof_of_lock_made_of_foreign_votes_fills_no_book(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    victim, sender = cluster.machines[0], cluster.machines[1]
    decided = victim.running.ledger.store.block(victim.height)
    assert decided is not None
    foreign = tuple(cluster.txs.sign_vote("val2", VoteBody(PREVOTE, 1, r, b"x" * 32)) for r in range(50))
    for round_ in range(1, 9):
        header = msgspec.structs.replace(decided.header, time_ms=decided.header.time_ms + round_)
        block = msgspec.structs.replace(decided, header=header)
        body = ProposalBody(victim.height + 1, round_, block.block_id(), 0)
        message = ProposalMessage(cluster.txs.sign_proposal("val1", body), encode(block), foreign)
        cluster.net.transmit(sender.id, victim.id, Channel.CONSENSUS, encode(message))
    cluster.world.run_for(100)
    assert any("proof of lock" in str(penalty) for penalty in victim.network.penalties)
    victim.running.submit(cluster.transfer("alice", "bob", 1))
    cluster.run_to(cluster.min_height() + 1)
    cluster.check_agreement()


def test_a_block_with_foreign_contents_is_its_senders_fault_not_the_blocks(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    victim = cluster.machines[0]
    honest_transmit, tampered = cluster.net.transmit, []

    def transmit(sender: bytes, target: bytes, channel: Channel, data: bytes) -> bool:
        if channel is Channel.CONSENSUS and target == victim.id and not tampered:
            message = decode_message(channel, data)
            if isinstance(message, ProposalMessage) and message.block:
                block = decode(Block, message.block)
                changed = encode(msgspec.structs.replace(block, txs=(*block.txs, b"more")))
                tampered.append(sender)
                data = encode(msgspec.structs.replace(message, block=changed))
        return honest_transmit(sender, target, channel, data)

    cluster.net.transmit = transmit  # type: ignore[method-assign]
    height = cluster.min_height()
    for _ in range(4):
        cluster.machines[1].running.submit(cluster.transfer("alice", "bob", 1))
        cluster.world.run_for(2_000)
    assert tampered
    assert {peer for peer, _, _ in victim.network.penalties} == set(tampered)
    assert victim.height == cluster.machines[1].height > height
    cluster.check_agreement()


def test_a_clock_that_is_off_is_named_to_its_operator_and_stops_nobody(tmp_path: Path) -> None:
    """One of four clocks is a minute fast: its node hears timely proposals as late ones, and says so."""
    cluster = Cluster(tmp_path)
    cluster.run_to(2)
    machine = cluster.machines[3]
    machine.kill()
    machine.skew_ms = 60_000
    with capture_logs() as said:
        cluster.restart(machine)
        cluster.run_to(5)
    cluster.check_agreement()
    fast = [entry for entry in said if entry["event"] == "untimely-proposal" and "is 6" in entry["reason"]]
    assert fast
    assert all("ms behind this node's clock, allowed are" in entry["reason"] for entry in fast)
    assert all("check NTP" in entry["reason"] for entry in fast)


def test_a_request_to_a_node_that_has_stopped_is_answered_at_once(tmp_path: Path) -> None:
    """Its guard lets nobody in any more; unanswered, the request would hold up the stop until it is cancelled."""
    cluster = Cluster(tmp_path)
    data = cluster.transfer("alice", "bob", 7)

    async def ask() -> None:
        view = LiveNode(cluster.machines[0].running, asyncio.get_running_loop(), lambda action: None, None)
        async with asyncio.timeout(1):
            await view.submit_all([data])

    with pytest.raises(Fault, match="this node is stopping: ask another one"):
        asyncio.run(ask())
