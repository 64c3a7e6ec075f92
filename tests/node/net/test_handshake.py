"""Node keys are proven to each other, or the reason says why not."""

import random
import secrets

import pytest

from flockchain.crypto import address_of, sha256
from flockchain.errors import Refused
from flockchain.node.net import handshake as module
from flockchain.node.net.handshake import HELLO_BYTES, MAGIC, Handshake, RefusedByPeer, Role, Stage

from .loopback import GENESIS, id_of, local_node, node_key, shake_hands

LOW_ORDER_POINTS = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]
"""RFC 7748 section 6.1 asks to refuse the all-zero secret that these lead to."""


def pair() -> tuple[Handshake, Handshake]:
    return Handshake(Role.DIALER, local_node(1)), Handshake(Role.LISTENER, local_node(2))


def test_both_sides_learn_the_proven_identity_and_share_streams() -> None:
    dialer, listener = pair()
    shake_hands(dialer, listener)
    assert (dialer.stage, listener.stage) == (Stage.DONE, Stage.DONE)
    assert (dialer.peer, listener.peer) == (id_of(2), id_of(1))
    listener.opener.feed(dialer.sealer.seal(b"to the listener"))
    dialer.opener.feed(listener.sealer.seal(b"to the dialer"))
    assert (listener.opener.pop(), dialer.opener.pop()) == (b"to the listener", b"to the dialer")


def test_one_byte_at_a_time_is_enough() -> None:
    dialer, listener = pair()
    wire = [(listener, dialer.start())]
    while wire:
        side, data = wire.pop(0)
        other = dialer if side is listener else listener
        for byte in data:
            answer = side.feed(bytes((byte,)))
            if side.stage is Stage.DECIDE:
                answer += side.accept()
            if answer:
                wire.append((other, answer))
    assert (dialer.stage, listener.stage) == (Stage.DONE, Stage.DONE)


def test_the_identity_is_not_visible_on_the_wire() -> None:
    dialer, listener = pair()
    hello = dialer.start()
    flight = listener.feed(hello)
    assert bytes(node_key(2).verify_key) not in flight
    assert GENESIS not in hello + flight


@pytest.mark.parametrize(
    ("theirs", "code", "sentence"),
    [
        (local_node(2, genesis_hash=sha256(b"another")), "wrong-genesis", "use the same genesis.json"),
        (
            local_node(2, chain_id="another-net"),
            "wrong-chain",
            "peer is on chain 'another-net', this node on 'net-test'",
        ),
        (local_node(1), "self", "this node's own key"),
    ],
    ids=["genesis", "chain", "self"],
)
def test_a_stranger_is_refused_and_told_why(theirs: module.LocalNode, code: str, sentence: str) -> None:
    dialer, listener = Handshake(Role.DIALER, local_node(1)), Handshake(Role.LISTENER, theirs)
    flight = listener.feed(dialer.start())
    with pytest.raises(Refused, match=sentence) as refused:
        dialer.feed(flight)
    assert refused.value.code == code
    with pytest.raises(RefusedByPeer, match="peer refused: ") as told:
        listener.feed(dialer.refuse(refused.value))
    assert told.value.code == code


def test_another_version_of_the_peer_protocol_is_told_to_both_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "PEER_VERSION", 9)
        dialer = Handshake(Role.DIALER, local_node(1))
        hello = dialer.start()
    listener = Handshake(Role.LISTENER, local_node(2))
    with pytest.raises(Refused, match="peer speaks version 9 of the peer protocol, this node 1") as refused:
        listener.feed(hello)
    monkeypatch.setattr(module, "PEER_VERSION", 9)
    with pytest.raises(Refused, match="peer speaks version 1 of the peer protocol, this node 9"):
        dialer.feed(listener.refuse(refused.value))


def test_the_listener_may_refuse_a_proven_dialer() -> None:
    dialer, listener = pair()
    flight = listener.feed(dialer.start())
    dialer.feed(flight)
    listener.feed(dialer.accept())
    assert listener.stage is Stage.DECIDE
    with pytest.raises(RefusedByPeer, match="banned for 9 s"):
        dialer.feed(listener.refuse(Refused("banned", "banned for 9 s")))


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:8])
def test_a_low_order_point_is_refused(point: bytes) -> None:
    listener = Handshake(Role.LISTENER, local_node(2))
    with pytest.raises(Refused, match="low order"):
        listener.feed(MAGIC + b"\x00\x01" + point)


def test_our_own_hello_reflected_is_refused() -> None:
    dialer = Handshake(Role.DIALER, local_node(1))
    with pytest.raises(Refused, match="our own ephemeral key"):
        dialer.feed(dialer.start())


def test_a_web_browser_gets_no_answer() -> None:
    listener = Handshake(Role.LISTENER, local_node(2))
    with pytest.raises(Refused, match="does not speak") as refused:
        listener.feed(b"GET / HTTP/1.1\r\n")
    assert listener.refuse(refused.value) == b""


def test_swapped_ephemeral_keys_do_not_open() -> None:
    """A man in the middle who only replaces one hello: the session keys differ."""
    dialer, listener = pair()
    dialer.start()
    flight = listener.feed(Handshake(Role.DIALER, local_node(3)).start())
    with pytest.raises(Refused, match="does not open"):
        dialer.feed(flight)


def test_a_man_in_the_middle_cannot_pass_a_proof_on() -> None:
    """He has ephemeral keys of his own with both sides, and seals to one the proof that the other gave him."""
    dialer, listener = pair()
    towards_listener = Handshake(Role.DIALER, local_node(3))
    stolen = _open_proof(towards_listener, listener.feed(towards_listener.start()))
    towards_dialer = _Forger(Role.LISTENER, stolen)
    with pytest.raises(Refused, match="does not hold for this connection"):
        dialer.feed(towards_dialer.feed(dialer.start()))


class _Forger(Handshake):
    """Gives `proof` for its own."""

    def __init__(self, role: Role, proof: bytes) -> None:
        super().__init__(role, local_node(3))
        self._proof = proof

    def _make_proof(self) -> bytes:
        return self._proof[1:]


def _open_proof(handshake: Handshake, flight: bytes) -> bytes:
    """What the listener sealed in its first flight, kind byte included."""
    handshake._feed_hello(flight[:HELLO_BYTES])
    handshake.opener.feed(flight[HELLO_BYTES:])
    frame = handshake.opener.pop()
    assert frame is not None
    return frame


def test_a_replayed_dialer_is_refused() -> None:
    """All that an honest dialer once sent, sent again to the same node."""
    dialer, listener = pair()
    hello = dialer.start()
    flight = listener.feed(hello)
    dialer.feed(flight)
    proof = dialer.accept()
    listener.feed(proof)
    assert listener.stage is Stage.DECIDE
    again = Handshake(Role.LISTENER, local_node(2))
    again.feed(hello)
    with pytest.raises(Refused, match="does not open"):
        again.feed(proof)


def test_the_listeners_own_proof_sent_back_is_refused() -> None:
    dialer, listener = pair()
    own_proof = _open_proof(dialer, listener.feed(dialer.start()))
    with pytest.raises(Refused, match="own key"):
        listener.feed(dialer._seal(own_proof))


def test_a_proof_cannot_be_used_in_the_other_role() -> None:
    """The signer's role is in what it signs: checked with the same hellos and claims."""
    dialer, listener = pair()
    shake_hands(dialer, listener)
    claims = local_node(1).claims
    assert dialer._transcript(Role.DIALER, claims) == listener._transcript(Role.DIALER, claims)
    assert dialer._transcript(Role.DIALER, claims) != dialer._transcript(Role.LISTENER, claims)


def test_fuzzed_handshakes_never_crash() -> None:
    """5,000 handshakes with bits flipped, bytes cut, inserted or made up: each ends in DONE or `Refused`."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    ends = {"done": 0, "refused": 0, "waits": 0}
    for _ in range(5_000):
        ends[_fuzz_once(rng)] += 1
    print(ends)
    assert ends["refused"] > 1_000
    assert ends["done"] > 100


def _fuzz_once(rng: random.Random) -> str:
    dialer, listener = pair()
    target_flight = rng.randrange(4)
    wire, side, flight = dialer.start(), listener, 0
    try:
        while wire:
            if flight == target_flight:
                wire = _damage(rng, wire)
            wire = side.feed(wire)
            if side.stage is Stage.DECIDE:
                wire += side.accept()
            side = dialer if side is listener else listener
            flight += 1
    except Refused as refusal:
        side.refuse(refusal)
        return "refused"
    return "done" if dialer.stage is listener.stage is Stage.DONE else "waits"


def _damage(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    at = rng.randrange(len(data))
    match rng.randrange(5):
        case 0:
            changed[at] ^= 1 << rng.randrange(8)
        case 1:
            del changed[at:]
        case 2:
            changed[at:at] = rng.randbytes(rng.randrange(1, 64))
        case 3:
            changed = bytearray(rng.randbytes(len(data)))
        case _:
            pass
    return bytes(changed)


def test_the_id_is_the_address_of_the_node_key() -> None:
    assert id_of(1) == address_of(bytes(node_key(1).verify_key))
