"""Networks on real sockets of this machine: who gets in, who stays, who comes back."""

from dataclasses import replace

import pytest

from flockchain.crypto import format_address, sha256
from flockchain.errors import Fault, Refused
from flockchain.node.net.framing import CONTROL_CHANNEL
from flockchain.node.ports import Channel, PeerConnected, PeerLost

from .loopback import HIGH, LOW, QUICK, id_of, party, raw_listener, raw_peer, run, wait_until


def test_two_networks_talk() -> None:
    async def story() -> None:
        async with party(1) as listener, party(2, listener.address, listen=None) as dialer:
            await wait_until(lambda: dialer.connects == listener.connects == 1)
            assert (dialer.network.peers(), listener.network.peers()) == ([listener.id], [dialer.id])
            assert dialer.network.send(listener.id, Channel.CONSENSUS, b"to the listener")
            listener.network.broadcast(Channel.MEMPOOL, b"to all")
            await wait_until(lambda: bool(dialer.received and listener.received))
            assert listener.received == [(Channel.CONSENSUS, b"to the listener")]
            assert dialer.received == [(Channel.MEMPOOL, b"to all")]

    run(story)


def test_events_come_after_the_call_that_caused_them_and_in_order() -> None:
    async def story() -> None:
        async with party(1) as listener, party(2, listener.address) as dialer:
            await wait_until(lambda: dialer.connects == listener.connects == 1)
            for number in range(100):
                dialer.network.send(listener.id, Channel.CONSENSUS, bytes((number,)))
            await wait_until(lambda: len(listener.received) == 100)
            assert [message[0] for _, message in listener.received] == list(range(100))
            listener.network.penalize(dialer.id, 100, "test")
            assert listener.losses == []
            assert listener.network.peers() == []
            await wait_until(lambda: len(listener.losses) == 1)

    run(story)


def test_broadcast_leaves_out_the_peer_it_came_from() -> None:
    async def story() -> None:
        async with party(1) as hub, party(2, hub.address) as left, party(3, hub.address) as right:
            await wait_until(lambda: hub.connects == 2 and left.connects == right.connects == 1)
            hub.network.broadcast(Channel.CONSENSUS, b"x", except_peer=left.id)
            hub.network.broadcast(Channel.CONSENSUS, b"y")
            await wait_until(lambda: len(left.received) == 1 and len(right.received) == 2)
            assert left.received == [(Channel.CONSENSUS, b"y")]

    run(story)


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        ({"genesis_hash": sha256(b"another")}, "use the same genesis.json on both"),
        ({"chain_id": "another-net"}, "peer is on chain 'net-test', this node on 'another-net'"),
    ],
    ids=["genesis", "chain"],
)
def test_a_node_of_another_chain_is_refused_with_the_reason(stranger: dict[str, object], reason: str) -> None:
    async def story() -> None:
        async with party(1) as listener, party(2, listener.address, **stranger) as dialer:  # type: ignore[arg-type]
            await wait_until(lambda: bool(dialer.network.dial_errors()))
            assert reason in dialer.network.dial_errors()[listener.address]
            assert listener.events == dialer.events == []

    run(story)


def test_a_pinned_identity_must_answer() -> None:
    async def story() -> None:
        async with party(1) as listener:
            pinned = f"{format_address(id_of(3))}@{listener.address}"
            async with party(2, pinned) as dialer:
                await wait_until(lambda: bool(dialer.network.dial_errors()))
                error = dialer.network.dial_errors()[listener.address]
                assert format_address(id_of(3)) in error
                assert f"{format_address(id_of(1))} answered" in error
                assert listener.events == dialer.events == []

    run(story)


def test_the_right_pinned_identity_is_welcome() -> None:
    async def story() -> None:
        async with (
            party(1) as listener,
            party(2, f"{format_address(listener.id)}@{listener.address}") as dialer,
        ):
            await wait_until(lambda: dialer.network.peers() == [listener.id])

    run(story)


def test_a_node_does_not_connect_to_itself() -> None:
    async def story() -> None:
        async with party(1) as first:
            port = first.network.listen_port
        async with party(1, f"127.0.0.1:{port}", listen=f"127.0.0.1:{port}") as node:
            await wait_until(lambda: bool(node.network.dial_errors()))
            await wait_until(lambda: node.network._tasks[0].done())
            assert "it is this node" in node.network.dial_errors()[node.address]
            assert node.events == []

    run(story)


def test_a_killed_peer_is_dialled_until_it_is_back() -> None:
    async def story() -> None:
        async with party(1) as first_life:
            address = first_life.address
            dialling = party(2, address, listen=None)
            dialer = await dialling.__aenter__()
            await wait_until(lambda: dialer.connects == 1)
            for connection in first_life.network._connections:
                connection._transport.abort()  # type: ignore[union-attr]
            await wait_until(lambda: dialer.connects == 2 and len(dialer.losses) == 1)
        await wait_until(lambda: len(dialer.losses) == 2)
        assert "this node is stopping" in dialer.losses[1]
        await wait_until(lambda: "refused" in dialer.network.dial_errors().get(address, "").lower())
        async with party(1, listen=address) as second_life:
            await wait_until(lambda: dialer.connects == 3 and second_life.connects == 1)
            assert dialer.network.dial_errors() == {}
        await dialling.__aexit__(None, None, None)

    run(story)


def test_two_that_dial_each_other_end_with_one_connection() -> None:
    async def story() -> None:
        async with party(LOW) as low, party(HIGH) as high:
            ports = (low.address, high.address)
        for _ in range(10):
            async with party(LOW, ports[1], listen=ports[0]) as low, party(HIGH, ports[0], listen=ports[1]) as high:
                await wait_until(lambda: low.network.peers() == [high.id] and high.network.peers() == [low.id])
                await wait_until(lambda: len(low.network._connections) == len(high.network._connections) == 1)
                directions = (low.network.peer_infos()[0].is_outbound, high.network.peer_infos()[0].is_outbound)
                assert sorted(directions) == [False, True]
                for node in (low, high):
                    kinds = [type(event) for event in node.events]
                    assert kinds in ([PeerConnected], [PeerConnected, PeerLost, PeerConnected])

    run(story)


def test_a_restarted_peer_replaces_its_lost_connection() -> None:
    """The same node key dials again while the old connection looks alive, as after a power cut."""

    async def story() -> None:
        async with party(1) as target, raw_peer(2, target) as before:
            await wait_until(lambda: target.connects == 1)
            async with raw_peer(2, target) as after:
                await before.read_to_end()
                await wait_until(lambda: target.connects == 2)
                assert target.losses == ["a newer connection of the same peer is kept"]
                after.write_frame(b"\x01\x00\x00\x00\x01x")
                await wait_until(lambda: target.received == [(Channel.CONSENSUS, b"x")])
                assert target.network.peers() == [id_of(2)]

    run(story)


def test_a_dead_connection_that_blocks_a_new_one_is_found_out() -> None:
    """The lower node dialled; the higher one lost that and dials back: refused, but the old connection is probed."""

    async def story() -> None:
        limits = replace(QUICK, probe_timeout_s=0.1)
        async with raw_listener(HIGH) as address, party(LOW, address, limits=limits) as low:
            await wait_until(lambda: low.connects == 1)
            with pytest.raises(Refused, match="dialled from the other end is kept"):
                async with raw_peer(HIGH, low):
                    pass
            await wait_until(lambda: low.losses == ["the peer did not answer within 0.1 s"])
            async with raw_peer(HIGH, low):
                await wait_until(lambda: low.connects >= 2)

    run(story)


def test_what_the_api_shows_of_a_peer() -> None:
    async def story() -> None:
        async with party(1) as listener, party(2, listener.address) as dialer:
            await wait_until(lambda: dialer.connects == listener.connects == 1)
            await wait_until(lambda: all(p.network.peer_infos()[0].latency_ms is not None for p in (dialer, listener)))
            (seen,) = dialer.network.peer_infos()
            assert (seen.peer, seen.is_outbound, seen.host) == (listener.id, True, "127.0.0.1")
            assert seen.port == seen.listen_port == listener.network.listen_port
            assert seen.sent_bytes > 0
            assert seen.received_bytes > 0
            (back,) = listener.network.peer_infos()
            assert (back.peer, back.is_outbound, back.listen_port) == (dialer.id, False, dialer.network.listen_port)

    run(story)


def test_no_event_comes_after_stop() -> None:
    async def story() -> None:
        async with party(1) as listener, party(2, listener.address) as dialer:
            await wait_until(lambda: dialer.connects == listener.connects == 1)
            dialer.network.send(listener.id, Channel.CONSENSUS, b"x")
            await listener.network.stop()
            count = len(listener.events)
            await wait_until(lambda: len(dialer.losses) == 1)
            assert len(listener.events) == count
            assert listener.network.peers() == []
            assert listener.network._connections == set()

    run(story)


def test_a_port_in_use_is_a_fault_that_says_so() -> None:
    async def story() -> None:
        async with party(1) as first:
            with pytest.raises(Fault, match=f"cannot listen for peers on {first.address}"):
                async with party(2, listen=first.address):
                    pass

    run(story)


def test_the_control_channel_is_not_for_sending() -> None:
    assert CONTROL_CHANNEL not in set(Channel)
