"""Rows of tasks and their rounds: draws, submissions, votes, verdicts, and the hidden final set."""

from typing import Literal

from flockchain.codec import Canonical
from flockchain.types.final import FinalOutcome, FinalPhase, FinalTerms
from flockchain.types.ids import Address, Hash, Int, Ms, OptionalHash, Ppm, Slug, Text, Uflk, UInt
from flockchain.types.task import AdapterFigures, AttestationBody, Coefficient, TaskSpec

Phase = Literal["enroll", "train", "publish", "commit", "reveal", "aggregate", "settled"]
TaskStatus = Literal["open", "finished", "cancelled"]
Outcome = Literal["accept", "reject", "undecided", "refused", "unavailable"]


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
