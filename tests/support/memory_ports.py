"""`Store`, `Signer` and `Blobs` in memory, with the same rules as the real ones."""

from collections.abc import Iterable, Iterator, Sequence

from nacl.signing import SigningKey

from flockchain.chunks import CHUNK_BYTES, count_chunks
from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import address_of, sign, signing_context
from flockchain.errors import Refused
from flockchain.execution.beacon import BeaconChain
from flockchain.execution.block import BlockOutcome
from flockchain.merkle import compute_proof, hash_leaf, is_proof_valid
from flockchain.node.ports import Decided
from flockchain.types.chain import (
    PROPOSAL_PURPOSE,
    TX_PURPOSE,
    VOTE_PURPOSE,
    Block,
    Commit,
    ProposalBody,
    SignedProposal,
    SignedVote,
    Validator,
    VoteBody,
)
from flockchain.types.light import LightBlock
from flockchain.types.rows import Row, ValidatorSet, row_key
from flockchain.types.tx import SignedTx, Tx


class MemoryStore:
    """Blocks and rows as bytes, so that nothing is shared by accident."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows: dict[bytes, tuple[type[Row], bytes]] = {row_key(row): (type(row), encode(row)) for row in rows}
        self._blocks: list[tuple[bytes, bytes]] = []
        self.state_roots: list[bytes] = []
        self.pruned_below = 1
        """A test's way to let the store forget: blocks of lower heights are not given out."""
        self._sets = {row.height: row for row in self.load_rows() if isinstance(row, ValidatorSet)}
        """Every set ever: the state forgets them."""

    @property
    def height(self) -> int:
        return len(self._blocks)

    def block(self, height: int) -> Block | None:
        return decode(Block, self._blocks[height - 1][0]) if self.pruned_below <= height <= self.height else None

    def commit(self, height: int) -> Commit | None:
        return decode(Commit, self._blocks[height - 1][1]) if self.pruned_below <= height <= self.height else None

    @property
    def first_height(self) -> int:
        return min(self.pruned_below, self.height)

    def light_block(self, height: int) -> LightBlock | None:
        block, commit = self.block(height), self.commit(height)
        if block is None or commit is None:
            return None
        sets = [
            tuple(Validator(m.address, m.public_key, m.power) for m in self._sets[at].members)
            for at in (height, height + 1)
        ]
        return LightBlock(block.header, commit, *sets)

    def load_rows(self) -> Iterator[Row]:
        for key in sorted(self._rows):
            kind, data = self._rows[key]
            yield decode(kind, data)

    def persist_blocks(self, decided: Sequence[Decided]) -> None:
        for block, commit, outcome in decided:
            self._persist(block, commit, outcome)

    def _persist(self, block: Block, commit: Commit, outcome: BlockOutcome) -> None:
        assert block.height == self.height + 1
        assert commit.block_id == block.block_id()
        self._blocks.append((encode(block), encode(commit)))
        self.state_roots.append(outcome.state_root)
        for key, row in outcome.write_set.items():
            if isinstance(row, ValidatorSet):
                self._sets[row.height] = row
            if row is None:
                self._rows.pop(key)
            else:
                self._rows[key] = (type(row), encode(row))

    def close(self) -> None:
        pass


class MemorySigner:
    """Survives a simulated crash, as the file of the real one does."""

    def __init__(self, key: SigningKey, genesis_hash: bytes, beacon: BeaconChain) -> None:
        self._key = key
        self._genesis_hash = genesis_hash
        self._beacon = beacon
        self._signed: dict[tuple[int, int, int], tuple[bytes, bytes]] = {}
        self.public_key = bytes(key.verify_key)
        self.address = address_of(self.public_key)

    def sign_vote(self, body: VoteBody) -> SignedVote:
        return SignedVote(body, self.address, self._sign(VOTE_PURPOSE, (body.height, body.round, body.kind), body))

    def sign_proposal(self, body: ProposalBody) -> SignedProposal:
        return SignedProposal(body, self.address, self._sign(PROPOSAL_PURPOSE, (body.height, body.round, 0), body))

    def sign_tx(self, tx: Tx) -> SignedTx:
        context = signing_context(TX_PURPOSE, self._genesis_hash)
        return SignedTx(tx, self.public_key, sign(self._key, context, encode(tx)))

    def reveal_beacon(self, head: bytes) -> bytes | None:
        return self._beacon.find_preimage(head)

    def _sign(self, purpose: str, slot: tuple[int, int, int], body: Canonical) -> bytes:
        message = encode(body)
        if slot in self._signed:
            if self._signed[slot][0] != message:
                raise Refused("double-sign", f"another value was signed at height {slot[0]}, round {slot[1]}")
        elif self._signed and slot < max(self._signed):
            raise Refused("double-sign", f"already signed beyond height {slot[0]}, round {slot[1]}")
        else:
            signature = sign(self._key, signing_context(purpose, self._genesis_hash), message)
            self._signed[slot] = (message, signature)
        return self._signed[slot][1]


class MemoryBlobs:
    """Files as bytes."""

    def __init__(self) -> None:
        self._expected: dict[bytes, int] = {}
        self._chunks: dict[bytes, dict[int, bytes]] = {}

    def expect(self, root: bytes, size_bytes: int) -> None:
        self._expected[root] = size_bytes
        self._chunks.setdefault(root, {})

    def has(self, root: bytes) -> bool:
        return root in self._expected and len(self._chunks[root]) == count_chunks(self._expected[root])

    def missing(self, root: bytes) -> Sequence[int]:
        held = self._chunks[root]
        return [index for index in range(count_chunks(self._expected[root])) if index not in held]

    def put_chunk(self, root: bytes, index: int, data: bytes, proof: Iterable[bytes]) -> None:
        if root not in self._expected:
            raise Refused("not-expected", f"{root.hex()} was not announced")
        if not is_proof_valid(root, hash_leaf(data), index, count_chunks(self._expected[root]), tuple(proof)):
            raise Refused("bad-chunk", f"chunk {index} does not belong to {root.hex()}")
        self._chunks[root][index] = data

    def chunk(self, root: bytes, index: int) -> tuple[bytes, Sequence[bytes]]:
        if not self.has(root) or index not in self._chunks[root]:
            raise Refused("no-blob", f"{root.hex()} is not here")
        hashes = [hash_leaf(self._chunks[root][i]) for i in range(len(self._chunks[root]))]
        return self._chunks[root][index], compute_proof(hashes, index)

    def put_bytes(self, root: bytes, data: bytes) -> None:
        """A client's upload."""
        self.expect(root, len(data))
        for index in range(count_chunks(len(data))):
            self._chunks[root][index] = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
