"""Peer messages: one canonical form, limits, and nothing but `Malformed` for garbage."""

from random import Random

import pytest

from flockchain.codec import encode
from flockchain.errors import Malformed
from flockchain.node.messages import (
    MAX_TXS,
    BlobHave,
    BlobWant,
    BlockRequest,
    BlockResponse,
    ChunkRequest,
    ChunkResponse,
    Decision,
    Message,
    ProposalMessage,
    Status,
    TxBatch,
    VoteMessage,
    decode_message,
)
from flockchain.node.ports import Channel
from flockchain.types.chain import Commit, ProposalBody, SignedProposal, SignedVote, VoteBody

HASH, ADDRESS, SIGNATURE = b"h" * 32, b"a" * 20, b"s" * 64
VOTE = SignedVote(VoteBody(1, 5, 0, HASH), ADDRESS, SIGNATURE)
PROPOSAL = SignedProposal(ProposalBody(5, 0, HASH, -1), ADDRESS, SIGNATURE)
COMMIT = Commit(5, 0, HASH, ())
MESSAGES: list[tuple[Channel, Message]] = [
    (Channel.CONSENSUS, ProposalMessage(PROPOSAL, b"block", (VOTE,))),
    (Channel.CONSENSUS, VoteMessage((VOTE,))),
    (Channel.CONSENSUS, Status(4, 0, True, (HASH,), 3)),
    (Channel.CONSENSUS, Decision(b"block", COMMIT)),
    (Channel.SYNC, BlockRequest(1, 9)),
    (Channel.SYNC, BlockResponse(1, ((b"block", COMMIT),))),
    (Channel.MEMPOOL, TxBatch((b"tx",))),
    (Channel.BLOBS, BlobWant((HASH,))),
    (Channel.BLOBS, BlobHave((HASH,))),
    (Channel.BLOBS, ChunkRequest(HASH, 0)),
    (Channel.BLOBS, ChunkResponse(HASH, 0, b"data", (HASH,))),
]


@pytest.mark.parametrize(("channel", "message"), MESSAGES)
def test_every_message_comes_back_on_its_own_channel_only(channel: Channel, message: Message) -> None:
    data = encode(message)
    assert decode_message(channel, data) == message
    for other in set(Channel) - {channel}:
        with pytest.raises(Malformed):
            decode_message(other, data)


@pytest.mark.parametrize(("channel", "message"), MESSAGES)
def test_every_cut_and_every_flip_is_malformed_or_another_message(channel: Channel, message: Message) -> None:
    data = encode(message)
    for i in range(len(data)):
        with pytest.raises(Malformed):
            decode_message(channel, data[:i])
        try:
            changed = decode_message(channel, data[:i] + bytes([data[i] ^ 0x55]) + data[i + 1 :])
        except Malformed:
            continue
        assert changed != message


def test_a_second_form_of_the_same_message_is_refused() -> None:
    wide = b"\x93\x05\xcd\x00\x01\x09"  # 1 as a 16-bit integer
    assert decode_message(Channel.SYNC, b"\x93\x05\x01\x09") == BlockRequest(1, 9)
    with pytest.raises(Malformed, match="canonical"):
        decode_message(Channel.SYNC, wide)


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(Malformed):
        decode_message(Channel.MEMPOOL, encode(TxBatch((b"t",) * (MAX_TXS + 1))))
    with pytest.raises(Malformed):
        decode_message(Channel.MEMPOOL, encode(TxBatch((b"t" * 65_537,))))


def test_random_bytes_are_malformed() -> None:
    seed = 5
    rng = Random(seed)
    for _ in range(5_000):
        with pytest.raises(Malformed):
            decode_message(rng.choice(list(Channel)), rng.randbytes(rng.randint(0, 60)))
