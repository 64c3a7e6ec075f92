"""An attempt as signed bytes: mostly as meant, some wrong in sender, payment or form, as any type can be."""

from collections.abc import Callable

from msgspec.structs import replace

from flockchain.codec import decode, encode
from flockchain.txs import TYPES
from flockchain.types.tx import SignedTx, Tx
from tests.ledger.dice import Dice
from tests.ledger.rules import Attempt
from tests.ledger.world import World
from tests.support.ledger import make_address, make_key

EXPIRY_MS = 600_000


def sign_attempt(world: World, dice: Dice, kind: str, attempt: Attempt) -> bytes:
    """One in ten comes from another sender; one in sixteen is wrong in payment, one in sixteen in form."""
    sender = dice.pick(world.actors) if dice.is_one_in(10) else attempt.sender
    tx = _make_tx(world, kind, sender, encode(attempt.body))
    if dice.is_one_in(16):
        tx = dice.pick(_PAYMENTS)(tx)
    if dice.is_one_in(16):
        return dice.pick(_FORMS)(world, dice, sender, tx)
    return world.ledger.sign_tx(sender, tx)


def sign_plainly(world: World, kind: str, attempt: Attempt) -> bytes:
    return world.ledger.sign_tx(attempt.sender, _make_tx(world, kind, attempt.sender, encode(attempt.body)))


def _make_tx(world: World, kind: str, sender: str, body: bytes) -> Tx:
    chain, nonce = world.ledger.chain, world.account(sender).nonce
    fees = chain.params.fees
    fee = fees.min_fee_uflk + fees.fee_per_byte_uflk * (len(body) + 400)
    return Tx(chain.chain_id, kind, make_address(sender), nonce, fee, world.time_ms + EXPIRY_MS, body)


_PAYMENTS: tuple[Callable[[Tx], Tx], ...] = (
    lambda tx: replace(tx, nonce=tx.nonce + 1),
    lambda tx: replace(tx, nonce=max(tx.nonce - 1, 0)),
    lambda tx: replace(tx, fee_uflk=0),
    lambda tx: replace(tx, fee_uflk=2**60),
    lambda tx: replace(tx, expires_ms=tx.expires_ms - EXPIRY_MS - 1),
    lambda tx: replace(tx, expires_ms=tx.expires_ms + 10 * EXPIRY_MS),
)


def _sign_wrongly(world: World, dice: Dice, sender: str, tx: Tx) -> bytes:
    signed = decode(SignedTx, world.ledger.sign_tx(sender, tx))
    return encode(replace(signed, signature=signed.signature[::-1]))


def _sign_with_foreign_key(world: World, dice: Dice, sender: str, tx: Tx) -> bytes:
    return world.ledger.sign_tx(sender, tx, make_key("stranger"))


def _move_to_other_chain(world: World, dice: Dice, sender: str, tx: Tx) -> bytes:
    return world.ledger.sign_tx(sender, replace(tx, chain_id="other"))


def _take_other_kind(world: World, dice: Dice, sender: str, tx: Tx) -> bytes:
    return world.ledger.sign_tx(sender, replace(tx, kind=dice.pick([*TYPES, "mint"])))


def _flip_body(world: World, dice: Dice, sender: str, tx: Tx) -> bytes:
    """One byte of the body changed before signing: another value, or no value."""
    body = bytearray(tx.body)
    body[dice.below(len(body))] = dice.below(256)
    return world.ledger.sign_tx(sender, replace(tx, body=bytes(body)))


def _cut(world: World, dice: Dice, sender: str, tx: Tx) -> bytes:
    data = world.ledger.sign_tx(sender, tx)
    return data[: dice.below(len(data))]


_FORMS = (_sign_wrongly, _sign_with_foreign_key, _move_to_other_chain, _take_other_kind, _flip_body, _cut)
