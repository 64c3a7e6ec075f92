"""What a peer may cost us, on real sockets: bad bytes, too many bytes, too few, too late."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import pytest

from flockchain.crypto import format_address
from flockchain.errors import Refused
from flockchain.node.net.handshake import Handshake, Role
from flockchain.node.net.limits import DEFAULT_CHANNELS, ChannelLimits
from flockchain.node.ports import Channel, Received

from .loopback import QUICK, Party, id_of, local_node, party, raw_peer, raw_socket, run, wait_until


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
            with pytest.raises(Refused, match=r"peer refused: banned for another \d+ s: a frame names channel 99"):
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


def test_a_handshake_that_trickles_in_is_not_waited_for() -> None:
    """Slow loris before any identity is known: a true hello, one byte at a time, holds its place no longer."""

    async def story() -> None:
        limits = replace(QUICK, max_inbound_handshakes=1, handshake_timeout_s=0.3)
        async with party(1, limits=limits) as target, raw_socket(target) as (reader, writer):
            begun_s = asyncio.get_running_loop().time()
            ended = asyncio.ensure_future(reader.read())
            for byte in Handshake(Role.DIALER, local_node(2)).start():
                if not ended.done():
                    writer.write(bytes((byte,)))
                    await asyncio.wait((ended,), timeout=0.02)
            with suppress(ConnectionResetError):  # the last byte may meet a closed socket
                assert await ended == b""
            assert asyncio.get_running_loop().time() - begun_s < 5
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
