"""Transactions as signed, and what they leave behind."""

from flockchain.codec import Canonical, encode
from flockchain.crypto import sha256
from flockchain.types.ids import Address, Ms, PublicKey, Signature, Slug, Text, Uflk, UInt

OK = "ok"


class Tx(Canonical, frozen=True):
    """The signed part. `body` is the canonical bytes of the struct that `flockchain/txs/<kind>.py` defines."""

    chain_id: str
    kind: Slug
    sender: Address
    nonce: UInt
    """Number of this sender's earlier transactions; each is used once, in order."""
    fee_uflk: Uflk
    expires_ms: Ms
    """Refused in blocks whose header time is later."""
    body: bytes


class SignedTx(Canonical, frozen=True):
    tx: Tx
    public_key: PublicKey
    signature: Signature

    def hash(self) -> bytes:
        return sha256(encode(self))


class TxResult(Canonical, frozen=True):
    """`code` is ``ok`` or the slug of the refusal; `message` is a sentence for people."""

    hash: bytes
    kind: Slug
    sender: Address
    code: Slug
    message: str
    fee_uflk: Uflk


class Amount(Canonical, frozen=True):
    name: Text
    value: int


class Receipt(Canonical, frozen=True):
    """The record that explains one reward, slash, refund or verdict.

    `facts` are the figures and thresholds behind it, by name, in the order they are read.
    """

    kind: Slug
    """reward, slash, refund, income, verdict, settlement, draw, jail ..."""
    account: Address
    amount_uflk: int
    task: UInt
    """0 where no task is concerned."""
    round: UInt
    reason: str
    facts: tuple[Amount, ...]
    evidence: bytes
    """Canonical bytes of what proves it, or empty."""
