"""What is fed with untrue bytes, and what must hold: nothing but `Refused` comes out, and the node goes on."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from nacl.signing import SigningKey

from flockchain.codec import encode
from flockchain.crypto import address_of, sha256
from flockchain.errors import Refused
from flockchain.node.messages import decode_message
from flockchain.node.net.contacts import make_contact
from flockchain.node.net.exchange import ContactRequest, Contacts, Exchange
from flockchain.node.net.framing import EXCHANGE_CHANNEL, MessageReader, cut_frame
from flockchain.node.net.handshake import MAX_HANDSHAKE_FRAME_BYTES, Handshake, LocalNode, Role, Stage
from flockchain.node.net.limits import DEFAULT_CHANNELS
from flockchain.node.net.sealing import MAX_FRAME_BYTES, FrameOpener, FrameSealer
from flockchain.node.ports import Channel, PeerConnected, PeerLost, Received

from .corpus import build_cluster
from .mutate import garbage, mutate

STRANGERS = 8
STRANGER_LIFE = 500
"""Messages of one stranger before another takes its place."""
TURN = 200
"""Messages between two turns of the virtual world."""
TURN_MS = 40
MAX_MESSAGE_BYTES = {channel: limits.max_message_bytes for channel, limits in DEFAULT_CHANNELS.items()}


class Fuzzer:
    """`run_one` feeds one target once; all randomness is the seed's."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = Random(seed)
        self.cluster, self.corpus = build_cluster(folder)
        self.all_messages = [message for messages in self.corpus.values() for message in messages]
        self.counts = dict.fromkeys(("handshakes", "frames", "messages", "node"), 0)
        self.refused = 0
        self._keys = [SigningKey(sha256(b"fuzz", bytes((i,)))) for i in range(2)]
        self._exchange_corpus = self._make_exchange_corpus()
        self._stream_key = sha256(b"a session key")
        self._open_stream()
        self._fed = 0
        self._strangers = [self._meet(i) for i in range(STRANGERS)]

    def run_one(self) -> None:
        """Raises what no stranger may cause."""
        turn = self.rng.random()
        name = "handshakes" if turn < 0.05 else "frames" if turn < 0.4 else "messages" if turn < 0.75 else "node"
        self.counts[name] += 1
        try:
            getattr(self, f"_feed_{name}")()
        except Refused:
            self.refused += 1

    def check(self) -> None:
        """The node that was fed goes on with the others, and agrees with them."""
        height = self.cluster.min_height()
        self.cluster.machines[1].running.submit(self.cluster.transfer("bob", "alice", 1))
        self.cluster.run_to(height + 2)
        self.cluster.check_agreement()

    def _untrue(self, true: bytes) -> bytes:
        return garbage(self.rng) if self.rng.random() < 0.1 else mutate(self.rng, true, self.all_messages)

    # -- handshake ----------------------------------------------------------------------------------------------------

    def _feed_handshakes(self) -> None:
        """A true handshake in which, at a random flight, one side's bytes are untrue: sealed or on the wire."""
        dialer, listener = (
            Handshake(role, LocalNode(key, sha256(b"genesis"), "fuzz", 1))
            for role, key in zip((Role.DIALER, Role.LISTENER), self._keys, strict=True)
        )
        turns: Iterator[tuple[Handshake, Handshake]] = iter([(dialer, listener), (listener, dialer)] * 2)
        bad_flight, data = self.rng.randrange(4), dialer.start()
        for flight, (sender, receiver) in enumerate(turns):
            if flight == bad_flight:
                data = self._make_untrue_flight(sender, data)
            answer = b""
            for piece in self._pieces(data):
                if receiver.stage in (Stage.DONE, Stage.FAILED):
                    return
                answer += receiver.feed(piece)
                if receiver.stage is Stage.DECIDE:
                    answer += receiver.accept()
            data = answer

    def _make_untrue_flight(self, sender: Handshake, data: bytes) -> bytes:
        if sender._sealer is not None and self.rng.random() < 0.6:  # sealed with the session key: reaches the decoders
            payload = bytes((self.rng.randrange(5),)) + self._untrue(data)[:MAX_HANDSHAKE_FRAME_BYTES]
            start = b"" if sender._has_sent_header else sender.sealer.stream_header
            return start + sender.sealer.seal(payload[:MAX_FRAME_BYTES])
        return self._untrue(data)

    def _pieces(self, data: bytes) -> list[bytes]:
        if len(data) < 2 or self.rng.random() < 0.5:
            return [data]
        cut = self.rng.randrange(1, len(data))
        return [data[:cut], data[cut:]]

    # -- frames -------------------------------------------------------------------------------------------------------

    def _open_stream(self) -> None:
        self._sealer = FrameSealer(self._stream_key)
        self._reader = MessageReader(FrameOpener(self._stream_key), MAX_MESSAGE_BYTES)
        self._reader.feed(self._sealer.stream_header)

    def _feed_frames(self) -> None:
        """A frame of a session: its plaintext untrue, or its sealed bytes. A breach ends the session, as it should."""
        channel = self.rng.choice((0, *Channel, EXCHANGE_CHANNEL))
        plain = cut_frame(channel, self.rng.choice(self.all_messages), 0)[0]
        if self.rng.random() < 0.7:
            plain = self._untrue(plain)[:MAX_FRAME_BYTES] or b"\x00"
        sealed = self._sealer.seal(plain)
        if self.rng.random() < 0.2:
            sealed = self._untrue(sealed)
        try:
            for piece in self._pieces(sealed):
                self._reader.feed(piece)
        except Refused:
            self._open_stream()
            raise
        if sum(len(partial.received) for partial in self._reader._partial.values()) > 2**20:
            self._open_stream()

    # -- decoders -----------------------------------------------------------------------------------------------------

    def _make_exchange_corpus(self) -> list[bytes]:
        contacts = tuple(make_contact(bytes((i,)) * 20, f"9.9.9.{i + 1}", 1) for i in range(5))
        request = ContactRequest((make_contact(bytes(20), "2001:db8::1", 5),))
        return [encode(Contacts(contacts)), encode(request)]

    def _feed_messages(self) -> None:
        if self.rng.random() < 0.1:
            exchange = Exchange(bytes(20), is_outbound=self.rng.random() < 0.5, ask_interval_s=1.0)
            exchange.ask(0.0, ())
            exchange.read(self._untrue(self.rng.choice(self._exchange_corpus)), 0.0)
            return
        channel = self.rng.choice(tuple(Channel))
        decode_message(channel, self._untrue(self.rng.choice(self.corpus[channel])))

    # -- a live node --------------------------------------------------------------------------------------------------

    def _meet(self, number: int) -> bytes:
        peer = address_of(sha256(b"stranger", number.to_bytes(8, "big")))
        self.cluster.machines[0].running.handle(PeerConnected(peer))
        return peer

    def _feed_node(self) -> None:
        """Strangers speak to the first node; now and then time passes, and another stranger comes."""
        node = self.cluster.machines[0].running
        self._fed += 1
        if self._fed % STRANGER_LIFE == 0:
            at = self.rng.randrange(STRANGERS)
            node.handle(PeerLost(self._strangers[at], "fuzz"))
            self._strangers[at] = self._meet(STRANGERS + self._fed)
        if self._fed % TURN == 0:
            self.cluster.world.run_for(TURN_MS)
            self.cluster.machines[0].network.penalties.clear()
        channel = self.rng.choice(tuple(Channel))
        data = self._untrue(self.rng.choice(self.corpus[channel]))
        node.handle(Received(self.rng.choice(self._strangers), channel, data))
