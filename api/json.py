"""How the chain's values look in JSON, here and in `flockchain query`.

Addresses in bech32, other bytes in hex, an empty optional hash or address as null, units in the names of
fields; a struct is an object with its field names. The type that a field is declared with decides, never the value.
"""

from collections.abc import Callable
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from flockchain.codec import decode
from flockchain.crypto import format_address, sha256
from flockchain.errors import Refused
from flockchain.store.reader import BlockSummary, StoredBlock, StoredReceipt, StoredTx
from flockchain.txs import get_type
from flockchain.types.ids import Address, OptionalAddress, OptionalHash
from flockchain.types.tx import SignedTx, Tx

Json = dict[str, Any]

_format_address = lru_cache(16_384)(format_address)


def render(value: msgspec.Struct) -> Json:
    """A struct as a JSON object."""
    return {name: renderer(getattr(value, name)) for name, renderer in _fields_of(type(value))}


@lru_cache(512)
def _fields_of(kind: type[msgspec.Struct]) -> list[tuple[str, Callable[[Any], Any]]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(name, _choose(hints[name])) for name in kind.__struct_fields__]


def _choose(hint: Any) -> Callable[[Any], Any]:
    if hint == Address:
        return _format_address
    if hint == OptionalAddress:
        return lambda value: _format_address(value) if value else None
    if hint == OptionalHash:
        return lambda value: value.hex() or None
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(base) is Literal:
        return _same
    if get_origin(base) is tuple:
        item = _choose(get_args(base)[0])
        return lambda values: [item(value) for value in values]
    if get_origin(base) in (Union, UnionType):
        some = [_choose(kind) for kind in get_args(base) if kind is not NoneType]
        assert len(some) == 1, f"no JSON form for {hint}: only an optional value has one"
        return lambda value: None if value is None else some[0](value)
    if base is bytes:
        return bytes.hex
    if isinstance(base, type) and issubclass(base, msgspec.Struct):
        return render
    assert base in (int, str, bool), f"no JSON form for {hint}"
    return _same


def _same(value: Any) -> Any:
    return value


def render_block(stored: StoredBlock) -> Json:
    """`state_root` is the one after this block; the one before it stands in the header."""
    header = stored.block.header
    return {
        "height": header.height,
        "block_id": header.block_id().hex(),
        "time_ms": header.time_ms,
        "proposer": format_address(header.proposer),
        "header": render(header),
        "state_root": stored.state_root.hex(),
        "results_root": stored.results_root.hex(),
        "txs": [tx_hash.hex() for tx_hash in stored.tx_hashes],
        "last_commit": render(stored.block.last_commit),
        "late_precommits": len(stored.block.late_precommits),
        "commit": render(stored.commit),
    }


def render_block_summary(stored: BlockSummary) -> Json:
    return {
        "height": stored.header.height,
        "block_id": stored.block_id.hex(),
        "time_ms": stored.header.time_ms,
        "proposer": format_address(stored.header.proposer),
        "tx_count": stored.tx_count,
        "state_root": stored.state_root.hex(),
    }


def render_tx(stored: StoredTx) -> Json:
    """A final transaction: its result, then what was signed."""
    return {
        "hash": stored.result.hash.hex(),
        "height": stored.height,
        "position": stored.position,
        "code": stored.result.code,
        "message": stored.result.message,
        **_render_signed(stored.data),
    }


def render_pending_tx(data: bytes) -> Json:
    """A transaction that waits for a block: as `render_tx`, with null where only a block can tell."""
    undecided = dict.fromkeys(("height", "position", "code", "message"))
    return {"hash": sha256(data).hex(), **undecided, **_render_signed(data)}


def _render_signed(data: bytes) -> Json:
    tx = decode(SignedTx, data).tx
    return render(tx) | {"body": _render_body(tx)}


def _render_body(tx: Tx) -> Any:
    """The typed body, or its hex where the chain refused it for not being one."""
    try:
        body: msgspec.Struct = decode(get_type(tx.kind).body, tx.body)
    except Refused:
        return tx.body.hex()
    return render(body)


def render_receipt(stored: StoredReceipt) -> Json:
    """`facts` as an object, in the order in which they are read."""
    receipt = render(stored.receipt)
    receipt["facts"] = {fact.name: fact.value for fact in stored.receipt.facts}
    return {"height": stored.height, "position": stored.position, **receipt}
