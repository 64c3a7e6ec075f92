"""One direction of an encrypted stream: length-prefixed frames sealed by XChaCha20-Poly1305.

libsodium's secretstream gives order, integrity and truncation detection: a frame that was dropped, repeated,
reordered or changed does not open. On the wire: 24 bytes stream header, then frames of

    length of the sealed bytes (4, big endian) | sealed bytes (plaintext + 17)

The prefix is not sealed: a changed one only cuts the sealed bytes elsewhere, and then nothing opens.
"""

from nacl import bindings as sodium
from nacl.exceptions import CryptoError

from flockchain.errors import Refused

SEAL_BYTES = sodium.crypto_secretstream_xchacha20poly1305_ABYTES
STREAM_HEADER_BYTES = sodium.crypto_secretstream_xchacha20poly1305_HEADERBYTES
MAX_FRAME_BYTES = 65_536
"""Plaintext of one frame: the longest that an urgent message waits behind a large one."""
LENGTH_BYTES = 4
REKEY_BYTES = 2**30
"""After this many sealed bytes the stream moves to a fresh key, and a stolen key opens nothing older."""

_TAG_MESSAGE = sodium.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
_TAG_REKEY = sodium.crypto_secretstream_xchacha20poly1305_TAG_REKEY
_TAG_FINAL = sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL


class FrameSealer:
    """Seals the frames that leave."""

    def __init__(self, key: bytes) -> None:
        self._state = sodium.crypto_secretstream_xchacha20poly1305_state()
        self.stream_header = sodium.crypto_secretstream_xchacha20poly1305_init_push(self._state, key)
        self._bytes_under_key = 0

    def seal(self, plaintext: bytes, *, is_last: bool = False) -> bytes:
        """Wire bytes of one frame; after the last frame the peer accepts no more."""
        assert len(plaintext) <= MAX_FRAME_BYTES
        self._bytes_under_key += len(plaintext)
        tag = _TAG_MESSAGE
        if is_last:
            tag = _TAG_FINAL
        elif self._bytes_under_key >= REKEY_BYTES:
            tag = _TAG_REKEY
            self._bytes_under_key = 0
        sealed = sodium.crypto_secretstream_xchacha20poly1305_push(self._state, plaintext, None, tag)
        return len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed


class FrameOpener:
    """Opens the frames that arrive: `feed` what the socket gave, then `pop` until it answers None."""

    def __init__(self, key: bytes, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._key = key
        self._state: sodium.crypto_secretstream_xchacha20poly1305_state | None = None
        self._buffer = bytearray()
        self._position = 0
        self.max_frame_bytes = max_frame_bytes
        self.frames_opened = 0
        self.is_ended = False

    @property
    def is_mid_frame(self) -> bool:
        """Whether bytes of an unfinished frame are held."""
        return len(self._buffer) > self._position

    def feed(self, data: bytes) -> None:
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def pop(self) -> bytes | None:
        """Plaintext of the next frame, or None until more bytes come; raises `Refused`."""
        if self._state is None and not self._open_stream():
            return None
        start = self._position + LENGTH_BYTES
        if len(self._buffer) < start:
            return None
        length = int.from_bytes(self._buffer[self._position : start], "big")
        if not SEAL_BYTES < length <= self.max_frame_bytes + SEAL_BYTES:
            raise Refused(
                "bad-frame-length",
                f"a frame announces {length} sealed bytes, between {SEAL_BYTES + 1} and "
                f"{self.max_frame_bytes + SEAL_BYTES} are possible",
            )
        if len(self._buffer) < start + length:
            return None
        if self.is_ended:
            raise Refused("frame-after-end", "a frame came after the stream's last one")
        with memoryview(self._buffer) as view:
            sealed = bytes(view[start : start + length])
        self._position = start + length
        return self._open(sealed)

    def _open_stream(self) -> bool:
        if len(self._buffer) < self._position + STREAM_HEADER_BYTES:
            return False
        header = bytes(self._buffer[self._position : self._position + STREAM_HEADER_BYTES])
        self._position += STREAM_HEADER_BYTES
        self._state = sodium.crypto_secretstream_xchacha20poly1305_state()
        sodium.crypto_secretstream_xchacha20poly1305_init_pull(self._state, header, self._key)
        return True

    def _open(self, sealed: bytes) -> bytes:
        assert self._state is not None
        try:
            plaintext, tag = sodium.crypto_secretstream_xchacha20poly1305_pull(self._state, sealed, None)
        except CryptoError:
            raise Refused("bad-seal", f"a frame of {len(sealed)} bytes does not open with the session key") from None
        if tag not in (_TAG_MESSAGE, _TAG_REKEY, _TAG_FINAL):
            raise Refused("bad-frame-tag", f"a frame carries the stream tag {tag}, which this protocol does not use")
        self.is_ended = tag == _TAG_FINAL
        self.frames_opened += 1
        return plaintext
