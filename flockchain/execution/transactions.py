"""The way of a transaction: decoded, its signature checked, paid for, applied under a savepoint.

`parse_tx` holds the rules that need no state but chain id, genesis hash and limits: a block with a transaction that
breaks one is invalid. The rules that need accounts leave a refused result instead, for they depend on what went before.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import msgspec

from flockchain.codec import decode, encode
from flockchain.crypto import address_of, format_address, is_signature_valid, sha256, signing_context
from flockchain.errors import Refused
from flockchain.execution.balances import get_account
from flockchain.execution.context import Context
from flockchain.execution.fees import check_fee
from flockchain.execution.state import State
from flockchain.params import FeeParams
from flockchain.txs import TxType, get_type
from flockchain.types.chain import TX_PURPOSE
from flockchain.types.rows import Account, Chain, FinalSet, TrainingRound
from flockchain.types.tx import OK, SignedTx, Tx, TxResult

MAX_NONCE_GAP = 64
"""A mempool may hold this many transactions ahead of an account's nonce."""


@dataclass(frozen=True, slots=True)
class ParsedTx:
    """A transaction that passed every stateless rule; `body` is the struct of its type."""

    hash: bytes
    tx: Tx
    type: TxType
    body: Any
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CheckedTx:
    """What the mempool needs to know of a transaction that it may hold."""

    hash: bytes
    sender: bytes
    nonce: int
    kind: str
    fee_uflk: int
    is_due: bool
    """Free, with the reserved lane, ordered by `deadline_ms`."""
    duty: tuple[int, int] | None
    """Task and training round in which it is due (0: the task's final set); None for a report and for all that pay."""
    deadline_ms: int
    """End of the phase in which it is due; the expiry for all others."""
    size_bytes: int
    expires_ms: int


def parse_tx(data: bytes, chain: Chain, verified: Container[bytes] = ()) -> ParsedTx:
    """The transaction of these bytes; raises `Refused` for a wrong form, chain, key, signature or body.

    `verified` holds hashes of transactions whose signature this node has already checked.
    """
    if len(data) > chain.params.consensus.max_tx_bytes:
        raise Refused(
            "tx-too-large", f"transaction of {len(data)} bytes exceeds {chain.params.consensus.max_tx_bytes} bytes"
        )
    signed = decode(SignedTx, data)
    tx = signed.tx
    if tx.chain_id != chain.chain_id:
        raise Refused("wrong-chain", f"transaction is for chain {tx.chain_id[:64]!r}, this is {chain.chain_id!r}")
    tx_type = get_type(tx.kind)
    if address_of(signed.public_key) != tx.sender:
        raise Refused(
            "wrong-key",
            f"the public key {signed.public_key.hex()} is not that of the sender {format_address(tx.sender)}",
        )
    tx_hash = sha256(data)
    if tx_hash not in verified:
        _check_signature(signed, chain)
    return ParsedTx(tx_hash, tx, tx_type, tx_type.decode_body(tx), len(data))


def decode_tx(data: bytes) -> ParsedTx:
    """As `parse_tx`, for a block that `check_block` has accepted: nothing is verified twice."""
    tx = decode(SignedTx, data).tx
    tx_type = get_type(tx.kind)
    return ParsedTx(sha256(data), tx, tx_type, tx_type.decode_body(tx), len(data))


def process_tx(context: Context, parsed: ParsedTx) -> TxResult:
    """Pay and apply. What is refused before the fee changes nothing; afterwards fee and nonce stay spent."""
    tx, state = parsed.tx, context.state
    try:
        fee = _pay(context, parsed)
    except Refused as refusal:
        return TxResult(parsed.hash, tx.kind, tx.sender, refusal.code, refusal.message, 0)
    savepoint, receipts = state.savepoint(), len(context.receipts)
    context.tx_hash = parsed.hash
    code, message = OK, ""
    try:
        parsed.type.apply(context, tx, parsed.body)
    except Refused as refusal:
        state.rollback(savepoint)
        del context.receipts[receipts:]
        code, message = refusal.code, refusal.message
    context.tx_hash = b""
    return TxResult(parsed.hash, tx.kind, tx.sender, code, message, fee)


def check_tx(state: State, tx_bytes: bytes, now_ms: int) -> CheckedTx:
    """Whether a mempool may hold it: everything but its application. Raises `Refused`."""
    chain = state.get(Chain)
    parsed = parse_tx(tx_bytes, chain)
    tx, account = parsed.tx, get_account(state, parsed.tx.sender)
    time_ms = max(now_ms, chain.time_ms)
    if tx.nonce < account.nonce:
        raise _nonce_refusal(account, tx)
    if tx.nonce > account.nonce + MAX_NONCE_GAP:
        raise Refused("nonce-gap", f"nonce {tx.nonce} is more than {MAX_NONCE_GAP} ahead of {account.nonce}")
    _check_expiry(chain.params.fees, tx, time_ms)
    is_due = parsed.type.is_due(state, tx, parsed.body)
    if not is_due:
        if tx.fee_uflk == 0:
            _explain_not_due(state, parsed, time_ms)
        check_fee(chain.params.fees, tx, parsed.size_bytes, account.balance_uflk)
    return CheckedTx(
        hash=parsed.hash,
        sender=tx.sender,
        nonce=tx.nonce,
        kind=tx.kind,
        fee_uflk=0 if is_due else tx.fee_uflk,
        is_due=is_due,
        duty=_get_duty(parsed) if is_due else None,
        deadline_ms=_get_deadline_ms(state, parsed) if is_due else tx.expires_ms,
        size_bytes=parsed.size_bytes,
        expires_ms=tx.expires_ms,
    )


def preview_tx(state: State, tx_bytes: bytes, now_ms: int, verified: Container[bytes] = ()) -> TxResult:
    """The result it would have if the next block held it alone; the state is unchanged. Raises `Refused`."""
    chain = state.get(Chain)
    parsed = parse_tx(tx_bytes, chain, verified)
    context = Context(state, chain.height + 1, max(now_ms, chain.time_ms + 1), proposer=b"")
    savepoint = state.savepoint()
    try:
        return process_tx(context, parsed)
    finally:
        state.rollback(savepoint)


def _explain_not_due(state: State, parsed: ParsedTx, time_ms: int) -> None:
    """Raise the reason for which a free transaction is not due, where it has one: more use than "fee too low"."""
    context = Context(state, state.get(Chain).height + 1, time_ms, proposer=b"")
    savepoint = state.savepoint()
    try:
        parsed.type.apply(context, parsed.tx, parsed.body)
    finally:
        state.rollback(savepoint)


def _check_signature(signed: SignedTx, chain: Chain) -> None:
    context = signing_context(TX_PURPOSE, chain.genesis_hash)
    if not is_signature_valid(signed.public_key, context, encode(signed.tx), signed.signature):
        raise Refused(
            "bad-signature",
            f"the signature is not by {format_address(signed.tx.sender)} for chain {chain.chain_id!r} "
            f"with genesis {chain.genesis_hash.hex()[:16]}...",
        )


def _pay(context: Context, parsed: ParsedTx) -> int:
    """Check expiry, nonce and fee; take the fee and spend the nonce. Returns the fee in uflk."""
    tx, state, params = parsed.tx, context.state, context.params.fees
    _check_expiry(params, tx, context.time_ms)
    account = get_account(state, tx.sender)
    if tx.nonce != account.nonce:
        raise _nonce_refusal(account, tx)
    fee = 0
    if not parsed.type.is_due(state, tx, parsed.body):
        check_fee(params, tx, parsed.size_bytes, account.balance_uflk)
        fee = tx.fee_uflk
    context.fees_uflk += fee
    paid = msgspec.structs.replace(account, balance_uflk=account.balance_uflk - fee, nonce=account.nonce + 1)
    state.put(paid)
    return fee


def _check_expiry(params: FeeParams, tx: Tx, time_ms: int) -> None:
    if tx.expires_ms < time_ms:
        raise Refused("expired", f"transaction expired at {tx.expires_ms} ms, the block's time is {time_ms} ms")
    if tx.expires_ms > time_ms + params.max_expiry_ms:
        raise Refused(
            "expiry-too-far",
            f"transaction expires at {tx.expires_ms} ms, at most {params.max_expiry_ms} ms after the block's time "
            f"of {time_ms} ms is possible",
        )


def _nonce_refusal(account: Account, tx: Tx) -> Refused:
    word = "spent" if tx.nonce < account.nonce else "ahead"
    return Refused(f"nonce-{word}", f"nonce {tx.nonce} is {word}: the next of this account is {account.nonce}")


def _get_duty(parsed: ParsedTx) -> tuple[int, int] | None:
    """The task and training round that the body names; round 0: the task's final set."""
    task = getattr(parsed.body, "task", None)
    return (task, getattr(parsed.body, "round", 0)) if task is not None else None


def _get_deadline_ms(state: State, parsed: ParsedTx) -> int:
    """End of the phase of the training round, or of the final set, that the body names; else the expiry."""
    duty = _get_duty(parsed)
    if duty is None:
        return parsed.tx.expires_ms
    place = state.find(TrainingRound, *duty) or state.find(FinalSet, duty[0])
    return place.deadline_ms if place else parsed.tx.expires_ms
