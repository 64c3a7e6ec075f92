"""What delegates and delegators try: an offer of a share, stake on another's bond, out of it, and what it earned."""

from flockchain.codec import Canonical
from flockchain.txs import claim_rewards, edit_validator, stake, unstake
from flockchain.types.delegation import compute_worth_uflk
from flockchain.types.rows import Delegation, DelegationPool, Stake, ValidatorRow
from tests.ledger.dice import Dice
from tests.ledger.world import World

FLK = 1_000_000
Attempt = tuple[str, Canonical]
"""Sender and body, as in `rules.py`."""
SHARES_PPM = (500_000, 900_000, 100_000, 0, 1_000_000, 1_000_001)


def offer_share(world: World, dice: Dice) -> Attempt:
    """A bond is topped up, and others are offered a share of what it earns."""
    bond = dice.pick([row for row in world.state.iterate(Stake) if row.owner in world.names])
    target, key = bond.target, b""
    if target.startswith("validator:"):
        target = "validator"
        key = world.state.get(ValidatorRow, bytes.fromhex(bond.target.partition(":")[2])).public_key
    body = stake.Body(target, 10 * FLK, public_key=key, share_ppm=dice.pick(SHARES_PPM))
    return world.names[bond.owner], body


def change_share(world: World, dice: Dice, validator: ValidatorRow) -> Attempt:
    body = edit_validator.Body(validator.address, "", b"", dice.pick(SHARES_PPM))
    return world.names[validator.owner], body


def delegate(world: World, dice: Dice) -> Attempt:
    """To a bond that takes delegations, or, wrongly, to any other."""
    sender, pools = dice.pick(world.actors), list(world.state.iterate(DelegationPool))
    bonds = [(row.owner, row.target) for row in world.state.iterate(Stake)]
    offers = [(pool.delegate, pool.target) for pool in pools]
    owner, target = dice.pick(bonds if not offers or dice.is_one_in(8) else offers)
    amount = dice.pick([10 * FLK, 3 * FLK + 7, 2_000 * FLK, 1, 90_000 * FLK])
    return sender, stake.Body(target, amount, delegate=owner)


def undelegate(world: World, dice: Dice) -> Attempt | None:
    """All that the shares are worth, a part, a rest below the minimum, too much; None: nobody has delegated."""
    row = _pick_delegation(world, dice)
    if row is None:
        return None
    worth = compute_worth_uflk(world.state.get(DelegationPool, row.delegate, row.target), row.shares)
    amount = dice.pick([worth, worth // 2, worth // 3, worth - 1, worth + 1])
    return world.names[row.delegator], unstake.Body(row.target, max(amount, 0), row.delegate)


def claim_earned(world: World, dice: Dice) -> Attempt | None:
    row = _pick_delegation(world, dice)
    if row is None:
        return None
    return world.names[row.delegator], claim_rewards.Body(delegate=row.delegate, target=row.target)


def _pick_delegation(world: World, dice: Dice) -> Delegation | None:
    rows = [row for row in world.state.iterate(Delegation) if row.delegator in world.names]
    return dice.pick(rows) if rows else None
