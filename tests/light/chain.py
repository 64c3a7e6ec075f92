"""A chain to verify and the tools of a forger: real blocks, real signatures, and keys that may sign anything.

chain = LightChain()
chain.run(10)
client = chain.client()
client.update(chain.now_ms)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from flockchain.codec import encode
from flockchain.crypto import address_of, sign, signing_context
from flockchain.errors import Refused
from flockchain.execution.block import get_validators
from flockchain.light.client import LightClient, Mode
from flockchain.light.predicates import Options
from flockchain.light.rules import FlockRules, encode_precommit
from flockchain.light.stored import MemoryStore
from flockchain.state_tree import StateTree
from flockchain.types.chain import VOTE_PURPOSE, Commit, CommitSignature, Header, Validator
from flockchain.types.light import LightBlock, ProvenRow, compute_validators_hash
from flockchain.types.rows import Row, compute_key
from tests.support.ledger import Ledger, make_genesis, make_key

TRUSTING_PERIOD_MS = 50_000
OPTIONS = Options(TRUSTING_PERIOD_MS, max_clock_drift_ms=5_000)


@dataclass
class MemoryProvider:
    """A `Provider` that answers what it is told to; `asked` remembers the heights."""

    node: str
    blocks: dict[int, LightBlock] = field(default_factory=dict)
    asked: list[int | None] = field(default_factory=list)

    def light_block(self, height: int | None = None) -> LightBlock:
        self.asked.append(height)
        number = max(self.blocks) if height is None else height
        if number not in self.blocks:
            raise Refused("not-found", f"{self.node} has no block {number}")
        return self.blocks[number]


class LightChain:
    """A ledger whose every light block is kept; block i comes a second after block i-1."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger(make_genesis())
        self.rules = FlockRules(self.ledger.genesis_hash)
        self.blocks: dict[int, LightBlock] = {}
        self._tree_before: StateTree = self.ledger.tree.copy()
        self._rows_before: dict[bytes, Row] = {}

    def produce(self, *txs: bytes, elapsed_ms: int = 1_000, absent: Iterable[str] = ()) -> LightBlock:
        self._tree_before, self._rows_before = self.ledger.tree.copy(), dict(self.ledger.state.items())
        self.ledger.produce(*txs, elapsed_ms=elapsed_ms, absent=absent)
        header, commit = self.ledger.blocks[-1].header, self.ledger.commits[-1]
        block = LightBlock(header, commit, self._members(header.height), self._members(header.height + 1))
        self.blocks[header.height] = block
        return block

    def run(self, blocks: int, elapsed_ms: int = 1_000) -> None:
        for _ in range(blocks):
            self.produce(elapsed_ms=elapsed_ms)

    def _members(self, height: int) -> tuple[Validator, ...]:
        return tuple(Validator(m.address, m.public_key, m.power) for m in get_validators(self.ledger.state, height))

    @property
    def height(self) -> int:
        return max(self.blocks)

    @property
    def now_ms(self) -> int:
        """A second after the newest block."""
        return self.blocks[self.height].header.time_ms + 1_000

    # Reading

    def provider(self, name: str = "primary", up_to: int | None = None) -> MemoryProvider:
        return MemoryProvider(name, {h: b for h, b in self.blocks.items() if up_to is None or h <= up_to})

    def client(
        self,
        primary: MemoryProvider | None = None,
        witnesses: Sequence[MemoryProvider] = (),
        *,
        root: int = 1,
        mode: Mode = "skipping",
        store: Any = None,
        now_ms: int | None = None,
    ) -> LightClient[LightBlock]:
        """A client that trusts the honest block `root`, as its time came."""
        client = LightClient(
            self.rules, primary or self.provider(), witnesses, store or MemoryStore(), OPTIONS, mode=mode
        )
        block = self.blocks[root]
        client.trust(root, block.block_id(), block.header.chain_id, now_ms or block.header.time_ms + 1_000)
        return client

    def proven_row(self, kind: type[Any], *key: bytes | int | str) -> ProvenRow:
        """Under the newest header, of the state before its block."""
        name = compute_key(kind, *key)
        row = self._rows_before.get(name)
        block = self.blocks[self.height]
        value = None if row is None else encode(row)
        return ProvenRow(name, value, self._tree_before.prove(name), block.header, block.commit)


class Forger:
    """Makes light blocks with whatever keys it holds."""

    def __init__(self, genesis_hash: bytes, keys: Iterable[str]) -> None:
        self.genesis_hash = genesis_hash
        self._keys = {address_of(bytes(make_key(name).verify_key)): make_key(name) for name in keys}

    def sign(
        self,
        header: Header,
        validators: tuple[Validator, ...],
        next_validators: tuple[Validator, ...] | None = None,
        *,
        round: int = 0,
        signers: int | None = None,
    ) -> LightBlock:
        """A header with the hashes of these sets, signed by the members whose keys are held (the first `signers`)."""
        following = validators if next_validators is None else next_validators
        header = replace(
            header,
            validators_hash=compute_validators_hash(validators),
            next_validators_hash=compute_validators_hash(following),
        )
        held = [validator.address for validator in validators if validator.address in self._keys][:signers]
        return LightBlock(header, self.commit(header, held, round=round), validators, following)

    def commit(
        self, header: Header, signers: Iterable[bytes], *, round: int = 0, purpose: str = VOTE_PURPOSE
    ) -> Commit:
        empty = Commit(header.height, round, header.block_id(), ())
        context = signing_context(purpose, self.genesis_hash)
        message = encode_precommit(empty)
        signatures = (CommitSignature(a, sign(self._keys[a], context, message)) for a in sorted(signers))
        return replace(empty, signatures=tuple(signatures))


def make_validator(name: str, power: int = 1) -> Validator:
    public_key = bytes(make_key(name).verify_key)
    return Validator(address_of(public_key), public_key, power)


def make_set(*names: str, power: int = 1) -> tuple[Validator, ...]:
    return tuple(sorted((make_validator(name, power) for name in names), key=lambda member: member.address))
