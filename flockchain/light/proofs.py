"""One row of the state, or its absence, under a verified header.

The header of block H+1 holds the root of the state after block H, so the newest provable state is the one before the
newest block.
"""

from typing import Any, Protocol, TypeVar, cast

from flockchain.codec import decode, encode
from flockchain.errors import Malformed
from flockchain.light.client import LightClient
from flockchain.light.refusals import NotVerified
from flockchain.state_tree import is_state_proof_valid
from flockchain.types.chain import Header
from flockchain.types.light import LightBlock, ProvenRow
from flockchain.types.rows import Row, compute_key, row_key

R = TypeVar("R", bound=Row)


class ProofSource(Protocol):
    """Who gives rows with their proofs; nothing it says is believed. `flockchain.client.Client` is one."""

    def proven_row(self, kind: type[Any], *key: bytes | int | str) -> ProvenRow: ...


def read_row(
    client: LightClient[LightBlock], source: ProofSource, kind: type[R], *key: bytes | int | str, now_ms: int
) -> tuple[R | None, Header]:
    """The row (None: the state has none) and the verified header that proves it; raises `NotVerified`."""
    proven = source.proven_row(kind, *key)
    block = client.verify_height(proven.header.height, now_ms)
    if proven.header.block_id() != block.block_id():
        raise NotVerified("bad-proof", f"the proof stands on another block {block.height} than the verified one")
    return check_row(block.header, proven, kind, *key), block.header


def check_row(header: Header, proven: ProvenRow, kind: type[R], *key: bytes | int | str) -> R | None:
    """The row that `proven` shows under the verified `header`, or None for a proven absence; raises `NotVerified`."""
    if proven.key != compute_key(kind, *key):
        raise NotVerified("bad-proof", f"the proof is for the state key {proven.key.hex()}, another one was asked for")
    if not is_state_proof_valid(header.prev_state_root, proven.key, proven.value, proven.proof):
        what = "an absence" if proven.value is None else "a row"
        raise NotVerified(
            "bad-proof",
            f"the proof of {what} under key {proven.key.hex()} does not lead to the state root "
            f"{header.prev_state_root.hex()} of the verified block {header.height}",
        )
    if proven.value is None:
        return None
    try:
        row = decode(kind, proven.value)
    except Malformed as error:
        raise NotVerified("bad-proof", f"the proven row is not of the expected kind: {error}") from None
    assert row_key(cast(Row, row)) == proven.key, "the chain itself filed a row under a wrong key"
    assert encode(row) == proven.value
    return row
