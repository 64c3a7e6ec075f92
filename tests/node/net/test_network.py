"""Networks on real sockets of this machine: who gets in, who stays, what arrives first."""

import asyncio
import random
from dataclasses import replace

import pytest

from flockchain.crypto import format_address, sha256
from flockchain.errors import Fault, Refused
from flockchain.node.net.framing import CONTROL_CHANNEL
from flockchain.node.net.limits import DEFAULT_CHANNELS, ChannelLimits
from flockchain.node.ports import Channel, PeerConnected, PeerLost, Received

from .loopback import HIGH, LOW, QUICK, Party, id_of, party, raw_listener, raw_peer, raw_socket, run, wait_until


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


def test_the_largest_message_of_every_channel_arrives() -> None:
    async def story() -> None:
        async with party(1) as listener, party(2, listener.address) as dialer:
            await wait_until(lambda: dialer.connects == 1)
            messages = {channel: bytes(DEFAULT_CHANNELS[channel].max_message_bytes) for channel in Channel}
            for channel, message in messages.items():
                assert dialer.network.send(listener.id, channel, message)
            await wait_until(lambda: len(listener.received) == len(messages))
            assert dict(listener.received) == messages

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


def test_a_large_blob_does_not_delay_votes() -> None:
    """6 MiB of blobs are queued first; the vote that follows arrives when few of them have."""

    async def story() -> None:
        async with party(1) as listener, party(2, listener.address) as dialer:
            await wait_until(lambda: dialer.connects == 1)
            while dialer.network.send(listener.id, Channel.BLOBS, bytes(384 * 1024)):
                pass
            await wait_until(lambda: len(listener.received) >= 1)
            dialer.network.send(listener.id, Channel.CONSENSUS, b"vote")
            await wait_until(lambda: len(listener.received) == 17)
            before = [channel for channel, _ in listener.received].index(Channel.CONSENSUS)
            assert before <= 9, f"{before} of 16 blobs came before the vote"

    run(story)


def test_a_full_queue_refuses_and_forgets_nothing_that_it_took() -> None:
    async def story() -> None:
        narrow = replace(
            QUICK, channels={**DEFAULT_CHANNELS, Channel.MEMPOOL: ChannelLimits(1_000, 5_000, 100, 10**9, 10**9)}
        )
        async with party(1, limits=narrow) as listener, party(2, listener.address, limits=narrow) as dialer:
            await wait_until(lambda: dialer.connects == 1)
            taken = [dialer.network.send(listener.id, Channel.MEMPOOL, bytes(1_000)) for _ in range(8)]
            assert taken == [True] * 5 + [False] * 3
            await wait_until(lambda: len(listener.received) == 5)

    run(story)


def test_a_peer_that_sends_too_fast_is_slowed_not_dropped() -> None:
    """The sender keeps to nothing; the receiver reads at its own rate: 100 KB at 200 KB/s after a burst of 10 KB."""

    async def story() -> None:
        slow = ChannelLimits(1_000, 10**6, 1_000, 160_000, 8_000)
        limits = replace(QUICK, channels={**DEFAULT_CHANNELS, Channel.MEMPOOL: slow})
        async with party(1, limits=limits) as listener, party(2, listener.address) as dialer:
            await wait_until(lambda: dialer.connects == 1)
            begun_s = asyncio.get_running_loop().time()
            for _ in range(100):
                assert dialer.network.send(listener.id, Channel.MEMPOOL, bytes(744))
            await wait_until(lambda: len(listener.received) == 100)
            dialer.network.send(listener.id, Channel.MEMPOOL, b"last")
            await wait_until(lambda: len(listener.received) == 101)
            assert asyncio.get_running_loop().time() - begun_s > 0.3
            assert listener.losses == []

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


@pytest.mark.parametrize(
    ("frame", "points"),
    [
        (b"\x01\xff\xff\xff\xff", 50),
        (b"\x63\x00\x00\x00\x01x", 50),
        (b"\x00\x00\x00\x00\x01\x77", 50),
        (None, 10),
    ],
    ids=["oversized", "unknown channel", "unknown control", "garbage"],
)
def test_a_bad_frame_costs_the_connection_and_points(frame: bytes | None, points: int) -> None:
    async def story() -> None:
        async with party(1) as target, raw_peer(2, target) as peer:
            await wait_until(lambda: target.connects == 1)
            if frame is None:
                peer.writer.write(b"\x00\x00\x00\x40" + bytes(64))
            else:
                peer.write_frame(frame)
            await peer.read_to_end()
            await wait_until(lambda: len(target.losses) == 1)
            assert abs(_points(target, 2) - points) <= 1

    run(story)


def _points(target: Party, number: int) -> int:
    return target.network._penalties.points(id_of(number), asyncio.get_running_loop().time())


def test_the_second_breach_of_the_protocol_bans() -> None:
    async def story() -> None:
        async with party(1) as target:
            for breaches in (1, 2):
                async with raw_peer(2, target) as peer:
                    peer.write_frame(b"\x63")
                    await peer.read_to_end()
                await wait_until(lambda breaches=breaches: len(target.losses) == breaches)  # type: ignore[misc]
                target.network.penalize(id_of(2), 1, "so that forgiven points do not matter")
            with pytest.raises(Refused, match="peer refused: banned for another 600 s: a frame names channel 99"):
                async with raw_peer(2, target):
                    pass
            async with raw_peer(3, target):
                await wait_until(lambda: target.network.peers() == [id_of(3)])

    run(story)


def test_a_hundred_points_disconnect_and_ban_until_the_time_is_over() -> None:
    async def story() -> None:
        limits = replace(QUICK, ban_s=0.2)
        async with party(1, limits=limits) as target, party(2, target.address) as peer:
            await wait_until(lambda: target.connects == peer.connects == 1)
            target.network.penalize(peer.id, 99, "not yet")
            assert target.network.peers() == [peer.id]
            assert target.network.peer_infos()[0].points in (98, 99)
            target.network.penalize(peer.id, 2, "sent a block nobody could decide")
            await wait_until(lambda: peer.losses != [])
            assert "sent a block nobody could decide" in peer.losses[0]
            await wait_until(lambda: target.connects == 2)

    run(story)


def test_garbage_before_the_handshake_bans_the_address() -> None:
    async def story() -> None:
        limits = replace(QUICK, is_loopback_exempt=False)
        async with party(1, limits=limits) as target:
            for _ in range(6):
                async with raw_socket(target) as (reader, writer):
                    writer.write(b"GET / HTTP/1.1\r\n\r\n")
                    assert await reader.read() == b""
            with pytest.raises((Refused, ConnectionError)):
                async with raw_peer(2, target):
                    pass
            assert target.events == []

    run(story)


def test_one_address_opens_only_so_many_connections() -> None:
    async def story() -> None:
        limits = replace(QUICK, is_loopback_exempt=False, max_connections_per_ip=2)
        async with party(1, limits=limits) as target, raw_peer(2, target), raw_peer(3, target):
            with pytest.raises((Refused, ConnectionError)):
                async with raw_peer(4, target):
                    pass
            assert target.network.peers() == sorted([id_of(2), id_of(3)])

    run(story)


def test_inbound_peers_are_limited_but_named_ones_get_in() -> None:
    async def story() -> None:
        limits = replace(QUICK, max_inbound_peers=1)
        named = f"{format_address(id_of(4))}@127.0.0.1:1"
        async with party(1, named, limits=limits) as target, raw_peer(2, target):
            with pytest.raises(Refused, match="1 inbound peers are connected, no more are let in"):
                async with raw_peer(3, target):
                    pass
            async with raw_peer(4, target):
                await wait_until(lambda: target.network.peers() == sorted([id_of(2), id_of(4)]))

    run(story)


def test_unfinished_handshakes_are_limited_and_end() -> None:
    async def story() -> None:
        limits = replace(QUICK, max_inbound_handshakes=1, handshake_timeout_s=0.3)
        async with party(1, limits=limits) as target, raw_socket(target) as (silent, _):
            await wait_until(lambda: len(target.network._connections) == 1)
            async with raw_socket(target) as (second, _):
                assert await second.read() == b""
            assert await silent.read() == b""
            async with raw_peer(2, target):
                await wait_until(lambda: target.connects == 1)

    run(story)


def test_a_frame_that_trickles_in_is_not_waited_for() -> None:
    """Slow loris: one byte at a time, so the connection is never idle."""

    async def story() -> None:
        limits = replace(QUICK, frame_timeout_s=0.2)
        async with party(1, limits=limits) as target, raw_peer(2, target) as peer:
            frame = peer.handshake.sealer.seal(b"\x01\x00\x00\x03\xe8" + bytes(1_000))
            for byte in frame:
                if target.losses:
                    break
                peer.writer.write(bytes((byte,)))
                await asyncio.sleep(0.01)
            await wait_until(lambda: target.losses == ["a frame was not whole after 0.2 s"])

    run(story)


def test_a_silent_peer_is_dropped_and_an_idle_but_living_one_is_kept() -> None:
    async def story() -> None:
        limits = replace(QUICK, ping_interval_s=0.05, idle_timeout_s=0.4)
        async with party(1, limits=limits) as target, party(2, target.address) as living, raw_peer(3, target):
            await wait_until(lambda: target.connects == 2)
            await wait_until(lambda: target.losses == ["the peer was silent for 0.4 s"])
            assert target.network.peers() == [living.id]
            assert target.network.peer_infos()[0].latency_ms is not None

    run(story)


def test_a_peer_that_reads_nothing_is_dropped() -> None:
    async def story() -> None:
        limits = replace(QUICK, write_timeout_s=0.3)
        async with party(1, limits=limits) as target, raw_peer(2, target) as peer:
            await wait_until(lambda: target.connects == 1)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            while not target.losses:
                while target.network.send(id_of(2), Channel.SYNC, bytes(2**20)):
                    pass
                ping = b"\x00\x00\x00\x00\x09\x01" + bytes(8)
                peer.write_frame(ping)
                await asyncio.sleep(0.02)
            assert target.losses == ["the peer took none of our bytes for 0.3 s"]

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


def test_hundreds_of_garbage_connections_leave_the_node_well() -> None:
    async def story() -> None:
        rng = random.Random(7)
        async with party(1) as target, party(2, target.address) as friend:
            await wait_until(lambda: friend.connects == 1)
            for _ in range(300):
                async with raw_socket(target) as (_, writer):
                    hello = b"flk-peer\x00\x01" if rng.random() < 0.7 else b""
                    writer.write(hello + rng.randbytes(rng.randrange(200)))
            friend.network.send(target.id, Channel.CONSENSUS, b"still here")
            await wait_until(lambda: Received(friend.id, Channel.CONSENSUS, b"still here") in target.events)
            assert target.losses == []

    run(story)


def test_the_control_channel_is_not_for_sending() -> None:
    assert CONTROL_CHANNEL not in set(Channel)
