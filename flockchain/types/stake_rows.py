"""Rows of accounts, validators, what is bonded and delegated, and who was absent or signed twice."""

from flockchain.codec import Canonical
from flockchain.types.ids import Address, Hash, Ms, OptionalAddress, OptionalHash, Ppm, PublicKey, Text, Uflk, UInt
from flockchain.types.task import Holdout


class Account(Canonical, frozen=True):
    address: Address
    balance_uflk: Uflk
    nonce: UInt


class ValidatorRow(Canonical, frozen=True):
    """A staked consensus identity. Its bond is `Stake(owner, "validator:<address hex>")`."""

    address: Address
    """Of the consensus key; a key serves one validator, once."""
    owner: Address
    public_key: PublicKey
    name: Text
    bond_uflk: Uflk
    """Its owner's own bond."""
    active: bool
    """Has power in the newest set."""
    jailed_until_ms: Ms
    """0 when not jailed; `unjail` is possible from this time on."""
    tombstoned: bool
    beacon_head: Hash
    """Head of its sha256 chain: the next preimage p satisfies sha256(p) == head."""
    next_beacon_head: OptionalHash
    """Registered with `edit-validator`, in force from `next_beacon_height` on; empty: none."""
    next_beacon_height: UInt
    joined_height: UInt
    income_uflk: Uflk
    """Earned by the owner, to be taken with `claim-rewards`; what its delegators earned is in their pool."""
    delegated_uflk: Uflk = 0
    """In the pool of its delegators; counts for power up to `max_delegated_multiple` times `bond_uflk`."""


class UnbondingRef(Canonical, frozen=True):
    """Points from a bond to one of its entries in the unbonding queue, so that slashing never scans the queue."""

    release_ms: Ms
    sequence: UInt


class Lot(Canonical, frozen=True):
    """Part of a bond that came in lately, told apart so that an older offence does not touch it."""

    height: UInt
    """Of the block in which it came."""
    time_ms: Ms
    amount: UInt
    """uflk of a bond or an unbonding entry, shares of a delegation."""


class Stake(Canonical, frozen=True):
    """A bond of `owner` in `target`: ``validator:<consensus address hex>`` or ``task:<id>``."""

    owner: Address
    target: str
    amount_uflk: Uflk
    role: str
    """trainer or voter for a task bond, empty for a validator bond."""
    holdouts: tuple[Holdout, ...]
    leaving: bool
    """`leave-task` was sent: not drawn again."""
    offences: UInt
    since_ms: Ms
    unbonding: tuple[UnbondingRef, ...] = ()
    """What is on its way out, oldest first; the row stays until it is empty and nothing is bonded."""
    missed_rounds: UInt = 0
    """Training rounds in a row for which this trainer was drawn and did not submit."""
    benched_until_round: UInt = 0
    """Jailed in the task: not drawn for training rounds with a lower number."""
    recent: tuple[Lot, ...] = ()
    """What of the amount came in lately, oldest first."""


class DelegationPool(Canonical, frozen=True):
    """What others delegated to the bond of `delegate` in `target`, held in shares, and what it earned for them.

    A share is worth `amount_uflk / shares`: one uflk at first, less after slashes, never more.
    """

    delegate: Address
    """Owner of the validator, or participant of the task."""
    target: str
    share_ppm: Ppm
    """Part of what the delegated stake earns that its delegators get; the delegate has the rest."""
    next_share_ppm: Ppm
    next_share_ms: Ms
    """A lower share was announced, in force from this time on; 0: none."""
    amount_uflk: Uflk
    shares: UInt
    delegators: UInt
    """Delegations in it, those with nothing left but entries in the unbonding queue included."""
    rewards_uflk: Uflk
    """Earned and not yet paid out, dust included."""
    pending_uflk: Uflk
    """What of the rewards is too little to raise the index."""
    index_nuflk: UInt
    """Thousand-millionths of one uflk that one share has earned; it begins at 0 when the pool was empty."""


class Delegation(Canonical, frozen=True):
    """Shares of `delegator` in the pool of `delegate`."""

    delegate: Address
    target: str
    delegator: Address
    shares: UInt
    index_nuflk: UInt
    """The pool's index up to which its earnings are paid."""
    recent: tuple[Lot, ...] = ()
    unbonding: tuple[UnbondingRef, ...] = ()


class DelegationMove(Canonical, frozen=True):
    """Index: `delegator` moved stake into or out of the pool in this block; forgotten after `unbonding_ms`."""

    delegate: Address
    target: str
    height: UInt
    delegator: Address
    time_ms: Ms


class Unbonding(Canonical, frozen=True):
    """Stake on its way out: slashable for older offences until `release_ms`."""

    release_ms: Ms
    owner: Address
    target: str
    sequence: UInt
    amount_uflk: Uflk
    created_ms: Ms
    created_height: UInt = 0
    delegate: OptionalAddress = b""
    """Whose pool a delegation leaves; empty: the owner's own bond."""
    recent: tuple[Lot, ...] = ()
    """What of the amount had come in lately when it left."""


class Infraction(Canonical, frozen=True):
    """Marks one punished offence so that it is punished once; `key` is its hash."""

    key: Hash
    height: UInt
    until_ms: Ms
    """Forgotten afterwards: the evidence is too old by then."""


class Liveness(Canonical, frozen=True):
    """Blocks of the current liveness window that a validator did not sign, not even late; no row: none missed."""

    validator: Address
    missed: UInt
