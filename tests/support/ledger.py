"""A small chain for tests: keys, genesis, signed transactions, signed commits, the next block.

    ledger = Ledger()                                   # four validators, accounts alice, bob, carol ...
    outcome = ledger.produce(ledger.tx("alice", transfer.Body(ledger.address("bob"), 5, "")))
    assert outcome.results[0].code == "ok"

Everything is real but the network: blocks are checked, executed and signed as by a node.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache

from msgspec.structs import replace
from nacl.signing import SigningKey

from flockchain.codec import Canonical, encode
from flockchain.crypto import address_of, sign, signing_context
from flockchain.execution.beacon import BeaconChain, get_beacon_head
from flockchain.execution.block import BlockOutcome, build_block, check_block, execute_block, get_validators
from flockchain.execution.fees import compute_min_fee_uflk
from flockchain.execution.genesis import build_state, load_state
from flockchain.execution.invariants import assert_all
from flockchain.genesis import Genesis, GenesisAccount, GenesisValidator, sign_possession
from flockchain.params import UFLK_PER_FLK, Params
from flockchain.txs import TYPES
from flockchain.types.chain import (
    EMPTY_COMMIT,
    PRECOMMIT,
    PROPOSAL_PURPOSE,
    TX_PURPOSE,
    VOTE_PURPOSE,
    Block,
    Commit,
    CommitSignature,
    ProposalBody,
    SignedProposal,
    SignedVote,
    VoteBody,
)
from flockchain.types.rows import Account, Chain, ValidatorRow
from flockchain.types.tx import OK, SignedTx, Tx, TxResult

GENESIS_TIME_MS = 1_700_000_000_000
ACCOUNTS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
BALANCE_UFLK = 100_000 * UFLK_PER_FLK
BOND_UFLK = 10_000 * UFLK_PER_FLK
BEACON_LINKS = 4096


@cache
def make_key(name: str) -> SigningKey:
    """The same key for a name in every run; ``val0`` ... are consensus keys, all others account keys."""
    return SigningKey(hashlib.sha256(b"test key " + name.encode()).digest())


@cache
def make_address(name: str) -> bytes:
    return address_of(bytes(make_key(name).verify_key))


@cache
def make_beacon_chain(name: str) -> BeaconChain:
    return BeaconChain(b"test beacon " + name.encode(), BEACON_LINKS)


def make_genesis(
    *,
    validators: int = 4,
    bonds_uflk: Sequence[int] = (),
    accounts: Iterable[str] = ACCOUNTS,
    balance_uflk: int = BALANCE_UFLK,
    params: Params | None = None,
    chain_id: str = "flock-test",
) -> Genesis:
    """Validator `val<i>` is owned by account `owner<i>`, which has the same balance as the named accounts."""
    names = [*accounts, *(f"owner{i}" for i in range(validators))]
    bonds = list(bonds_uflk) or [BOND_UFLK] * validators
    rows = [GenesisAccount(make_address(name), balance_uflk) for name in names]
    members = [
        GenesisValidator(
            owner=make_address(f"owner{i}"),
            public_key=bytes(make_key(f"val{i}").verify_key),
            possession=sign_possession(make_key(f"val{i}"), chain_id, make_address(f"owner{i}")),
            bond_uflk=bonds[i],
            beacon_head=make_beacon_chain(f"val{i}").head,
            name=f"val{i}",
        )
        for i in range(validators)
    ]
    return Genesis(
        chain_id=chain_id,
        time_ms=GENESIS_TIME_MS,
        params=params or Params(),
        accounts=tuple(sorted(rows, key=lambda row: row.address)),
        validators=tuple(sorted(members, key=lambda member: member.public_key)),
    )


class Ledger:
    """One chain, driven block by block; `check_all` (default) asserts every invariant after each."""

    def __init__(self, genesis: Genesis | None = None, *, check_all: bool = True, validator_names: int = 40) -> None:
        self.genesis = genesis or make_genesis()
        self.genesis_hash = self.genesis.hash()
        self.state, self.tree = load_state(build_state(self.genesis).rows())
        self.blocks: list[Block] = []
        self.commits: list[Commit] = [EMPTY_COMMIT]
        self.outcomes: list[BlockOutcome] = []
        self.check_all = check_all
        self._validator_names = {make_address(f"val{i}"): f"val{i}" for i in range(validator_names)}
        self._beacons: dict[bytes, BeaconChain] = {}
        self._nonces: dict[str, int] = {}

    # Reading

    @property
    def chain(self) -> Chain:
        return self.state.get(Chain)

    def address(self, name: str) -> bytes:
        return make_address(name)

    def account(self, name: str) -> Account:
        return self.state.find(Account, make_address(name)) or Account(make_address(name), 0, 0)

    def balance(self, name: str) -> int:
        return self.account(name).balance_uflk

    def validator(self, name: str) -> ValidatorRow:
        return self.state.get(ValidatorRow, make_address(name))

    # Signing

    def tx(
        self,
        sender: str,
        body: Canonical,
        *,
        kind: str | None = None,
        fee_uflk: int | None = None,
        nonce: int | None = None,
        expires_ms: int | None = None,
        chain_id: str | None = None,
        key: SigningKey | None = None,
    ) -> bytes:
        """Signed bytes. Defaults: the kind with this body, the next nonce not used by `tx`, the least fee."""
        if kind is None:
            kind = next(name for name, tx_type in TYPES.items() if tx_type.body is type(body))
        if nonce is None:
            nonce = max(self.account(sender).nonce, self._nonces.get(sender, 0))
            self._nonces[sender] = nonce + 1
        tx = Tx(
            chain_id=self.chain.chain_id if chain_id is None else chain_id,
            kind=kind,
            sender=make_address(sender),
            nonce=nonce,
            fee_uflk=10_000 if fee_uflk is None else fee_uflk,
            expires_ms=self.chain.time_ms + 600_000 if expires_ms is None else expires_ms,
            body=encode(body),
        )
        if fee_uflk is None:
            size = len(self.sign_tx(sender, tx, key))
            tx = replace(tx, fee_uflk=compute_min_fee_uflk(self.chain.params.fees, size + 8))
        return self.sign_tx(sender, tx, key)

    def sign_tx(self, sender: str, tx: Tx, key: SigningKey | None = None) -> bytes:
        key = key or make_key(sender)
        context = signing_context(TX_PURPOSE, self.genesis_hash)
        return encode(SignedTx(tx, bytes(key.verify_key), sign(key, context, encode(tx))))

    def sign_vote(self, validator: str, body: VoteBody) -> SignedVote:
        signature = sign(make_key(validator), signing_context(VOTE_PURPOSE, self.genesis_hash), encode(body))
        return SignedVote(body, make_address(validator), signature)

    def sign_proposal(self, validator: str, body: ProposalBody) -> SignedProposal:
        signature = sign(make_key(validator), signing_context(PROPOSAL_PURPOSE, self.genesis_hash), encode(body))
        return SignedProposal(body, make_address(validator), signature)

    def sign_commit(self, block: Block, *, absent: Iterable[str] = (), round: int = 0) -> Commit:
        """Precommits of the whole set but those named."""
        away = {make_address(name) for name in absent}
        body = VoteBody(PRECOMMIT, block.height, round, block.block_id())
        members = [m.address for m in get_validators(self.state, block.height) if m.address not in away]
        signatures = tuple(
            CommitSignature(address, self.sign_vote(self._validator_names[address], body).signature)
            for address in members
        )
        return Commit(block.height, round, block.block_id(), signatures)

    def late_precommit(self, validator: str, height: int) -> SignedVote:
        body = VoteBody(PRECOMMIT, height, 0, self.blocks[height - 1].block_id())
        return self.sign_vote(validator, body)

    # Blocks

    def build(
        self,
        *txs: bytes,
        elapsed_ms: int = 1_000,
        proposer: str | None = None,
        late_precommits: Sequence[SignedVote] = (),
    ) -> Block:
        """The next block, by `proposer` or else by a member of the set in turn."""
        height = self.chain.height + 1
        members = [member.address for member in get_validators(self.state, height)]
        address = make_address(proposer) if proposer else members[height % len(members)]
        late = sorted(late_precommits, key=lambda vote: (vote.body.height, vote.validator))
        return build_block(
            self.state,
            proposer=address,
            time_ms=self.chain.time_ms + elapsed_ms,
            txs=txs,
            last_commit=self.commits[-1],
            late_precommits=late,
            beacon_preimage=self.beacon_preimage(address, height),
        )

    def beacon_preimage(self, address: bytes, height: int) -> bytes:
        beacon = self._beacons.setdefault(address, make_beacon_chain(self._validator_names[address]))
        preimage = beacon.find_preimage(get_beacon_head(self.state.get(ValidatorRow, address), height))
        assert preimage is not None, "use `BEACON_LINKS` for longer histories"
        return preimage

    def decide(self, block: Block, *, absent: Iterable[str] = ()) -> BlockOutcome:
        """Check, execute and certify a block; `absent` validators do not sign it."""
        check_block(self.state, block)
        outcome = execute_block(self.state, self.tree, block)
        self.blocks.append(block)
        self.outcomes.append(outcome)
        self.commits.append(self.sign_commit(block, absent=absent))
        if self.check_all:
            assert_all(self.state)
        return outcome

    def produce(
        self,
        *txs: bytes,
        elapsed_ms: int = 1_000,
        absent: Iterable[str] = (),
        proposer: str | None = None,
        late_precommits: Sequence[SignedVote] = (),
    ) -> BlockOutcome:
        """Build and decide the next block."""
        block = self.build(*txs, elapsed_ms=elapsed_ms, proposer=proposer, late_precommits=late_precommits)
        return self.decide(block, absent=absent)

    def skip(self, elapsed_ms: int, blocks: int = 1) -> None:
        """Empty blocks, `elapsed_ms` in all."""
        for _ in range(blocks):
            self.produce(elapsed_ms=elapsed_ms // blocks)

    def send(self, sender: str, body: Canonical, **options: int) -> TxResult:
        """A block with this one transaction; its result."""
        return self.produce(self.tx(sender, body, **options)).results[0]  # type: ignore[arg-type]

    def must(self, sender: str, body: Canonical, **options: int) -> TxResult:
        """As `send`, for a step of a story that we know to succeed."""
        result = self.send(sender, body, **options)
        assert result.code == OK, result.message
        return result
