"""The block that this validator proposes: what waits in the mempool, within the chain's limits."""

from flockchain.codec import encode
from flockchain.errors import Refused
from flockchain.execution.beacon import get_beacon_head
from flockchain.execution.block import build_block
from flockchain.node.late_precommits import LatePrecommits
from flockchain.node.ledger import Ledger
from flockchain.node.mempool import Mempool
from flockchain.node.ports import Signer
from flockchain.types.chain import Block
from flockchain.types.rows import ValidatorRow

TX_OVERHEAD_BYTES = 5
"""Longest MessagePack header of a transaction within the block's list."""
HEADER_ROOM_BYTES = 4_096


def build_next_block(ledger: Ledger, mempool: Mempool, late: LatePrecommits, signer: Signer, now_ms: int) -> Block:
    """A block that `check_block` accepts; raises `Refused` when our beacon chain does not fit the registered head."""
    params = ledger.params.consensus
    last_commit, late_precommits = late.fill_commit(ledger.last_commit), late.for_next_block()
    room = params.max_block_bytes - HEADER_ROOM_BYTES - len(encode((last_commit, late_precommits)))
    txs = mempool.reap(
        room - TX_OVERHEAD_BYTES * min(len(mempool), params.max_block_txs), params.max_block_txs, ledger.next_nonce
    )
    validator = ledger.state.get(ValidatorRow, signer.address)
    preimage = signer.reveal_beacon(get_beacon_head(validator, ledger.height + 1))
    if preimage is None:
        raise Refused("beacon-lost", "the registered beacon head is not of this key's chain, or the chain is used up")
    return build_block(
        ledger.state,
        proposer=signer.address,
        time_ms=max(now_ms, ledger.chain.time_ms + 1),
        txs=txs,
        last_commit=last_commit,
        late_precommits=late_precommits,
        beacon_preimage=preimage,
    )
