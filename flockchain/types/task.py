"""A task as its creator states it, and the bodies of a training round's transactions."""

from typing import Annotated, Literal

from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.types.ids import Hash, Int, Ms, Name, OptionalHash, Ppm, Slug, Text, Uflk, UInt

Role = Literal["trainer", "voter"]
Precision = Literal["bf16", "fp32", "nf4"]
LoraMode = Literal["shared_a", "alternating", "stacked"]
BUILT_MODES = ("shared_a",)
BUILT_AGGREGATORS = (
    "bulyan",
    "centered_clipping",
    "coordinate_median",
    "geometric_median",
    "krum",
    "mean",
    "mean_norm_clip",
    "multi_krum",
    "sign_majority",
    "trimmed_mean",
)
"""What the learners of this version can run; a test holds them equal to what `ml` has built."""
RewardRule = Literal["flalliance", "merit", "arena"]
Status = Literal["scored", "unavailable", "malformed", "copy", "abstain"]
"""What a committee member says of one adapter: measured; bytes not to be had; refused at ingress (with a
reason); a near-copy of another; could not be measured (out of memory, crash, timeout: never a score)."""


class ModelSpec(Canonical, frozen=True, kw_only=True):
    """The frozen base and the shape of what is trained on it."""

    name: Name
    base_hash: Hash
    """sha256 of the base's folder: sorted (name, size, sha256) of its files."""
    tokenizer_hash: Hash
    precision: Precision = "bf16"
    """Of judging."""
    rank: Annotated[int, Meta(ge=1, le=1024)]
    alpha: Annotated[int, Meta(ge=1, le=4096)]
    target_modules: tuple[Slug, ...]
    mode: LoraMode = "shared_a"
    local_steps: Annotated[int, Meta(ge=1, le=1_000_000)]
    batch_size: Annotated[int, Meta(ge=1, le=4096)]
    sequence_length: Annotated[int, Meta(ge=8, le=1_048_576)]
    learning_rate_ppm: Annotated[int, Meta(ge=1, le=1_000_000)]
    update_step_log2: Annotated[int, Meta(ge=-40, le=0)]
    """int8 step of the update is 2**update_step_log2; the global adapter's grid is 8 bits finer."""
    norm_cap: UInt
    """Largest |BA|^2 of an update, in squared integer steps of q_B * q_A; 0 for none."""
    aggregator: Slug = "mean_norm_clip"


class PhaseSpec(Canonical, frozen=True, kw_only=True):
    """Longest duration of each phase in header time; a phase ends early when everyone expected has acted."""

    enroll_ms: Ms
    train_ms: Ms
    publish_ms: Ms
    commit_ms: Ms
    reveal_ms: Ms
    aggregate_ms: Ms
    enroll_limit_ms: Ms
    """A task that waits this long for participants ends and refunds its pool."""


class JudgeSpec(Canonical, frozen=True, kw_only=True):
    seats: Annotated[int, Meta(ge=3, le=63)]
    z_milli: UInt = 3_600
    """Thousandths of a standard error between a figure and its confidence bound."""
    tolerance_ppm: Ppm = 20_000
    min_blocks: UInt = 30
    min_documents: UInt = 10
    block_tokens: UInt = 128
    judge_tokens: UInt = 30_000
    """Most forward tokens per member for one adapter over all domains."""
    screen_tokens: UInt = 0
    slowest_tokens_per_s: UInt = 50
    """The slowest machine the task admits as a judge: its budget must fit the COMMIT phase."""
    copy_cosine_ppm: Ppm = 990_000
    outlier_distance_ppm: Ppm = 30_000
    """A judge's figure farther than this (and six standard errors) from the median of its peers is penalised."""


class PenaltySpec(Canonical, frozen=True, kw_only=True):
    """Parts of the bond, per offence. Repeated offences multiply by their count, up to the chain's cap."""

    rejected_ppm: Ppm = 100_000
    absent_ppm: Ppm = 10_000
    unrevealed_ppm: Ppm = 50_000
    unpublished_ppm: Ppm = 20_000
    outlier_ppm: Ppm = 10_000
    double_ppm: Ppm = 500_000
    """Two different adapters or two different sealed votes signed for one round."""


class RewardSpec(Canonical, frozen=True, kw_only=True):
    rule: RewardRule = "flalliance"
    committee_ppm: Ppm = 300_000
    """The committee's part of a round's reward; the rest goes to the trainers of accepted adapters."""


class TaskSpec(Canonical, frozen=True, kw_only=True):
    name: Name
    model: ModelSpec
    domains: tuple[Slug, ...]
    """Sorted, none twice; figures are listed in this order."""
    rounds: Annotated[int, Meta(ge=1, le=10_000)]
    phases: PhaseSpec
    trainers_min: Annotated[int, Meta(ge=1, le=1000)]
    trainers_max: Annotated[int, Meta(ge=1, le=1000)]
    """Drawn per round, among those bonded."""
    judge: JudgeSpec
    penalties: PenaltySpec
    rewards: RewardSpec
    min_bond_uflk: Uflk
    max_adapter_bytes: UInt
    initial_adapter: OptionalHash = b""


class Holdout(Canonical, frozen=True):
    """A judge's commitment to its private holdout of one domain: Merkle root over the blocks, and their number."""

    domain: Slug
    root: Hash
    blocks: UInt


class DomainFigure(Canonical, frozen=True):
    """Relative change of bits per byte on one domain of this judge's holdout, and its standard error, in ppm.

    `change_ppm` is against the current global adapter, `best_change_ppm` against the best settled one so far
    (equal when they are the same). Rounded to half the standard error: exact losses would be an oracle.
    """

    domain: UInt
    """Index into the task's domains."""
    change_ppm: Int
    se_ppm: Ppm
    best_change_ppm: Int
    best_se_ppm: Ppm


class Screen(Canonical, frozen=True):
    name: Slug
    value: Int
    threshold: Int
    alarm: bool


class AdapterFigures(Canonical, frozen=True):
    """What one judge reports of one adapter; domains without enough blocks are left out (`none`)."""

    root: Hash
    status: Status
    reason: Text
    domains: tuple[DomainFigure, ...]
    screens: tuple[Screen, ...]


class Ballot(Canonical, frozen=True):
    """The open vote: one entry per adapter assigned to this judge, sorted by root."""

    task: UInt
    round: UInt
    figures: tuple[AdapterFigures, ...]


class Coefficient(Canonical, frozen=True):
    root: Hash
    ppm: Ppm


class Gain(Canonical, frozen=True):
    """Leave-one-out gain of one adapter on the candidate, per domain, in ppm of the loss (rules `merit`, `arena`)."""

    root: Hash
    domain: UInt
    gain_ppm: Int


class CandidateFigure(Canonical, frozen=True):
    """The candidate on one domain of this attester's holdout."""

    domain: UInt
    loss_ubpb: UInt
    previous_loss_ubpb: UInt
    change_ppm: Int
    se_ppm: Ppm
    base_change_ppm: Int
    base_se_ppm: Ppm


class AttestationBody(Canonical, frozen=True):
    task: UInt
    round: UInt
    candidate: Hash
    size_bytes: UInt
    coefficients: tuple[Coefficient, ...]
    """Sorted by root; one per accepted adapter."""
    figures: tuple[CandidateFigure, ...]
    """Empty for a participant that attests after the committee's deadline without a holdout."""
    gains: tuple[Gain, ...]
    screens: tuple[Screen, ...]
