"""Proof of node keys and agreement on session keys: station-to-station over X25519, as a sans-I/O state machine.

    dialer                                                   listener
      1. hello      magic | peer version | ephemeral key ->
      2.            <- hello | sealed(proof of the listener's node key)
      3. sealed(proof of the dialer's node key) ->
      4.            <- sealed(welcome, or a refusal with its reason)

Session keys come from crypto_kx: BLAKE2b over the X25519 secret and both ephemeral keys, one key per direction;
libsodium refuses low-order points. A proof signs, under signing_context(PEER_PURPOSE, genesis hash), the hash of
the role, both hellos, what the signer claims and, for the dialer, the listener's whole proof. So a swapped
ephemeral key, a replayed or reflected message, a changed version or a proof made for another chain is not valid.
Either side may send a refusal in place of its proof or welcome. Both learn the reason.

Sources: Diffie, van Oorschot, Wiener, "Authentication and Authenticated Key Exchanges" (1992), which Tendermint's
secret connection follows; the MACed signature over both ephemeral keys and roles is SIGMA's (Krawczyk 2003).
"""

from dataclasses import dataclass
from enum import Enum, auto

from nacl.bindings import (
    crypto_kx_client_session_keys,
    crypto_kx_keypair,
    crypto_kx_PUBLIC_KEY_BYTES,
    crypto_kx_server_session_keys,
)
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from flockchain import PEER_VERSION, __version__
from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import address_of, is_signature_valid, sign, signing_context, tagged_hash
from flockchain.errors import Malformed, Refused
from flockchain.node.net.sealing import MAX_FRAME_BYTES, FrameOpener, FrameSealer
from flockchain.node.ports import PeerId
from flockchain.types.chain import PEER_PURPOSE
from flockchain.types.ids import Hash, PublicKey, Signature, Text, UInt

MAGIC = b"flk-peer"
VERSION_BYTES = 2
HELLO_BYTES = len(MAGIC) + VERSION_BYTES + crypto_kx_PUBLIC_KEY_BYTES
MAX_HANDSHAKE_FRAME_BYTES = 1_024
TRANSCRIPT_TAG = "flockchain/peer-transcript"

_PROOF, _WELCOME, _REFUSAL = b"\x01", b"\x02", b"\x03"


class RefusedByPeer(Refused):
    """The other side refused; code and sentence are its own, shortened to printable letters."""


class Claims(Canonical, frozen=True):
    """What a node says of itself; signed with its node key."""

    chain_id: Text
    genesis_hash: Hash
    public_key: PublicKey
    listen_port: UInt
    """0 when the node does not listen."""
    software: Text


class Proof(Canonical, frozen=True):
    claims: Claims
    signature: Signature


class Refusal(Canonical, frozen=True):
    code: Text
    message: Text


@dataclass(frozen=True, slots=True)
class LocalNode:
    """Who we are in a handshake."""

    key: SigningKey
    genesis_hash: bytes
    chain_id: str
    listen_port: int = 0

    @property
    def claims(self) -> Claims:
        return Claims(self.chain_id, self.genesis_hash, bytes(self.key.verify_key), self.listen_port, __version__)


class Role(Enum):
    DIALER = b"dialer"
    LISTENER = b"listener"


class Stage(Enum):
    HELLO = auto()
    PROOF = auto()
    DECIDE = auto()
    """The peer is proven; `accept` or `refuse` it."""
    WELCOME = auto()
    DONE = auto()
    FAILED = auto()


class Handshake:
    """`start`, then `feed` what arrives and send what it returns; at stage DECIDE call `accept` or `refuse`.

    `feed` raises `Refused` when the peer is at fault, `RefusedByPeer` when it refused us; `refuse` then gives the
    bytes that tell the peer why. At stage DONE `sealer` and `opener` carry on with the streams.
    """

    def __init__(self, role: Role, node: LocalNode) -> None:
        self.role = role
        self.stage = Stage.HELLO
        self.claims: Claims | None = None
        """Of the peer, once proven."""
        self._node = node
        self._public_key, self._secret_key = crypto_kx_keypair()
        self._hello = MAGIC + PEER_VERSION.to_bytes(VERSION_BYTES, "big") + self._public_key
        self._peer_hello = bytearray()
        self._listener_proof = b""
        self._has_sent_hello = False
        self._has_sent_header = False
        self._sealer: FrameSealer | None = None
        self._opener: FrameOpener | None = None

    @property
    def peer(self) -> PeerId:
        assert self.claims is not None
        return address_of(self.claims.public_key)

    @property
    def sealer(self) -> FrameSealer:
        assert self._sealer is not None
        return self._sealer

    @property
    def opener(self) -> FrameOpener:
        assert self._opener is not None
        return self._opener

    def start(self) -> bytes:
        """The dialer speaks first; a listener says nothing to who has not said hello."""
        return self._take_hello() if self.role is Role.DIALER else b""

    def feed(self, data: bytes) -> bytes:
        """Bytes to send in answer to `data`; raises `Refused`."""
        assert self.stage not in (Stage.DONE, Stage.FAILED)
        answer = b""
        try:
            if self.stage is Stage.HELLO:
                data, answer = self._feed_hello(data)
            if self._opener is not None:
                self._opener.feed(data)
            if self.stage is Stage.PROOF and (frame := self.opener.pop()) is not None:
                self._read_proof(frame)
            elif self.stage is Stage.WELCOME and (frame := self.opener.pop()) is not None:
                self._read_welcome(frame)
        except Refused:
            self.stage = Stage.FAILED
            raise
        return answer

    def accept(self) -> bytes:
        """Let the proven peer in: the dialer's proof, or the listener's welcome."""
        assert self.stage is Stage.DECIDE
        if self.role is Role.DIALER:
            self.stage = Stage.WELCOME
            return self._seal(_PROOF + self._make_proof())
        self._finish()
        return self._seal(_WELCOME)

    def refuse(self, refusal: Refused) -> bytes:
        """Bytes that tell the peer why, as far as it can be told; the handshake is over."""
        self.stage = Stage.FAILED
        if isinstance(refusal, RefusedByPeer):
            return b""
        if self._sealer is not None:
            return self._seal(_REFUSAL + encode(Refusal(refusal.code[:256], refusal.message[:256])))
        if refusal.code == "wrong-protocol-version" and not self._has_sent_hello:
            return self._take_hello()
        return b""

    def _take_hello(self) -> bytes:
        self._has_sent_hello = True
        return self._hello

    def _feed_hello(self, data: bytes) -> tuple[bytes, bytes]:
        """(what follows the peer's hello, our answer)"""
        needed = HELLO_BYTES - len(self._peer_hello)
        self._peer_hello += data[:needed]
        if not self._peer_hello.startswith(MAGIC[: len(self._peer_hello)]):
            raise Refused("not-a-peer", "the other side does not speak this network's peer protocol")
        if len(self._peer_hello) < HELLO_BYTES:
            return b"", b""
        version = int.from_bytes(self._peer_hello[len(MAGIC) : len(MAGIC) + VERSION_BYTES], "big")
        if version != PEER_VERSION:
            raise Refused(
                "wrong-protocol-version",
                f"peer speaks version {version} of the peer protocol, this node {PEER_VERSION}: run releases on both "
                "that share one. The chain's protocol version is another number, it was not compared",
            )
        self._agree_keys(bytes(self._peer_hello[-crypto_kx_PUBLIC_KEY_BYTES:]))
        self.stage = Stage.PROOF
        if self.role is Role.DIALER:
            return data[needed:], b""
        return data[needed:], self._take_hello() + self._seal(_PROOF + self._make_proof())

    def _agree_keys(self, peer_public_key: bytes) -> None:
        if peer_public_key == self._public_key:
            raise Refused("bad-ephemeral-key", "the other side sent our own ephemeral key back")
        derive = crypto_kx_client_session_keys if self.role is Role.DIALER else crypto_kx_server_session_keys
        try:
            receive_key, send_key = derive(self._public_key, self._secret_key, peer_public_key)
        except CryptoError:
            raise Refused("bad-ephemeral-key", "the other side's ephemeral key is a point of low order") from None
        self._secret_key = b""
        self._sealer = FrameSealer(send_key)
        self._opener = FrameOpener(receive_key, MAX_HANDSHAKE_FRAME_BYTES)

    def _seal(self, payload: bytes) -> bytes:
        header = b"" if self._has_sent_header else self.sealer.stream_header
        self._has_sent_header = True
        return header + self.sealer.seal(payload)

    def _make_proof(self) -> bytes:
        claims = self._node.claims
        context = signing_context(PEER_PURPOSE, self._node.genesis_hash)
        proof = encode(Proof(claims, sign(self._node.key, context, self._transcript(self.role, claims))))
        if self.role is Role.LISTENER:
            self._listener_proof = proof
        return proof

    def _transcript(self, signer: Role, claims: Claims) -> bytes:
        """32 bytes: all that was said until `signer` signs."""
        ours, theirs = self._hello, bytes(self._peer_hello)
        hellos = (ours, theirs) if self.role is Role.DIALER else (theirs, ours)
        listener_proof = self._listener_proof if signer is Role.DIALER else b""
        return tagged_hash(TRANSCRIPT_TAG, (signer.value, *hellos, listener_proof, encode(claims)))

    def _read_proof(self, frame: bytes) -> None:
        if frame[:1] == _REFUSAL:
            raise _read_refusal(frame)
        if frame[:1] != _PROOF:
            raise Malformed(f"expected the proof of a node key, got message kind {frame[0]}")
        proof = decode(Proof, frame[1:])
        self._check_claims(proof.claims)
        signer = Role.LISTENER if self.role is Role.DIALER else Role.DIALER
        context = signing_context(PEER_PURPOSE, self._node.genesis_hash)
        message = self._transcript(signer, proof.claims)
        if not is_signature_valid(proof.claims.public_key, context, message, proof.signature):
            raise Refused("bad-proof", "the proof of the node key does not hold for this connection")
        if self.role is Role.DIALER:
            self._listener_proof = frame[1:]
        self.claims = proof.claims
        self.stage = Stage.DECIDE

    def _check_claims(self, claims: Claims) -> None:
        if claims.chain_id != self._node.chain_id:
            raise Refused(
                "wrong-chain", f"peer is on chain {printable(claims.chain_id)!r}, this node on {self._node.chain_id!r}"
            )
        if claims.genesis_hash != self._node.genesis_hash:
            raise Refused(
                "wrong-genesis",
                f"peer's genesis is {claims.genesis_hash.hex()[:16]}..., this node's "
                f"{self._node.genesis_hash.hex()[:16]}...: use the same genesis.json on both",
            )
        if claims.public_key == bytes(self._node.key.verify_key):
            raise Refused("self", "the other side holds this node's own key: it is this node, or a copy of its home")

    def _read_welcome(self, frame: bytes) -> None:
        if frame[:1] == _REFUSAL:
            raise _read_refusal(frame)
        if frame != _WELCOME:
            raise Malformed(f"expected a welcome, got message kind {frame[0]} of {len(frame)} bytes")
        self._finish()

    def _finish(self) -> None:
        self.stage = Stage.DONE
        self.opener.max_frame_bytes = MAX_FRAME_BYTES


def _read_refusal(frame: bytes) -> Refused:
    refusal = decode(Refusal, frame[1:])
    return RefusedByPeer(printable(refusal.code), f"peer refused: {printable(refusal.message)}")


def printable(text: str) -> str:
    """A peer's text, safe for a log or a terminal."""
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
