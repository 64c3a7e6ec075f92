"""The real execution as the simulator's application: blocks with transfers, checked, executed and hashed."""

from functools import cache

from flockchain.codec import decode, encode
from flockchain.errors import Refused
from flockchain.execution.block import check_block
from flockchain.genesis import Genesis
from flockchain.txs import transfer
from flockchain.types.chain import Block

from ..support.ledger import Ledger, make_address, make_genesis


@cache
def genesis_of(n: int) -> Genesis:
    """One genesis document for all replicas of a network."""
    return make_genesis(validators=n)


class ChainApp:
    """One replica's ledger. It proposes as validator `val<i>`, the equivocator's copy as the last one."""

    def __init__(self, n: int, name: str) -> None:
        self._ledger = Ledger(genesis_of(n), check_all=False)
        self._validator = f"val{n - 1}" if name == "forger" else f"val{name.removeprefix('node')}"
        self._built = 0
        self._verdicts: dict[tuple[int, bytes], bool] = {}

    def build(self, height: int, round: int) -> bytes:
        assert height == self._ledger.chain.height + 1
        self._built += 1
        payment = transfer.Body(make_address("bob"), self._built, self._validator)
        data = self._ledger.tx("alice", payment, nonce=self._ledger.account("alice").nonce)
        return encode(self._ledger.build(data, proposer=self._validator, elapsed_ms=self._built))

    def validate(self, height: int, value: bytes) -> bool:
        key = (height, value)
        if key not in self._verdicts:
            self._verdicts[key] = self._is_next(height, value)
        return self._verdicts[key]

    def decide(self, height: int, value: bytes) -> None:
        outcome = self._ledger.decide(decode(Block, value))
        assert [result.code for result in outcome.results] == ["ok"]

    def state_root(self, height: int) -> bytes:
        return self._ledger.outcomes[height - 1].state_root

    def _is_next(self, height: int, value: bytes) -> bool:
        assert height == self._ledger.chain.height + 1
        try:
            check_block(self._ledger.state, decode(Block, value))
        except Refused:
            return False
        return True
