"""`transfer`: move money to another account."""

from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.execution.balances import check_balance, decrease_balance, increase_balance
from flockchain.execution.context import Context
from flockchain.types.ids import Address, Text, Uflk
from flockchain.types.tx import Tx

KIND = "transfer"


class Body(Canonical, frozen=True):
    to: Address
    amount_uflk: Uflk
    memo: Text


def check(body: Body, tx: Tx) -> None:
    if body.amount_uflk == 0:
        raise Refused("zero-amount", "a transfer moves at least 1 uflk")


def apply(context: Context, tx: Tx, body: Body) -> None:
    check_balance(context.state, tx.sender, body.amount_uflk, "transfer")
    decrease_balance(context.state, tx.sender, body.amount_uflk)
    increase_balance(context.state, body.to, body.amount_uflk)
