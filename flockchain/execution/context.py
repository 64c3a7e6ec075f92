"""What one step of the transition works with: the state, the block's place in time, and the receipts it leaves."""

from dataclasses import dataclass, field

from flockchain.execution.state import State
from flockchain.params import Params
from flockchain.types.rows import Chain
from flockchain.types.tx import Amount, Receipt


@dataclass(slots=True)
class Context:
    """One block being executed. `time_ms` is the header's time: the only clock execution knows."""

    state: State
    height: int
    time_ms: int
    proposer: bytes
    tx_hash: bytes = b""
    """Of the transaction being applied."""
    fees_uflk: int = 0
    """Fees of this block so far; they enter the fee pool once, at its end."""
    is_set_stale: bool = False
    """A bond, jail or tombstone changed: the next validator set must be computed anew."""
    touched_tasks: set[int] = field(default_factory=set)
    """Tasks whose bonds changed in this block: whether enough have enrolled is looked at again."""
    touched_changes: set[int] = field(default_factory=set)
    """Changes of parameters or protocol version that were approved by someone in this block: they are counted."""
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def chain(self) -> Chain:
        return self.state.get(Chain)

    @property
    def params(self) -> Params:
        return self.chain.params

    def add_receipt(
        self,
        kind: str,
        account: bytes,
        amount_uflk: int,
        reason: str,
        *,
        task: int = 0,
        round: int = 0,
        evidence: bytes = b"",
        **facts: int,
    ) -> None:
        """Record why something was paid, taken or decided; `facts` keep the order in which they are given."""
        amounts = tuple(Amount(name, value) for name, value in facts.items())
        self.receipts.append(Receipt(kind, account, amount_uflk, task, round, reason, amounts, evidence))
