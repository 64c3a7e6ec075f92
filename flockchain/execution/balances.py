"""Money moves: every uflk is in an account, a bond, an unbonding, a pool or a deposit, and moves between them here."""

import msgspec

from flockchain.errors import Refused
from flockchain.execution.state import State
from flockchain.types.rows import Account, Chain


def get_account(state: State, address: bytes) -> Account:
    """The account, or an empty one for an address that the chain has not met."""
    return state.find(Account, address) or Account(address, 0, 0)


def check_balance(state: State, address: bytes, amount_uflk: int, purpose: str) -> None:
    """Refuse when `address` cannot pay `amount_uflk` for `purpose` (a noun phrase, for the sentence)."""
    balance = get_account(state, address).balance_uflk
    if amount_uflk > balance:
        raise Refused("insufficient-balance", f"{purpose} of {amount_uflk} uflk exceeds balance of {balance} uflk")


def increase_balance(state: State, address: bytes, amount_uflk: int) -> None:
    assert amount_uflk >= 0
    account = get_account(state, address)
    state.put(msgspec.structs.replace(account, balance_uflk=account.balance_uflk + amount_uflk))


def decrease_balance(state: State, address: bytes, amount_uflk: int) -> None:
    """Callers have checked the balance."""
    assert amount_uflk >= 0
    account = get_account(state, address)
    assert account.balance_uflk >= amount_uflk
    state.put(msgspec.structs.replace(account, balance_uflk=account.balance_uflk - amount_uflk))


def increase_community_pool(state: State, amount_uflk: int) -> None:
    assert amount_uflk >= 0
    chain = state.get(Chain)
    state.put(msgspec.structs.replace(chain, community_pool_uflk=chain.community_pool_uflk + amount_uflk))
