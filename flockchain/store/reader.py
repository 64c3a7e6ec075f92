"""Read-only view of `data/chain.sqlite` for the API and the command line; never blocks the writer.

    with reader.snapshot() as chain:
        account = chain.find(Account, address)

All reads of one snapshot see the same height. Hold one only as long as an answer takes: while it is open the
write-ahead log cannot begin anew.
"""

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, Select, desc, func, select

from flockchain.codec import decode
from flockchain.errors import Malformed, Refused
from flockchain.store.read_only import ReadOnlyFile
from flockchain.store.reading import decode_row, read_block, read_commit, read_light_block
from flockchain.store.tables import blocks, height_of, make_id, meta, position_of, receipts, state_rows, txs
from flockchain.types.chain import Block, Commit, Header
from flockchain.types.light import LightBlock
from flockchain.types.rows import Chain, Row, ValidatorSet, compute_key
from flockchain.types.tx import Receipt, TxResult

MAX_PAGE = 200
R = TypeVar("R", bound=Row)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """Part of a list; `next_cursor` continues it, None at its end."""

    items: Sequence[T_co]
    next_cursor: str | None


def iterate_pages(read: Callable[[str | None], Page[T_co]]) -> Iterator[T_co]:
    """All items of a list; `read` takes the cursor of a page."""
    cursor: str | None = None
    while True:
        page = read(cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest block; before the first, height 0 without a block id."""

    height: int
    block_id: bytes
    time_ms: int
    state_root: bytes


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block without the bytes of its transactions, with its certificate and the roots after it."""

    block: Block
    commit: Commit
    tx_hashes: list[bytes]
    results_root: bytes
    state_root: bytes


@dataclass(frozen=True, slots=True)
class BlockSummary:
    header: Header
    block_id: bytes
    tx_count: int
    state_root: bytes


@dataclass(frozen=True, slots=True)
class StoredTx:
    height: int
    position: int
    result: TxResult
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    height: int
    position: int
    receipt: Receipt


class Reader(ReadOnlyFile["Snapshot"]):
    """Typed selects for the API and the command line; see `ReadOnlyFile`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Snapshot)


class Snapshot:
    """Typed selects at one height."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # The chain

    def chain(self) -> Chain:
        chain = self.find(Chain)
        assert chain is not None, "initialize() wrote it"
        return chain

    def tip(self) -> Tip:
        """Height, id, time and state root of the newest block."""
        newest = select(blocks.c.height, blocks.c.block_id, blocks.c.time_ms, blocks.c.state_root)
        found = self._connection.execute(newest.order_by(desc(blocks.c.height)).limit(1)).first()
        if found is not None:
            return Tip(*found)
        root = self._connection.scalar(select(meta.c.value).where(meta.c.name == "genesis_state_root"))
        return Tip(0, b"", self.chain().time_ms, root or b"")

    def first_height(self) -> int:
        """Lowest height whose block is held: those before are pruned, or lie before a snapshot; 0 without blocks."""
        return self._connection.scalar(select(func.min(blocks.c.height))) or 0

    def check_not_pruned(self, height: int) -> None:
        """Refuse (``pruned``) a height below what this node holds."""
        first = self.first_height()
        if 0 < height < first:
            raise Refused(
                "pruned",
                f"block {height} is pruned: this node holds blocks {first} to {self.tip().height}; ask a node that "
                "keeps all blocks (its /v1/status shows first_height 1)",
            )

    def genesis_bytes(self) -> bytes:
        """As given to `ChainStore.initialize`."""
        found: bytes | None = self._connection.scalar(select(meta.c.value).where(meta.c.name == "genesis"))
        assert found is not None, "initialize() wrote it"
        return found

    # Rows of the state

    def find(self, kind: type[R], *key: bytes | int | str) -> R | None:
        """The row with this key, or None."""
        name = compute_key(kind, *key)
        value: bytes | None = self._connection.scalar(select(state_rows.c.value).where(state_rows.c.key == name))
        return None if value is None else cast(R, decode_row(name, value))

    def rows(
        self, kind: type[R], *prefix: bytes | int | str, limit: int = MAX_PAGE, cursor: str | None = None
    ) -> Page[R]:
        """Rows of one kind under a key prefix, in key order."""
        start = compute_key(kind, *prefix)
        return self._page_of_rows(_is_below(start), limit, cursor)

    def all_rows(self, kind: type[R], *prefix: bytes | int | str) -> Iterator[R]:
        """As `rows`, to the end."""
        return iterate_pages(lambda cursor: self.rows(kind, *prefix, cursor=cursor))

    def powers(self, height: int) -> dict[bytes, int]:
        """Voting power by address of the set that signs this height; empty where it is not known."""
        found = self.find(ValidatorSet, height)
        return {member.address: member.power for member in found.members} if found is not None else {}

    def rows_by_ref(self, kind: type[R], ref: str, *, limit: int = MAX_PAGE, cursor: str | None = None) -> Page[R]:
        """Rows of one kind with this second key, in key order.

        It is the target of a `Stake`, and `make_account_ref` of who owns a `Delegation` or `Unbonding`.
        """
        return self._page_of_rows(_is_below(compute_key(kind)) & (state_rows.c.ref == ref), limit, cursor)

    def _page_of_rows(self, condition: ColumnElement[bool], limit: int, cursor: str | None) -> Page[Any]:
        query = select(state_rows.c.key, state_rows.c.value).where(condition).order_by(state_rows.c.key)
        if cursor is not None:
            query = query.where(state_rows.c.key > _parse_cursor(cursor))
        found, is_more = self._fetch(query, limit)
        rows = [decode_row(key, value) for key, value in found]
        return Page(rows, _make_cursor(found[-1][0]) if is_more else None)

    # Blocks and transactions

    def block(self, height: int) -> StoredBlock | None:
        row = self._connection.execute(select(blocks).where(blocks.c.height == height)).first()
        if row is None:
            return None
        within = txs.c.id.between(make_id(height, 0), make_id(height + 1, 0) - 1)
        hashes = self._connection.scalars(select(txs.c.hash).where(within).order_by(txs.c.id)).all()
        block, commit = decode(Block, row.block), decode(Commit, row.commit_certificate)
        return StoredBlock(block, commit, list(hashes), row.results_root, row.state_root)

    def whole_block(self, height: int) -> tuple[Block, Commit] | None:
        """The block with its transactions, as it was decided, and its certificate."""
        block, commit = read_block(self._connection, height), read_commit(self._connection, height)
        return None if block is None or commit is None else (block, commit)

    def light_block(self, height: int) -> LightBlock | None:
        """Header, commit and the sets of this height and the next; None when this file lacks one of them."""
        return read_light_block(self._connection, height)

    def blocks(self, *, limit: int = MAX_PAGE, cursor: str | None = None) -> Page[BlockSummary]:
        """Newest first."""
        columns = (blocks.c.height, blocks.c.block, blocks.c.block_id, blocks.c.tx_count, blocks.c.state_root)
        query = select(*columns).order_by(desc(blocks.c.height))
        if cursor is not None:
            query = query.where(blocks.c.height < _parse_id(cursor))
        found, is_more = self._fetch(query, limit)
        items = [BlockSummary(decode(Block, row[1]).header, *row[2:]) for row in found]
        return Page(items, _make_id_cursor(found[-1][0]) if is_more else None)

    def tx(self, tx_hash: bytes) -> StoredTx | None:
        """A transaction of a decided block, with its result."""
        row = self._connection.execute(select(txs).where(txs.c.hash == tx_hash)).first()
        if row is None:
            return None
        result = TxResult(row.hash, row.kind, row.sender, row.code, row.message, row.fee_uflk)
        return StoredTx(height_of(row.id), position_of(row.id), result, row.bytes)

    def receipts(
        self,
        *,
        account: bytes | None = None,
        kind: str | None = None,
        task: int | None = None,
        round: int | None = None,
        limit: int = MAX_PAGE,
        cursor: str | None = None,
    ) -> Page[StoredReceipt]:
        """Newest first, those that match all that is given."""
        query = select(receipts.c.id, receipts.c.body).order_by(desc(receipts.c.id))
        wanted = {"account": account, "kind": kind, "task": task, "round": round}
        for name, value in wanted.items():
            if value is not None:
                query = query.where(receipts.c[name] == value)
        if cursor is not None:
            query = query.where(receipts.c.id < _parse_id(cursor))
        found, is_more = self._fetch(query, limit)
        items = [StoredReceipt(height_of(i), position_of(i), decode(Receipt, body)) for i, body in found]
        return Page(items, _make_id_cursor(found[-1][0]) if is_more else None)

    def count_txs(self) -> int:
        """Transactions of all blocks held."""
        return self._connection.scalar(select(func.sum(blocks.c.tx_count))) or 0

    def _fetch(self, query: Select[Any], limit: int) -> tuple[list[Any], bool]:
        """At most `limit` rows, and whether there are more."""
        assert 1 <= limit <= MAX_PAGE
        found = list(self._connection.execute(query.limit(limit + 1)))
        return found[:limit], len(found) > limit


def _is_below(prefix: bytes) -> ColumnElement[bool]:
    """Whether a state key begins with `prefix`. Tags are below 255, so the next prefix exists."""
    end = (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")
    return (state_rows.c.key >= prefix) & (state_rows.c.key < end)


def _make_cursor(key: bytes) -> str:
    return urlsafe_b64encode(key).decode().rstrip("=")


def _make_id_cursor(record_id: int) -> str:
    return _make_cursor(record_id.to_bytes(8, "big"))


def _parse_cursor(cursor: str) -> bytes:
    try:
        return b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Malformed(f"cursor {cursor[:64]!r} is not one that this node gave: begin again without it") from None


def _parse_id(cursor: str) -> int:
    key = _parse_cursor(cursor)
    if len(key) != 8 or key[0] > 127:
        raise Malformed(f"cursor {cursor[:64]!r} belongs to another list: begin again without it")
    return int.from_bytes(key, "big")
