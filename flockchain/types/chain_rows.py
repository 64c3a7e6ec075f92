"""Rows of the chain itself: recent blocks, validator sets, proposed changes and what held when."""

from typing import Literal

from flockchain.codec import Canonical
from flockchain.params import Params
from flockchain.types.change import Settings, Upgrade
from flockchain.types.ids import Address, Hash, Ms, OptionalHash, PublicKey, Text, Uflk, UInt

ChangeStatus = Literal["open", "approved", "enacted", "void"]


class AbsentSigner(Canonical, frozen=True):
    validator: Address
    income_uflk: Uflk
    """Kept for it until its late precommit comes, or the block is too old for one."""


class RecentBlock(Canonical, frozen=True):
    """A decided block for which late precommits still count."""

    height: UInt
    block_id: Hash
    absent: tuple[AbsentSigner, ...]
    """Members of its validator set of which the chain has seen no precommit; sorted by address."""


class TimeMark(Canonical, frozen=True):
    """Header time of a sampled height: how old evidence of a height is. Kept for the evidence age."""

    height: UInt
    time_ms: Ms


class Chain(Canonical, frozen=True):
    """The one row of facts about the chain as a whole; its key is empty."""

    chain_id: str
    genesis_hash: Hash
    height: UInt
    time_ms: Ms
    last_block_id: OptionalHash
    beacon: Hash
    supply_uflk: Uflk
    community_pool_uflk: Uflk
    fee_pool_uflk: Uflk
    """Fees of the current block, paid to its signers when the next block shows who signed."""
    next_task: UInt
    next_sequence: UInt
    window_start_ms: Ms
    """Begin of the liveness window."""
    window_blocks: UInt
    """Blocks judged in it so far: those too old for late precommits."""
    results_root: Hash
    params: Params


class SetMember(Canonical, frozen=True):
    address: Address
    public_key: PublicKey
    power: UInt
    priority: int


class ValidatorSet(Canonical, frozen=True):
    """The set that signs blocks of `height`; rows for the last, the current and the next height are kept."""

    height: UInt
    members: tuple[SetMember, ...]
    """Sorted by address."""


class Change(Canonical, frozen=True):
    """A change of parameters or protocol version. One that runs out unapproved is removed, all others are kept."""

    id: UInt
    proposer: Address
    """The validator that proposed it, and approved by that."""
    reason: Text
    settings: Settings
    upgrade: Upgrade | None
    cancels: UInt
    """Number of the approved change that it withdraws before its moment; 0: none."""
    created_ms: Ms
    deadline_ms: Ms
    """Removed in the first block whose time is later, unless approved."""
    status: ChangeStatus
    approved_power: UInt
    """Of `total_power` when more than two thirds were reached; 0 before."""
    total_power: UInt
    effective_height: UInt
    """The first block under it; 0: not known yet."""
    outcome: Text
    """One sentence: what came of it; empty while it is open."""


class OpenChange(Canonical, frozen=True):
    """Index: a change that waits for approvals."""

    deadline_ms: Ms
    change: UInt


class Approval(Canonical, frozen=True):
    """A validator's consent to an open change; its power is counted when the change is, not when it was given."""

    change: UInt
    validator: Address
    height: UInt


class ScheduledChange(Canonical, frozen=True):
    """Index: a change that was approved and waits for its moment."""

    change: UInt


class Epoch(Canonical, frozen=True):
    """The rules of all blocks later than `since_ms`, until the next epoch. A chain that never changed has no row."""

    since_ms: Ms
    """Header time of the last block before; 0: from genesis on."""
    since_height: UInt
    """The first block."""
    protocol_version: UInt
    upgrade: UInt
    """Number of the change that brought this protocol version; 0: genesis."""
    params: Params
