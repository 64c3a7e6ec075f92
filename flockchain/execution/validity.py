"""Whether a block may follow the state: every rule but the clock's, which is the node's business."""

from collections.abc import Container

from flockchain.codec import encode
from flockchain.crypto import format_address, sha256
from flockchain.errors import Refused
from flockchain.execution.beacon import check_beacon
from flockchain.execution.commits import check_commit, check_vote_signature
from flockchain.execution.epochs import get_protocol_version
from flockchain.execution.state import State
from flockchain.execution.transactions import parse_tx
from flockchain.execution.validators import compute_validators_hash, get_validators
from flockchain.merkle import compute_root
from flockchain.types.chain import EMPTY_COMMIT, PRECOMMIT, Block, Commit, Header, SignedVote
from flockchain.types.rows import Chain, RecentBlock, ValidatorRow


def check_block(
    state: State, block: Block, verified: Container[bytes] = (), known_commit: Commit = EMPTY_COMMIT
) -> None:
    """Refuse a block that may not follow `state`; cheap rules first, signatures last.

    What this node has checked before is not checked again: `verified` holds hashes of transactions whose signature
    is good (its mempool's), `known_commit` signatures of the last commit.
    """
    chain = state.get(Chain)
    _check_limits(chain, block)
    _check_place(state, chain, block.header)
    _check_links(state, chain, block)
    check_beacon(state.get(ValidatorRow, block.header.proposer), block.height, block.header.beacon_preimage)
    last = get_validators(state, chain.height) if chain.height else ()
    check_commit(block.last_commit, last, chain.height, chain.last_block_id, chain.genesis_hash, known_commit)
    _check_late_precommits(state, chain, block.late_precommits)
    for data in block.txs:
        parse_tx(data, chain, verified)


def compute_last_commit_hash(last_commit: Commit, late_precommits: tuple[SignedVote, ...]) -> bytes:
    return sha256(encode((last_commit, late_precommits)))


def _check_limits(chain: Chain, block: Block) -> None:
    params = chain.params.consensus
    if len(block.txs) > params.max_block_txs:
        raise Refused("block-too-large", f"{len(block.txs)} transactions exceed max_block_txs {params.max_block_txs}")
    size = len(encode(block))
    if size > params.max_block_bytes:
        raise Refused("block-too-large", f"block of {size} bytes exceeds max_block_bytes {params.max_block_bytes}")


def _check_place(state: State, chain: Chain, header: Header) -> None:
    """Version, chain, height, time and proposer."""
    version = get_protocol_version(state)
    if header.protocol_version != version:
        raise Refused("bad-header", f"protocol version {header.protocol_version}, from here on it is {version}")
    if header.chain_id != chain.chain_id:
        raise Refused("bad-header", f"block is for chain {header.chain_id[:64]!r}, this is {chain.chain_id!r}")
    if header.height != chain.height + 1:
        raise Refused("bad-header", f"height {header.height} does not follow {chain.height}")
    if header.time_ms <= chain.time_ms:
        raise Refused("bad-header", f"time {header.time_ms} ms is not after the last block's {chain.time_ms} ms")
    if all(member.address != header.proposer for member in get_validators(state, header.height)):
        name = format_address(header.proposer)
        raise Refused("bad-header", f"proposer {name} is no validator of height {header.height}")


def _check_links(state: State, chain: Chain, block: Block) -> None:
    """Every hash that the header commits to."""
    header = block.header
    expected = {
        "last_block_id": chain.last_block_id,
        "last_commit_hash": compute_last_commit_hash(block.last_commit, block.late_precommits),
        "txs_root": compute_root(block.txs),
        "prev_results_root": chain.results_root,
        "prev_state_root": state.root,
        "validators_hash": compute_validators_hash(get_validators(state, header.height)),
        "next_validators_hash": compute_validators_hash(get_validators(state, header.height + 1)),
        "params_hash": chain.params.hash(),
    }
    for name, value in expected.items():
        found: bytes = getattr(header, name)
        if found != value:
            raise Refused("bad-header", f"{name} is {found.hex()}, expected {value.hex()}")


def _check_late_precommits(state: State, chain: Chain, votes: tuple[SignedVote, ...]) -> None:
    """Each clears the absence of one member from one recent block; sorted by (height, validator), none twice."""
    places = [(vote.body.height, vote.validator) for vote in votes]
    if places != sorted(set(places)):
        raise Refused("bad-late-precommit", "late precommits are sorted by height and validator, none twice")
    for vote in votes:
        height, name = vote.body.height, format_address(vote.validator)
        recent = state.find(RecentBlock, height)
        if recent is None or height + chain.params.consensus.late_precommit_blocks <= chain.height:
            raise Refused("bad-late-precommit", f"no late precommit counts for height {height} after {chain.height}")
        if vote.body.kind != PRECOMMIT or vote.body.block_id != recent.block_id:
            raise Refused("bad-late-precommit", f"the vote of {name} is no precommit for the block of height {height}")
        if all(signer.validator != vote.validator for signer in recent.absent):
            raise Refused("bad-late-precommit", f"{name} is not missing from the commit of height {height}")
        check_vote_signature(vote, state.get(ValidatorRow, vote.validator).public_key, chain.genesis_hash)
