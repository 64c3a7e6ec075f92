"""Sybils: one owner's stake under many accounts, so that caps per account do not bind it.

Source: Douceur, "The Sybil Attack", IPTPS 2002.
Knows: the task's minimum bond and its caps per account.
Formula: tickets = min(bond // min_bond, max_tickets) per account; k accounts with whole multiples of the minimum bond
keep every ticket. Splitting wins no ticket that the bond does not pay for: it only escapes the caps, and each account
is one more identity that a slash finds.
Made for: caps per account on tickets and seats (a third of the seats), and pay per head.
"""


def split_stake(bond_uflk: int, min_bond_uflk: int, max_tickets: int, accounts: int = 0) -> tuple[int, ...]:
    """Bonds that sum to `bond_uflk`, each of at least the minimum; 0 accounts: the fewest that lose no ticket.

    Whole tickets are dealt evenly, earlier accounts first; what is less than a ticket stays with the first account.
    Raises ValueError for a stake that the accounts cannot share.
    """
    if min_bond_uflk < 1 or max_tickets < 1 or accounts < 0:
        raise ValueError(
            f"minimum bond {min_bond_uflk}, {max_tickets} tickets, {accounts} accounts: give positive ones"
        )
    tickets, dust_uflk = divmod(bond_uflk, min_bond_uflk)
    wanted = accounts or -(-tickets // max_tickets)
    if not 0 < wanted <= tickets:
        raise ValueError(f"{bond_uflk} uflk are no {max(wanted, 1)} bonds of at least {min_bond_uflk}")
    each, more = divmod(tickets, wanted)
    bonds = [(each + (index < more)) * min_bond_uflk for index in range(wanted)]
    return (bonds[0] + dust_uflk, *bonds[1:])


def count_tickets(bonds_uflk: tuple[int, ...], min_bond_uflk: int, max_tickets: int) -> int:
    """Chances in a draw of all accounts together."""
    return sum(min(bond // min_bond_uflk, max_tickets) for bond in bonds_uflk)
