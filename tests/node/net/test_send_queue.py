"""Urgent frames first, rates kept, queues bounded."""

from flockchain.node.net.framing import FIRST_CAPACITY
from flockchain.node.net.limits import MESSAGE_COST_BYTES, ChannelLimits, TokenBucket
from flockchain.node.net.send_queue import SendQueue
from flockchain.node.ports import Channel

WIDE = ChannelLimits(2**20, 2**21, 8, 2**40, 2**40)


def queue(**limits: ChannelLimits) -> SendQueue:
    return SendQueue({channel: limits.get(channel.name, WIDE) for channel in Channel}, 0.0)


def channels_sent(sender: SendQueue, now_s: float = 0.0) -> list[int]:
    sent = []
    while (frame := sender.pop_frame(now_s)) is not None:
        sent.append(frame[0])
    return sent


def test_a_vote_waits_for_no_more_than_the_frame_that_has_left() -> None:
    sender = queue()
    sender.push(Channel.BLOBS, bytes(5 * FIRST_CAPACITY))
    assert sender.pop_frame(0.0) is not None
    sender.push(Channel.CONSENSUS, b"vote")
    sender.push(Channel.MEMPOOL, b"tx")
    assert channels_sent(sender) == [Channel.CONSENSUS, Channel.MEMPOOL, *[Channel.BLOBS] * 4]


def test_a_full_queue_says_so_and_takes_again_when_there_is_room() -> None:
    sender = queue(MEMPOOL=ChannelLimits(100, 150, 8, 2**40, 2**40))
    assert sender.push(Channel.MEMPOOL, bytes(100))
    assert not sender.push(Channel.MEMPOOL, bytes(51))
    assert sender.push(Channel.MEMPOOL, bytes(50))
    assert channels_sent(sender) == [Channel.MEMPOOL] * 2
    assert sender.push(Channel.MEMPOOL, bytes(51))


def test_the_number_of_messages_is_bounded_too() -> None:
    sender = queue()
    assert [sender.push(Channel.CONSENSUS, b"x") for _ in range(9)] == [True] * 8 + [False]
    assert sender.queued_bytes == 8


def test_a_channel_over_its_rate_lets_the_others_pass() -> None:
    slow = ChannelLimits(1_000, 10_000, 8, 1_000, 500)
    sender = queue(CONSENSUS=slow)
    for _ in range(3):
        sender.push(Channel.CONSENSUS, bytes(1_000 - MESSAGE_COST_BYTES))
    sender.push(Channel.BLOBS, b"blob")
    assert channels_sent(sender) == [Channel.CONSENSUS, Channel.BLOBS]
    assert sender.wait_s(0.0) == 0.5
    assert channels_sent(sender, 0.5) == [Channel.CONSENSUS]
    assert channels_sent(sender, 1.5) == [Channel.CONSENSUS]
    assert sender.wait_s(1.5) is None


def test_an_honest_sender_never_meets_the_receivers_limit() -> None:
    """Same figures on both ends, the sender keeping to them: the receiver's bucket stays above zero."""
    sender_bucket, receiver_bucket = TokenBucket(1_000, 5_000, 0.0), TokenBucket(1_250, 6_250, 0.0)
    now_s = 0.0
    for number in range(500):
        now_s += sender_bucket.wait_s(now_s)
        size = 100 + 37 * (number % 50)
        sender_bucket.spend(size, now_s)
        receiver_bucket.spend(size, now_s)
        assert receiver_bucket.wait_s(now_s) == 0.0
    assert now_s > 100
