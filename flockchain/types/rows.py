"""Rows of the ledger's state. Each kind of row is one table; its key fields come first.

Execution changes rows, the store persists them, readers show them: this file is what they agree on.
"""

from typing import Literal

from flockchain.codec import Canonical
from flockchain.params import Params
from flockchain.types.change import Settings, Upgrade
from flockchain.types.final import FinalOutcome, FinalPhase, FinalTerms
from flockchain.types.ids import (
    Address,
    Hash,
    Int,
    Ms,
    OptionalAddress,
    OptionalHash,
    Ppm,
    PublicKey,
    Slug,
    Text,
    Uflk,
    UInt,
)
from flockchain.types.task import (
    AdapterFigures,
    AttestationBody,
    Coefficient,
    Holdout,
    TaskSpec,
)

Phase = Literal["enroll", "train", "publish", "commit", "reveal", "aggregate", "settled"]
TaskStatus = Literal["open", "finished", "cancelled"]
Outcome = Literal["accept", "reject", "undecided", "refused", "unavailable"]
ChangeStatus = Literal["open", "approved", "enacted", "void"]


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


class Task(Canonical, frozen=True):
    id: UInt
    creator: Address
    seed: Hash
    """Unpredictable before creation; names the fixed A of `shared_a`."""
    spec: TaskSpec
    status: TaskStatus
    reason: Text
    pool_uflk: Uflk
    deposit_uflk: Uflk
    round: UInt
    """Number of the current training round, from 1."""
    settled_rounds: UInt
    global_root: OptionalHash
    """Newest settled global adapter; empty: the base itself."""
    best_root: OptionalHash
    """Best settled global adapter so far: no accepted adapter harmed against it, and its losses are the lowest."""
    best_loss_ubpb: tuple[UInt, ...]
    """Median over seats per domain, of the best one; empty before the first settlement."""
    created_ms: Ms


class Seats(Canonical, frozen=True):
    address: Address
    seats: UInt


class Candidate(Canonical, frozen=True):
    """One participant in a draw, as frozen when the phase before it closed."""

    address: Address
    bond_uflk: Uflk
    tickets: UInt
    domains: tuple[UInt, ...]
    """Indexes of the task's domains that its committed holdout covers; empty for a trainer."""


class Draw(Canonical, frozen=True):
    """One draw of a training round: what went in and what came out, so that anyone can make it again."""

    task: UInt
    round: UInt
    role: str
    """trainer or voter."""
    draw_height: UInt
    """Made at the end of this block, the second after the freeze."""
    seats: UInt
    """To be drawn."""
    account_seats: UInt
    """Most seats for one account."""
    candidates: tuple[Candidate, ...]
    """Sorted by address."""
    beacon: OptionalHash
    """After the block at `draw_height`; empty while the draw is pending."""
    attempts: UInt
    drawn: tuple[Seats, ...]
    """Sorted by address."""


class Assignment(Canonical, frozen=True):
    """The adapters that one committee member judges; `roots` sorted."""

    voter: Address
    roots: tuple[Hash, ...]


class DomainTally(Canonical, frozen=True):
    """How the covering seats of one domain judged one adapter."""

    domain: UInt
    covering_seats: UInt
    harm_seats: UInt
    help_seats: UInt
    median_change_ppm: Int
    """Lower median over the seats that gave a figure; 0 without one."""


class Verdict(Canonical, frozen=True):
    """The chain's derivation from the revealed votes, for one adapter; figures are seats."""

    root: Hash
    trainer: Address
    outcome: Outcome
    reason: Text
    helped: tuple[Slug, ...]
    harmed: tuple[Slug, ...]
    slashed_uflk: Uflk
    reward_uflk: Uflk
    coefficient_ppm: Ppm
    tallies: tuple[DomainTally, ...] = ()


class TrainingRound(Canonical, frozen=True):
    task: UInt
    number: UInt
    phase: Phase
    deadline_ms: Ms
    started_ms: Ms
    draw_height: UInt
    """Height at whose end the pending draw is made (second block after the freeze); 0: none pending.
    What was frozen for it is the row `Draw` of trainers (in phase enroll) or voters (in phase train)."""
    acted: UInt
    """Members who have done what this phase expects of them."""
    expected: UInt
    """Members of whom it is expected; the phase ends early when all have acted. 0: only the deadline ends it."""
    trainers: tuple[Address, ...]
    committee: tuple[Seats, ...]
    """Sorted by address."""
    base_root: OptionalHash
    """Global adapter from which this round trains."""
    second_deadline: bool
    """AGGREGATE is open to any bonded participant."""
    published: tuple[Hash, ...]
    """Adapters whose bytes the committee could get, sorted: the ones that are judged. Known from COMMIT on."""
    assignments: tuple[Assignment, ...]
    """Who judges what, sorted by voter; from PUBLISH on. Unpublished adapters are left out from COMMIT on."""
    verdicts: tuple[Verdict, ...]
    candidate_root: OptionalHash
    candidate_size_bytes: UInt
    coefficients: tuple[Coefficient, ...]
    result_root: OptionalHash
    """Global adapter after this round (equal to base_root when nothing was aggregated)."""
    settled_ms: Ms
    outcome: Text
    """One sentence: what the round came to."""


class OpenTask(Canonical, frozen=True):
    """Index: a task that is neither finished nor cancelled."""

    task: UInt


class TaskParticipant(Canonical, frozen=True):
    """Index: `owner` has, or had, a bond in the task."""

    task: UInt
    owner: Address


class Submission(Canonical, frozen=True):
    task: UInt
    round: UInt
    trainer: Address
    root: Hash
    size_bytes: UInt
    base_root: OptionalHash
    examples: UInt
    versions: Text
    height: UInt
    tx_hash: Hash


class Adapter(Canonical, frozen=True):
    """Who first recorded the root of a file, so that an equal adapter is refused; `final`: a hidden final set."""

    root: Hash
    kind: Literal["update", "global", "final"]
    task: UInt
    round: UInt
    trainer: Address
    size_bytes: UInt


class FetchedRow(Canonical, frozen=True):
    """`confirm-fetched` of one drawn member; `unavailable` lists roots it could not get."""

    task: UInt
    round: UInt
    member: Address
    unavailable: tuple[Hash, ...]


class SealedVote(Canonical, frozen=True):
    task: UInt
    round: UInt
    voter: Address
    seal: Hash


class OpenVote(Canonical, frozen=True):
    task: UInt
    round: UInt
    voter: Address
    figures: tuple[AdapterFigures, ...]
    salt: Hash


class Attestation(Canonical, frozen=True):
    task: UInt
    round: UInt
    attester: Address
    body: AttestationBody
    height: UInt


class FinalPledge(Canonical, frozen=True):
    """A hidden final set for the creator's next task."""

    creator: Address
    terms: FinalTerms


class FinalSet(Canonical, frozen=True):
    """A task's hidden final set and where its judging stands; a task without one has no row."""

    task: UInt
    terms: FinalTerms
    phase: FinalPhase
    deadline_ms: Ms
    """Of phases reveal and judge."""
    draw_height: UInt
    """In phase draw: height at whose end the judges are drawn; 0: too few were left to draw."""
    pay_uflk: Uflk
    """Locked for its judges."""
    vested_uflk: Uflk
    """All that was ever vested in the task; the money itself lies in rows `Vesting`."""
    ending: TaskStatus
    """As what the task will end; open: it has not come to that."""
    ending_reason: Text
    outcome: FinalOutcome
    reason: Text


class Vesting(Canonical, frozen=True):
    """Part of a trainer's reward for one round that waits for the final judgement."""

    task: UInt
    round: UInt
    trainer: Address
    amount_uflk: Uflk


class FinalVote(Canonical, frozen=True):
    """What a drawn judge measured on the final set."""

    task: UInt
    judge: Address
    entry: AdapterFigures


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


Row = (
    Account
    | ValidatorRow
    | Stake
    | DelegationPool
    | Delegation
    | DelegationMove
    | Unbonding
    | Infraction
    | Liveness
    | RecentBlock
    | TimeMark
    | Task
    | TrainingRound
    | Submission
    | Adapter
    | FetchedRow
    | SealedVote
    | OpenVote
    | Attestation
    | Draw
    | OpenTask
    | TaskParticipant
    | Change
    | OpenChange
    | Approval
    | ScheduledChange
    | Epoch
    | FinalPledge
    | FinalSet
    | Vesting
    | FinalVote
    | Chain
    | ValidatorSet
)


class Table(Canonical, frozen=True):
    """How rows of one kind are keyed: by the first `key_fields` fields, so that keys sort as they read."""

    name: str
    tag: int
    key_fields: int


TABLES: dict[type, Table] = {
    Chain: Table("chain", 0, 0),
    Account: Table("account", 1, 1),
    ValidatorRow: Table("validator", 2, 1),
    ValidatorSet: Table("validator_set", 3, 1),
    Liveness: Table("liveness", 4, 1),
    Infraction: Table("infraction", 5, 1),
    Stake: Table("stake", 6, 2),
    Unbonding: Table("unbonding", 7, 4),
    RecentBlock: Table("recent_block", 8, 1),
    TimeMark: Table("time_mark", 9, 1),
    DelegationPool: Table("delegation_pool", 10, 2),
    Delegation: Table("delegation", 11, 3),
    DelegationMove: Table("delegation_move", 12, 4),
    Task: Table("task", 16, 1),
    TrainingRound: Table("training_round", 17, 2),
    Submission: Table("submission", 18, 3),
    Adapter: Table("adapter", 19, 1),
    FetchedRow: Table("fetched", 20, 3),
    SealedVote: Table("sealed_vote", 21, 3),
    OpenVote: Table("open_vote", 22, 3),
    Attestation: Table("attestation", 23, 3),
    Draw: Table("draw", 24, 3),
    OpenTask: Table("open_task", 25, 1),
    TaskParticipant: Table("task_participant", 26, 2),
    FinalPledge: Table("final_pledge", 27, 1),
    FinalSet: Table("final_set", 28, 1),
    Vesting: Table("vesting", 29, 3),
    FinalVote: Table("final_vote", 30, 2),
    Change: Table("change", 32, 1),
    OpenChange: Table("open_change", 33, 2),
    Approval: Table("approval", 34, 2),
    ScheduledChange: Table("scheduled_change", 35, 1),
    Epoch: Table("epoch", 36, 1),
}
"""Every kind of row with its table. Tags and names are part of the protocol: never reuse one."""


def row_key(row: Row) -> bytes:
    """State key of a row: table tag, then its key fields in an encoding whose byte order is their natural order."""
    table = TABLES[type(row)]
    fields = row.__struct_fields__[: table.key_fields]
    return compute_key(type(row), *(getattr(row, field) for field in fields))


def compute_key(kind: type, *parts: bytes | int | str) -> bytes:
    """Key, or key prefix when fewer parts than key fields are given.

    Integers: 8 bytes big endian. Byte strings: as they are, they have fixed length. Text: its bytes and a zero byte.
    """
    table = TABLES[kind]
    assert len(parts) <= table.key_fields
    key = bytes([table.tag])
    for part in parts:
        if isinstance(part, int):
            key += part.to_bytes(8, "big")
        elif isinstance(part, str):
            key += part.encode() + b"\x00"
        else:
            key += part
    return key
