"""Messages survive any cut of the stream; what breaks a limit is refused before memory is spent on it."""

import random
import secrets

import pytest
from nacl import bindings as sodium

from flockchain.errors import Refused
from flockchain.node.net import sealing
from flockchain.node.net.framing import FIRST_CAPACITY, NEXT_CAPACITY, MessageReader, cut_frame
from flockchain.node.net.limits import DEFAULT_CHANNELS
from flockchain.node.net.sealing import LENGTH_BYTES, MAX_FRAME_BYTES, SEAL_BYTES, FrameOpener, FrameSealer
from flockchain.node.ports import Channel

KEY = bytes(range(32))
MAX_MESSAGE_BYTES = {channel: limit.max_message_bytes for channel, limit in DEFAULT_CHANNELS.items()}


def stream() -> tuple[FrameSealer, MessageReader]:
    """The two ends; the reader has the stream header already."""
    sealer = FrameSealer(KEY)
    reader = MessageReader(FrameOpener(KEY), MAX_MESSAGE_BYTES)
    reader.feed(sealer.stream_header)
    return sealer, reader


def frames_of(channel: int, message: bytes) -> list[bytes]:
    frames, offset = [], 0
    while offset < len(message):
        frame, offset = cut_frame(channel, message, offset)
        frames.append(frame)
    return frames


def seal_message(sealer: FrameSealer, channel: int, message: bytes) -> bytes:
    return b"".join(sealer.seal(frame) for frame in frames_of(channel, message))


@pytest.mark.parametrize(
    "size",
    [1, FIRST_CAPACITY - 1, FIRST_CAPACITY, FIRST_CAPACITY + 1, FIRST_CAPACITY + NEXT_CAPACITY, 3 * NEXT_CAPACITY + 7],
)
def test_a_message_of_any_size_arrives_whole(size: int) -> None:
    sealer, reader = stream()
    message = random.Random(size).randbytes(size)
    assert reader.feed(seal_message(sealer, Channel.SYNC, message)) == [(Channel.SYNC, message)]


def test_messages_of_two_channels_may_alternate() -> None:
    sealer, reader = stream()
    blob = bytes(3 * MAX_FRAME_BYTES)
    first, *rest = frames_of(Channel.BLOBS, blob)
    wire = sealer.seal(first) + seal_message(sealer, Channel.CONSENSUS, b"vote") + b"".join(map(sealer.seal, rest))
    assert reader.feed(wire) == [(Channel.CONSENSUS, b"vote"), (Channel.BLOBS, blob)]


def test_the_largest_message_of_each_channel_passes_and_one_byte_more_does_not() -> None:
    for channel, limit in MAX_MESSAGE_BYTES.items():
        sealer, reader = stream()
        reader.feed(sealer.seal(frames_of(channel, bytes(limit))[0]))
        sealer, reader = stream()
        too_large = sealer.seal(frames_of(channel, bytes(limit + 1))[0])
        with pytest.raises(Refused, match=f"announces {limit + 1} bytes, between 1 and {limit}"):
            reader.feed(too_large)


def test_a_huge_length_is_refused_before_its_bytes_come() -> None:
    _, reader = stream()
    with pytest.raises(Refused, match="announces 4294967295 sealed bytes") as refused:
        reader.feed(b"\xff\xff\xff\xff")
    assert refused.value.code == "bad-frame-length"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x09\x00\x00\x00\x01x", "unknown-channel"),
        (b"\x01\x00\x00\x00\x00", "message-too-large"),
        (b"\x01\x00\x00", "bad-frame-cut"),
        (b"\x01\x00\x00\x00\x09short", "bad-frame-cut"),
        (b"\x01\x00\x00\x00\x02long", "bad-frame-cut"),
    ],
    ids=["channel", "empty", "no total", "short", "long"],
)
def test_a_well_sealed_frame_that_breaks_a_rule_is_refused(frame: bytes, code: str) -> None:
    sealer, reader = stream()
    with pytest.raises(Refused) as refused:
        reader.feed(sealer.seal(frame))
    assert refused.value.code == code


def test_a_repeated_a_dropped_and_a_swapped_frame_do_not_open() -> None:
    for order in ([0, 0], [1], [1, 0]):
        sealer, reader = stream()
        frames = [seal_message(sealer, Channel.CONSENSUS, bytes((number,))) for number in range(1, 3)]
        wire = b"".join(frames[number] for number in order)
        with pytest.raises(Refused, match="does not open"):
            reader.feed(wire)


def test_nothing_may_follow_the_last_frame() -> None:
    sealer, reader = stream()
    wire = sealer.seal(frames_of(Channel.CONSENSUS, b"bye")[0], is_last=True)
    wire += seal_message(sealer, Channel.CONSENSUS, b"more")
    with pytest.raises(Refused, match="after the stream's last one"):
        reader.feed(wire)


def test_the_stream_moves_to_a_fresh_key_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "REKEY_BYTES", 250)
    sealer = FrameSealer(KEY)
    state = sodium.crypto_secretstream_xchacha20poly1305_state()
    sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, sealer.stream_header, KEY)
    frames = [sealer.seal(bytes(100))[LENGTH_BYTES:] for _ in range(7)]
    tags = [sodium.crypto_secretstream_xchacha20poly1305_pull(state, frame)[1] for frame in frames]
    assert [tag == sealing._TAG_REKEY for tag in tags] == [False, False, True, False, False, True, False]


def test_fuzzed_streams_never_crash() -> None:
    """5,000 streams cut at random and damaged once: the messages before the damage arrive, then `Refused`."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    refused = sum(_fuzz_once(rng) for _ in range(5_000))
    assert refused > 2_000


def _fuzz_once(rng: random.Random) -> bool:
    sealer, reader = stream()
    messages = [
        (rng.choice(list(Channel)), rng.randbytes(rng.choice((1, 40, 300, MAX_FRAME_BYTES))))
        for _ in range(rng.randrange(1, 5))
    ]
    wire = bytearray(b"".join(seal_message(sealer, *message) for message in messages))
    at = rng.randrange(len(wire))
    is_damaged = rng.random() < 0.7
    if is_damaged:
        wire[at] ^= 1 << rng.randrange(8)
    arrived: list[tuple[int, bytes]] = []
    try:
        while wire:
            cut = rng.randrange(1, len(wire) + 1)
            arrived += reader.feed(bytes(wire[:cut]))
            del wire[:cut]
    except Refused:
        assert is_damaged
        assert arrived == messages[: len(arrived)]
        return True
    assert arrived == messages[: len(arrived)]
    assert is_damaged or arrived == messages
    return False


def test_fuzzed_plaintext_of_a_real_peer_never_crashes() -> None:
    """5,000 frames of random bytes, well sealed: a peer with a key may send anything."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sealer, reader = stream()
    refused = 0
    for _ in range(5_000):
        frame = bytes((rng.randrange(6),)) + rng.randrange(200).to_bytes(4, "big") + rng.randbytes(rng.randrange(200))
        try:
            reader.feed(sealer.seal(frame))
        except Refused:
            refused += 1
            sealer, reader = stream()
    assert 0 < refused < 5_000, f"seed {seed}: random frames are both taken and refused"


def test_memory_follows_bytes_received_not_bytes_announced() -> None:
    sealer, reader = stream()
    reader.feed(sealer.seal(frames_of(Channel.SYNC, bytes(8 * 2**20))[0]))
    assert [len(partial.received) for partial in reader._partial.values()] == [FIRST_CAPACITY]


def test_a_frame_is_as_long_as_the_format_says() -> None:
    sealer, _ = stream()
    assert len(sealer.seal(b"x" * 100)) == LENGTH_BYTES + 100 + SEAL_BYTES
