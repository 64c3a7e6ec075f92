"""From losses per block to the integers that go on the chain: relative change, standard error, harm, help.

The change of bits per byte from a reference to an adapter on the same blocks is a ratio of sums, `sum(y) / sum(x) - 1`
(the bytes cancel). Its standard error is the linearised one of a ratio estimator, clustered by document: Cochran,
"Sampling Techniques", 3rd ed., sections 6.3 and 9A. With u_c the sum of `y - (1 + change) x` over document c of C,
`se = sqrt(C / (C - 1) * sum(u_c^2)) / sum(x)`. A few documents carry a domain's blocks, so blocks are not independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ml.spec import JudgeSpec

PPM = 1_000_000
MAX_CHANGE_PPM = 1_000 * PPM
"""A loss a thousand times the reference's is as good as infinite; the chain's integers stay small."""
SE_BITS = 3
"""A published standard error has so many significant bits (4, 5, 6 or 7 times a power of two)."""


@dataclass(frozen=True)
class BlockLoss:
    """The sum over one block's targets."""

    document: str
    nats: float
    targets: int
    target_bytes: int


def compute_bits_per_byte(losses: Sequence[BlockLoss]) -> float:
    """Over all blocks together (a ratio of sums, not a mean of ratios). Raises ValueError when there are no bytes."""
    target_bytes = sum(loss.target_bytes for loss in losses)
    if not target_bytes:
        raise ValueError("no bytes to score: give at least one block of two tokens")
    return math.fsum(loss.nats for loss in losses) / math.log(2) / target_bytes


def compute_loss_ubpb(losses: Sequence[BlockLoss]) -> int:
    """Bits per byte in millionths, as the chain counts it."""
    return round(compute_bits_per_byte(losses) * PPM)


@dataclass(frozen=True)
class Change:
    """Relative change of bits per byte against a reference, rounded for publication."""

    change_ppm: int
    se_ppm: int


def compute_change(losses: Sequence[BlockLoss], reference: Sequence[BlockLoss], spec: JudgeSpec) -> Change | None:
    """None (`none` on the ballot) under `min_blocks` blocks or `min_documents` documents.

    Both sequences hold the same blocks in the same order. A loss that is not finite counts as MAX_CHANGE_PPM: to
    break the model is harm, not an excuse.
    """
    scored = [(new, old) for new, old in zip(losses, reference, strict=True) if new.target_bytes]
    assert all((new.document, new.target_bytes) == (old.document, old.target_bytes) for new, old in scored)
    documents = {new.document for new, _ in scored}
    if len(scored) < spec.min_blocks or len(documents) < max(2, spec.min_documents):
        return None
    if not all(math.isfinite(new.nats) for new, _ in scored):
        return Change(MAX_CHANGE_PPM, 1)
    reference_nats = math.fsum(old.nats for _, old in scored)
    assert reference_nats > 0
    assert math.isfinite(reference_nats)
    ratio = math.fsum(new.nats for new, _ in scored) / reference_nats
    residuals = {
        document: math.fsum(new.nats - ratio * old.nats for new, old in scored if new.document == document)
        for document in sorted(documents)
    }
    correction = len(documents) / (len(documents) - 1)
    se = math.sqrt(correction * math.fsum(value * value for value in residuals.values())) / reference_nats
    return publish(min((ratio - 1) * PPM, MAX_CHANGE_PPM), min(se * PPM, MAX_CHANGE_PPM))


def publish(change_ppm: float, se_ppm: float) -> Change:
    """The only figures that leave a judge: exact losses would be an oracle for membership and hill-climbing.

    The standard error is rounded up to SE_BITS significant bits (never down: that would accuse too early), the change
    to the nearest multiple of half of it, halves to even.
    """
    coarse_se = round_up_bits(max(1, math.ceil(se_ppm)), SE_BITS)
    step = max(1, coarse_se // 2)
    return Change(round_to_multiple(round(change_ppm), step), coarse_se)


def round_up_bits(value: int, bits: int) -> int:
    """The least integer >= value with at most `bits` significant bits."""
    assert value > 0
    shift = max(0, value.bit_length() - bits)
    return -(-value >> shift) << shift


def round_to_multiple(value: int, step: int) -> int:
    """The nearest multiple of `step`, halves to the even multiple."""
    assert step > 0
    quotient, rest = divmod(value, step)
    return (quotient + (2 * rest > step or (2 * rest == step and quotient % 2 == 1))) * step


def is_harm(change: Change, spec: JudgeSpec) -> bool:
    """Lower confidence bound above the tolerance. The chain decides by the same integers."""
    return change.change_ppm * 1000 - spec.z_milli * change.se_ppm > spec.tolerance_ppm * 1000


def is_help(change: Change, spec: JudgeSpec) -> bool:
    """Upper confidence bound below zero."""
    return change.change_ppm * 1000 + spec.z_milli * change.se_ppm < 0
