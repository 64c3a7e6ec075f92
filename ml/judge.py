"""Judging a training round: every adapter in its strength of use, then the candidate, on one member's private holdout.

An adapter is measured as `global + k * update / m`: k its norm-clip coefficient, m = min(valid submissions, 8). That is
about the strength in which it will be used; at full strength every honest specialist harms the other domains. Figures
are given against the current global adapter and against the best settled one so far, so that small harms do not
compound; where the two are one adapter the figures are equal. What cannot be measured is an abstention, never a score.

After its losses an adapter is screened (ml/screen/pipeline.py) at full strength, if the task states a budget for it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ml.adapter import GlobalAdapter, Manifest, Update, open_update, read_global, read_update
from ml.aggregate.mean_norm_clip import compute_coefficients
from ml.canonical import Malformed
from ml.data import Block
from ml.factors import LazyFactors, make_factors, make_global_factors
from ml.figures import PPM, BlockLoss, Change, compute_bits_per_byte, compute_change, round_to_multiple
from ml.ingress import check_update_file
from ml.norms import cosine_ppm, inner_products, ratio_ppm
from ml.screen import Factors, Screened, Screening, Subject
from ml.screen.pipeline import choose_phrases, choose_prompts, screen_all
from ml.screen.private_detector import Detector
from ml.spec import STRENGTH_CAP, AdapterSpec, JudgeSpec

if TYPE_CHECKING:
    from ml.score import ScoringBase

Status = Literal["scored", "unavailable", "malformed", "copy", "abstain"]
LOSS_STEP_UBPB = 100
"""Published losses are rounded to this step."""
COPY_COSINE_PPM = 990_000
MAX_PEERS = 16
"""Most other adapters that a screen compares with: the first by root."""
Peer = tuple[Path, int]
"""Another submission's file and coefficient in ppm."""


class JudgingFailed(Exception):
    """Nothing was measured: out-of-memory, crash, timeout or error. Its sentence is the reason of the abstention."""

    def __init__(
        self, kind: Literal["out-of-memory", "crash", "timeout", "error"], detail: str = "", *, is_warm: bool = False
    ) -> None:
        """`is_warm`: the adapter was at fault, whoever measured is as good as before."""
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.is_warm = is_warm


@dataclass(frozen=True)
class Submission:
    """One adapter of the round. `path` is None when its bytes could not be had."""

    root: str
    path: Path | None
    manifest: Manifest
    """What its manifest must say."""


@dataclass(frozen=True)
class DomainFigure:
    """One adapter on one domain: against the current global adapter, and against the best one so far."""

    domain: str
    current: Change
    best: Change


@dataclass(frozen=True)
class Measurement:
    """What a meter says of one adapter; domains without enough blocks are left out (`none`)."""

    domains: tuple[DomainFigure, ...]
    tokens: int
    seconds: float


@dataclass(frozen=True)
class AdapterFigures:
    """One adapter's entry on the ballot, with the screens' values."""

    root: str
    status: Status
    reason: str
    domains: tuple[DomainFigure, ...] = ()
    norm_ratio_ppm: int = 0
    """|BA| over the median |BA| of the valid submissions."""
    cosine_ppm: int = 0
    """Largest cosine to another valid submission."""
    coefficient_ppm: int = 0
    screens: tuple[Screening, ...] = ()
    """Of the screens that run the model, sorted by name; `reason` says what they found and which did not run."""
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class JudgeReport:
    """Sorted by root."""

    figures: tuple[AdapterFigures, ...]
    parts: int
    """m: each update was judged at 1/m."""
    tokens: int
    seconds: float


@dataclass(frozen=True)
class CandidateFigure:
    """The candidate on one domain. `loss_ubpb` and `previous_loss_ubpb` are rounded to LOSS_STEP_UBPB."""

    domain: str
    loss_ubpb: int
    previous_loss_ubpb: int
    previous: Change
    best: Change
    base: Change


class Meter(Protocol):
    """Measures adapters on one holdout: in this process (HoldoutMeter) or in another (JudgingProcess)."""

    def measure(self, path: Path, coefficient_ppm: int, parts: int) -> Measurement: ...
    def judge_candidate(self, path: Path) -> tuple[CandidateFigure, ...]: ...
    def measure_gains(self, candidate: Path, without: Path) -> tuple[tuple[str, int], ...]: ...
    def screen_update(self, path: Path, coefficient_ppm: int, peers: Sequence[Peer]) -> Screened: ...
    def screen_candidate(self, path: Path) -> Screened: ...


@dataclass(frozen=True)
class Weighed:
    """The valid submissions' integers: everything about them that needs no model."""

    parts: int
    """m: each update is judged at 1/m."""
    coefficients_ppm: dict[str, int]
    norm_ratios_ppm: dict[str, int]
    cosines_ppm: dict[str, int]
    copies: dict[str, str]
    """Root -> root of the earlier submission that it copies."""


def judge_round(
    meter: Meter,
    spec: AdapterSpec,
    submissions: Sequence[Submission],
    *,
    max_bytes: int,
    norm_cap: int = 0,
    copy_cosine_ppm: int = COPY_COSINE_PPM,
    assigned: frozenset[str] | None = None,
) -> JudgeReport:
    """Judge the assigned submissions (None: all), given in the order in which the chain recorded them."""
    began = time.monotonic()
    refused, norms2 = check_submissions(spec, submissions, max_bytes=max_bytes, norm_cap=norm_cap)
    paths = {item.root: item.path for item in submissions if item.root in norms2 and item.path is not None}
    updates = {root: open_update(path, spec) for root, path in paths.items()}
    weighed = weigh(updates, norms2, spec, norm_cap=norm_cap, copy_cosine_ppm=copy_cosine_ppm)
    figures = dict(refused)
    for root in sorted(paths):
        if assigned is None or root in assigned:
            figures[root] = _judge_one(meter, root, paths, weighed)
    chosen = tuple(figures[root] for root in sorted(figures) if assigned is None or root in assigned)
    tokens = sum(entry.tokens for entry in chosen)
    return JudgeReport(chosen, weighed.parts, tokens, time.monotonic() - began)


def check_submissions(
    spec: AdapterSpec, submissions: Sequence[Submission], *, max_bytes: int, norm_cap: int
) -> tuple[dict[str, AdapterFigures], dict[str, int]]:
    """(entries of the refused, N2 of the valid by root in the order given)."""
    refused, norms2 = {}, {}
    for item in submissions:
        if item.path is None:
            refused[item.root] = AdapterFigures(item.root, "unavailable", "its bytes could not be had")
            continue
        try:
            norms2[item.root] = check_update_file(
                item.path, spec, max_bytes=max_bytes, expected_manifest=item.manifest, norm_cap=norm_cap
            )
        except Malformed as error:
            refused[item.root] = AdapterFigures(item.root, "malformed", str(error))
    return refused, norms2


def weigh(
    updates: Mapping[str, Mapping[str, Any]],
    norms2: Mapping[str, int],
    spec: AdapterSpec,
    *,
    norm_cap: int = 0,
    copy_cosine_ppm: int = COPY_COSINE_PPM,
) -> Weighed:
    """Coefficients, norms and cosines of the valid updates, which come in the order of submission.

    Of a pair that is nearer than `copy_cosine_ppm` the later one is the copy; a chain of copies points to its first.
    Of each update one module is held at a time.
    """
    roots = list(updates)
    if not roots:
        return Weighed(0, {}, {}, {}, {})
    median = sorted(norms2.values())[(len(norms2) - 1) // 2]
    largest: dict[str, int] = dict.fromkeys(roots, -PPM if len(roots) > 1 else 0)
    copies: dict[str, str] = {}
    products = inner_products(list(updates.values()), spec)
    for later, root in enumerate(roots):
        for earlier, other in enumerate(roots[:later]):
            cosine = cosine_ppm(products[earlier][later], norms2[root], norms2[other])
            largest[root], largest[other] = max(largest[root], cosine), max(largest[other], cosine)
            if cosine > copy_cosine_ppm and root not in copies:
                copies[root] = copies.get(other, other)
    return Weighed(
        parts=min(len(roots), STRENGTH_CAP),
        coefficients_ppm=compute_coefficients(norms2, norm_cap),
        norm_ratios_ppm={root: ratio_ppm(norms2[root], median) for root in roots},
        cosines_ppm=largest,
        copies=copies,
    )


def _judge_one(meter: Meter, root: str, paths: Mapping[str, Path], weighed: Weighed) -> AdapterFigures:
    """Losses first, then the screens: what a screen breaks leaves the losses as they are."""
    coefficient = weighed.coefficients_ppm[root]
    integers = (weighed.norm_ratios_ppm[root], weighed.cosines_ppm[root], coefficient)
    if root in weighed.copies:
        reason = f"copy of {weighed.copies[root]}: cosine {weighed.cosines_ppm[root]} ppm"
        return AdapterFigures(root, "copy", reason, (), *integers)
    try:
        measured = meter.measure(paths[root], coefficient, weighed.parts)
    except JudgingFailed as error:
        return AdapterFigures(root, "abstain", str(error), (), *integers)
    screened = _screen_one(meter, root, paths, weighed)
    tokens, seconds = measured.tokens + screened.tokens, measured.seconds + screened.seconds
    said = screened.describe()
    return AdapterFigures(root, "scored", said, measured.domains, *integers, screened.screenings, tokens, seconds)


def _screen_one(meter: Meter, root: str, paths: Mapping[str, Path], weighed: Weighed) -> Screened:
    others = [other for other in sorted(paths) if other != root and other not in weighed.copies][:MAX_PEERS]
    peers = [(paths[other], weighed.coefficients_ppm[other]) for other in others]
    try:
        return meter.screen_update(paths[root], weighed.coefficients_ppm[root], peers)
    except JudgingFailed as error:
        return Screened(notes=(f"no screens: {error}",))


class HoldoutMeter:
    """Measures in this process, on blocks by domain. A global adapter's losses are computed once."""

    def __init__(
        self,
        base: "ScoringBase",
        judge_spec: JudgeSpec,
        holdouts: Mapping[str, Sequence[Block]],
        *,
        current: GlobalAdapter | None,
        best: GlobalAdapter | None,
        decode: Callable[[Sequence[int]], str] = str,
    ) -> None:
        """`current` and `best`: global adapters, None for the bare base. Domains with too few blocks are not scored.

        `decode` makes text of tokens, for what the screens print.
        """
        self.base = base
        self.judge_spec = judge_spec
        cut = {name: _cut(blocks, judge_spec) for name, blocks in sorted(holdouts.items())}
        self.holdouts = {name: blocks for name, blocks in cut.items() if is_enough(blocks, judge_spec)}
        self.current = current
        self.best = best
        self.decode = decode
        self.prompts = choose_prompts(self.holdouts)
        self.phrases = choose_phrases(self.holdouts)
        self.detector: Detector | None = None
        """Set by a judge that has trained shadows for the task."""
        self._memo: dict[Any, Any] = {}

    def measure(self, path: Path, coefficient_ppm: int, parts: int) -> Measurement:
        """One update in its strength of use. Raises Malformed."""
        update, _ = read_update(path, self.base.spec)
        return self.measure_update(update, coefficient_ppm, parts)

    def measure_update(self, update: Update, coefficient_ppm: int, parts: int) -> Measurement:
        began, tokens, figures = time.monotonic(), 0, []
        factors = make_factors(self.current, update, coefficient_ppm, parts, self.base.spec)
        losses_by_domain = self.base.score_domains(self.holdouts, factors)
        for domain, losses in losses_by_domain.items():
            tokens += sum(loss.targets + 1 for loss in losses)
            current = compute_change(losses, self._reference(self.current, domain), self.judge_spec)
            best = compute_change(losses, self._reference(self.best, domain), self.judge_spec)
            if current is not None and best is not None:
                figures.append(DomainFigure(domain, current, best))
        return Measurement(tuple(figures), tokens, time.monotonic() - began)

    def judge_candidate(self, path: Path) -> tuple[CandidateFigure, ...]:
        """The candidate against the previous global adapter, the best one so far and the bare base."""
        figures = []
        for domain, losses in self._score_global(path).items():
            references = [self._reference(which, domain) for which in (self.current, self.best, None)]
            changes = [compute_change(losses, reference, self.judge_spec) for reference in references]
            previous, best, base = changes
            if previous is None or best is None or base is None:
                continue
            loss, before = publish_loss(losses), publish_loss(references[0])
            figures.append(CandidateFigure(domain, loss, before, previous, best, base))
        return tuple(figures)

    def measure_gains(self, candidate: Path, without: Path) -> tuple[tuple[str, int], ...]:
        """(domain, gain in ppm): how much the loss rises when one adapter is left out of the candidate."""
        gains = []
        full, less = self._score_global(candidate), self._score_global(without)
        for domain, losses in full.items():
            change = compute_change(less[domain], losses, self.judge_spec)
            if change is not None:
                gains.append((domain, change.change_ppm))
        return tuple(gains)

    def screen_update(self, path: Path, coefficient_ppm: int, peers: Sequence[Peer] = ()) -> Screened:
        """One update at full strength against the current global adapter. Raises Malformed."""
        if not self.judge_spec.screen_tokens:
            return Screened()
        factors = dict(self._open_factors(path, coefficient_ppm))
        others = {peer.name: self._open_factors(peer, coefficient) for peer, coefficient in peers}
        subject = self._make_subject(factors, make_global_factors(self.current, self.base.spec))
        own = replace(subject, peers=others, detector=self.detector, memo=self._memo)
        return screen_all(own, self.judge_spec.screen_tokens)

    def screen_candidate(self, path: Path) -> Screened:
        """The candidate against the bare base: what came in by small parts over the rounds shows as one."""
        if not self.judge_spec.screen_tokens:
            return Screened()
        factors = make_global_factors(read_global(path, self.base.spec)[0], self.base.spec)
        assert factors is not None
        return screen_all(self._make_subject(factors, None), self.judge_spec.screen_tokens)

    def _make_subject(self, factors: Factors, reference: Factors | None) -> Subject:
        return Subject(self.base, factors, reference, self.prompts, self.decode, self.phrases)

    def _open_factors(self, path: Path, coefficient_ppm: int) -> Factors:
        """Made module by module: a round's others at once would be many times an adapter."""
        return LazyFactors(self.current, open_update(path, self.base.spec), coefficient_ppm, 1, self.base.spec)

    def _score_global(self, path: Path) -> dict[str, list[BlockLoss]]:
        adapter, _ = read_global(path, self.base.spec)
        return {domain: self._reference(adapter, domain) for domain in self.holdouts}

    def _reference(self, adapter: GlobalAdapter | None, domain: str) -> list[BlockLoss]:
        factors = make_global_factors(adapter, self.base.spec)
        return self.base.score_cached(hash_adapter(adapter), factors, self.holdouts[domain])


def is_enough(blocks: Sequence[Block], spec: JudgeSpec) -> bool:
    """Whether so many blocks and documents can carry a figure at all."""
    return len(blocks) >= spec.min_blocks and len({block.document for block in blocks}) >= spec.min_documents


def hash_adapter(adapter: GlobalAdapter | None) -> str:
    """Hex sha256 over the values; empty for the bare base. A candidate is remembered when it becomes the current."""
    if adapter is None:
        return ""
    digest = hashlib.sha256()
    for module, values in sorted(adapter.items()):
        digest.update(json.dumps([module, list(values.shape)]).encode() + values.tobytes())
    return digest.hexdigest()


def publish_loss(losses: Sequence[BlockLoss]) -> int:
    """Bits per byte in ubpb, rounded to LOSS_STEP_UBPB."""
    return round_to_multiple(round(compute_bits_per_byte(losses) * PPM), LOSS_STEP_UBPB)


def _cut(blocks: Sequence[Block], spec: JudgeSpec) -> list[Block]:
    """As many blocks as the budget allows, none longer than a block may be."""
    kept = list(blocks[: spec.judge_tokens // spec.block_tokens])
    for block in kept:
        if not 2 <= len(block.tokens) <= spec.block_tokens:
            raise ValueError(f"a block of {len(block.tokens)} tokens; it takes 2 to {spec.block_tokens}")
    return kept
