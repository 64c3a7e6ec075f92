"""Two transactions of one sender for one training round that say different things.

They count whether a block holds them or not, and whatever their nonces: what is punished is the second signature,
for only who signs twice can show different people different things.
"""

from typing import Any

from flockchain.codec import Canonical, encode
from flockchain.crypto import address_of, is_signature_valid, signing_context
from flockchain.errors import Refused
from flockchain.execution.epochs import get_task_params
from flockchain.execution.evidence.offence import Offence, compute_offence_key
from flockchain.execution.rounds import get_freeze_height
from flockchain.execution.staking import make_task_target
from flockchain.execution.state import State
from flockchain.types.chain import TX_PURPOSE
from flockchain.types.rows import Chain, Task, TrainingRound
from flockchain.types.tx import SignedTx, Tx


class SignedPair(Canonical, frozen=True):
    """Sorted by hash, so that one pair has one form."""

    first: SignedTx
    second: SignedTx


def decode_pair(state: State, pair: SignedPair, kind: str) -> tuple[Any, Any]:
    """The bodies of both transactions, signed by one sender, of this kind and chain, for one training round.

    Raises `Refused`.
    """
    from flockchain.txs import get_type  # late: the type `slash` is built on this package

    first, second = _check_pair(state, pair, kind)
    one, other = get_type(kind).decode_body(first), get_type(kind).decode_body(second)
    if (one.task, one.round) != (other.task, other.round):
        raise Refused("bad-evidence", "the two transactions are for different training rounds: that is no offence")
    return one, other


def _check_pair(state: State, pair: SignedPair, kind: str) -> tuple[Tx, Tx]:
    if pair.first.hash() >= pair.second.hash():
        raise Refused("bad-evidence", "the transactions of an evidence differ and are sorted by hash")
    chain = state.get(Chain)
    context = signing_context(TX_PURPOSE, chain.genesis_hash)
    for signed in (pair.first, pair.second):
        tx = signed.tx
        if tx.kind != kind or tx.chain_id != chain.chain_id:
            raise Refused(
                "bad-evidence", f"a transaction of kind {tx.kind!r} for {tx.chain_id[:64]!r} proves nothing here"
            )
        is_own = address_of(signed.public_key) == tx.sender
        if not is_own or not is_signature_valid(signed.public_key, context, encode(tx), signed.signature):
            raise Refused("bad-signature", "a transaction of the evidence has a wrong key or signature")
    if pair.first.tx.sender != pair.second.tx.sender:
        raise Refused("bad-evidence", "the two transactions have different senders: that is no offence")
    return pair.first.tx, pair.second.tx


def make_pair_offence(state: State, kind: str, pair: SignedPair, number: int, round: int) -> Offence:
    """The offence against training round `round` of task `number`; one per sender, kind and round."""
    task, training = state.find(Task, number), state.find(TrainingRound, number, round)
    sender = pair.first.tx.sender
    if task is None or training is None:
        raise Refused("not-found", f"there is no training round {round} of task {number}")
    if sender not in training.trainers and all(seat.address != sender for seat in training.committee):
        raise Refused("not-drawn", f"the sender has no part in round {round} of task {number}: nothing to punish")
    cap = get_task_params(state, task).max_penalty_ppm
    return Offence(
        key=compute_offence_key(kind, sender, number, round),
        owner=sender,
        target=make_task_target(number),
        offence_ms=training.started_ms,
        as_of_height=get_freeze_height(state, training, sender),
        penalty_ppm=min(task.spec.penalties.double_ppm, cap),
        reason=f"signed two different {pair.first.tx.kind} transactions for round {round} of task {number}",
        task=number,
        round=round,
    )


def make_pair(one: SignedTx, other: SignedTx) -> SignedPair:
    """The evidence of two conflicting transactions, whichever came first."""
    first, second = sorted((one, other), key=SignedTx.hash)
    return SignedPair(first, second)
