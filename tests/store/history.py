"""A chain made by hand: transfers between two accounts, with real blocks, certificates, roots and receipts."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from nacl.signing import SigningKey

from flockchain.codec import encode
from flockchain.crypto import address_of, sha256, sign, signing_context
from flockchain.merkle import EMPTY_ROOT, compute_root
from flockchain.params import Params
from flockchain.state_tree import StateTree
from flockchain.types.chain import EMPTY_COMMIT, TX_PURPOSE, Block, Commit, CommitSignature, Header
from flockchain.types.rows import Account, Chain, Row, SetMember, Stake, ValidatorRow, ValidatorSet, row_key
from flockchain.types.tx import OK, Amount, Receipt, SignedTx, Tx, TxResult

GENESIS_BYTES = b"a genesis document"
GENESIS_HASH = sha256(GENESIS_BYTES)
START_MS = 1_750_000_000_000
KEYS = [SigningKey(bytes([i]) * 32) for i in range(1, 4)]
ALICE, BOB, VALIDATOR = (address_of(bytes(key.verify_key)) for key in KEYS)
POOL_UFLK = 1_000_000_000
BOND_UFLK = 10_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    results: tuple[TxResult, ...]
    receipts: tuple[Receipt, ...]
    write_set: Mapping[bytes, Row | None]
    results_root: bytes
    state_root: bytes


Decided = tuple[Block, Commit, Outcome]


class History:
    """Makes one decided block after the other; `rows` is the state after the newest."""

    def __init__(self) -> None:
        public_key = bytes(KEYS[2].verify_key)
        validator = ValidatorRow(
            address=VALIDATOR,
            owner=ALICE,
            public_key=public_key,
            name="first",
            bond_uflk=BOND_UFLK,
            active=True,
            jailed_until_ms=0,
            tombstoned=False,
            beacon_head=sha256(b"head"),
            next_beacon_head=b"",
            next_beacon_height=0,
            joined_height=1,
            income_uflk=0,
        )
        members = (SetMember(VALIDATOR, public_key, BOND_UFLK, 0),)
        self.genesis_rows: list[Row] = [
            _make_chain(),
            Account(ALICE, POOL_UFLK, 0),
            validator,
            Stake(ALICE, f"validator:{VALIDATOR.hex()}", BOND_UFLK, "", (), False, 0, START_MS),
            ValidatorSet(1, members),
            ValidatorSet(2, members),
        ]
        self.rows = {row_key(row): row for row in self.genesis_rows}
        self.tree = StateTree()
        self.tree.update({key: encode(row) for key, row in self.rows.items()})
        self._last: tuple[Block, Commit] | None = None
        self.nonce = 0

    @property
    def state_root(self) -> bytes:
        return self.tree.root

    def next_block(self, *, transfers: int = 2, extra: Mapping[bytes, Row | None] | None = None) -> Decided:
        """A block in which Alice pays Bob 1 uflk in each of `transfers`; `extra` rows change with it."""
        height = self._last[0].height + 1 if self._last else 1
        txs = tuple(self.make_transfer(self.nonce + i) for i in range(transfers))
        self.nonce += transfers
        block = self._make_block(height, txs)
        results = tuple(TxResult(sha256(tx), "transfer", ALICE, OK, "", 100) for tx in txs)
        facts = (Amount("height", height), Amount("power", BOND_UFLK))
        receipts = (Receipt("income", ALICE, height, 0, 0, f"signed block {height}", facts, b""),)
        write_set: dict[bytes, Row | None] = {
            row_key(row): row
            for row in (
                Account(ALICE, POOL_UFLK - self.nonce, self.nonce),
                Account(BOB, self.nonce, 0),
                _make_chain(height, block),
            )
        } | dict(extra or {})
        for key, row in write_set.items():
            if row is None:
                self.rows.pop(key)
            else:
                self.rows[key] = row
        self.tree.update({key: None if row is None else encode(row) for key, row in write_set.items()})
        commit = Commit(height, 0, block.block_id(), (CommitSignature(VALIDATOR, bytes(64)),))
        self._last = (block, commit)
        results_root = compute_root([*map(encode, results), *map(encode, receipts)])
        return block, commit, Outcome(results, receipts, write_set, results_root, self.tree.root)

    def make_transfer(self, nonce: int) -> bytes:
        tx = Tx("test-1", "transfer", ALICE, nonce, 100, START_MS + 10**9, encode((BOB, 1, "")))
        signature = sign(KEYS[0], signing_context(TX_PURPOSE, GENESIS_HASH), encode(tx))
        return encode(SignedTx(tx, bytes(KEYS[0].verify_key), signature))

    def _make_block(self, height: int, txs: tuple[bytes, ...]) -> Block:
        last_block, last_commit = self._last or (None, EMPTY_COMMIT)
        header = Header(
            protocol_version=1,
            chain_id="test-1",
            height=height,
            time_ms=START_MS + height,
            proposer=VALIDATOR,
            last_block_id=last_block.block_id() if last_block else b"",
            last_commit_hash=sha256(encode((last_commit, ()))),
            txs_root=compute_root(txs),
            prev_results_root=EMPTY_ROOT,
            prev_state_root=self.tree.root,
            validators_hash=bytes(32),
            next_validators_hash=bytes(32),
            params_hash=Params().hash(),
            beacon_preimage=bytes(32),
        )
        return Block(header, txs, last_commit, ())


def _make_chain(height: int = 0, block: Block | None = None) -> Chain:
    chain = Chain(
        chain_id="test-1",
        genesis_hash=GENESIS_HASH,
        height=0,
        time_ms=START_MS,
        last_block_id=b"",
        beacon=bytes(32),
        supply_uflk=POOL_UFLK + BOND_UFLK,
        community_pool_uflk=0,
        fee_pool_uflk=0,
        next_task=1,
        next_sequence=1,
        window_start_ms=START_MS,
        window_blocks=0,
        results_root=EMPTY_ROOT,
        params=Params(),
    )
    if block is None:
        return chain
    return msgspec.structs.replace(chain, height=height, time_ms=block.header.time_ms, last_block_id=block.block_id())
