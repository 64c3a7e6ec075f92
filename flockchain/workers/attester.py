"""The attester: in AGGREGATE, compute the candidate for the next global adapter, measure it, and name its root.

Aggregation is a rule, not a person: integers in, integers out, so every honest attester names the same root. After the
committee's deadline any bonded participant may attest, then without figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flockchain.client import Json
from flockchain.errors import Refused
from flockchain.txs import attest_aggregate
from flockchain.types.task import CandidateFigure, Coefficient, Gain
from flockchain.workers.view import Model, make_model
from ml import judge
from ml.adapter import (
    GlobalAdapter,
    make_global_manifest,
    read_global,
    read_update,
    write_global,
    zero_global,
)
from ml.aggregate import add_to_global, aggregate

if TYPE_CHECKING:
    from flockchain.workers.voter import Voter


@dataclass(frozen=True, slots=True)
class MadeCandidate:
    """A candidate that was computed here and lies in the adapters' folder."""

    root: str
    size_bytes: int
    coefficients_ppm: dict[str, int]


class Attester:
    """The AGGREGATE part of a voter."""

    def __init__(self, voter: Voter) -> None:
        self.voter = voter
        self._uploaded: set[str] = set()

    def upload_settled(self, task: Json) -> None:
        """Give the settled global adapter to a node, so that trainers find it; every attester does, none is needed."""
        root = task["global_root"]
        if not root or root in self._uploaded or not self.voter.adapters.path(root).exists():
            return
        try:
            self.voter.client.put_blob(bytes.fromhex(root), self.voter.adapters.path(root))
            self._uploaded.add(root)
        except Refused as refusal:
            self.voter.report("upload refused", {"root": root, "message": refusal.message})

    def step(self, task: Json, round_: Json) -> None:
        voter = self.voter
        if any(row["attester"] == voter.me for row in round_["attestations"]):
            return
        is_member = voter.me in (member["address"] for member in round_["committee"])
        if not is_member and not round_["second_deadline"]:
            return
        name = f"task{task['id']}-round{round_['number']}-attest"
        if voter.kept_body(name, attest_aggregate.Body) is None:
            body = self._make_body(task, round_, with_figures=is_member)
            if body is None:
                return
            voter.keep_body(name, body)
        voter.send_kept(name, attest_aggregate.KIND, free=is_member)

    def _make_body(self, task: Json, round_: Json, *, with_figures: bool) -> attest_aggregate.Body | None:
        """The candidate and what it measures; None while an accepted adapter's bytes are not to be had."""
        voter = self.voter
        model = make_model(task, voter.base_dir)
        accepted = sorted(v["root"] for v in round_["verdicts"] if v["outcome"] == "accept")
        made = self.make_candidate(task, round_, model, accepted)
        if made is None:
            return None
        voter.report("attesting", {"round": round_["number"], "candidate": made.root})
        figures: tuple[CandidateFigure, ...] = ()
        gains: tuple[Gain, ...] = ()
        if with_figures:
            figures, gains = self._measure(task, round_, model, made)
        return attest_aggregate.Body(
            task=task["id"],
            round=round_["number"],
            candidate=bytes.fromhex(made.root),
            size_bytes=made.size_bytes,
            coefficients=tuple(Coefficient(bytes.fromhex(r), p) for r, p in sorted(made.coefficients_ppm.items())),
            figures=figures,
            gains=gains,
            screens=(),
        )

    def make_candidate(self, task: Json, round_: Json, model: Model, roots: list[str]) -> MadeCandidate | None:
        """Aggregate the updates of `roots` onto the round's global adapter, in the adapters' folder."""
        adapters = self.voter.adapters
        paths = {root: adapters.find(root) for root in roots}
        base_root = round_["base_root"] or ""
        base_path = adapters.find(base_root) if base_root else None
        if None in paths.values() or (base_root and base_path is None):
            self.voter.report("waiting for adapters", {"round": round_["number"]})
            return None
        previous: GlobalAdapter = read_global(base_path, model.spec)[0] if base_path else zero_global(model.spec)
        updates = {root: read_update(path, model.spec)[0] for root, path in paths.items() if path is not None}
        combined = aggregate(model.aggregator, updates, model.spec, norm_cap=model.norm_cap)
        made = self.voter.folder / f"candidate-{len(roots)}.safetensors"
        manifest = make_global_manifest(model.spec, task=task["id"], round=round_["number"])
        write_global(made, add_to_global(previous, combined.delta), manifest)
        root, size = adapters.keep(made)
        return MadeCandidate(root, size, combined.coefficients_ppm)

    def _measure(
        self, task: Json, round_: Json, model: Model, made: MadeCandidate
    ) -> tuple[tuple[CandidateFigure, ...], tuple[Gain, ...]]:
        """Figures of the candidate on our holdout, and, under rule `merit`, what each adapter adds to it.

        A failure to measure leaves the figures out: the root stands by itself, and no score is invented.
        """
        path = self.voter.adapters.path(made.root)
        meter = self.voter.meter(task, round_, model)
        gains: list[Gain] = []
        try:
            figures = tuple(_encode_figure(figure, model) for figure in meter.judge_candidate(path))
            if task["spec"]["rewards"]["rule"] == "merit":
                for root in sorted(made.coefficients_ppm):
                    gains.extend(self._measure_gain(task, round_, model, made, path, root))
        except judge.JudgingFailed as failure:
            self.voter.report("candidate not measured", {"reason": str(failure)})
            return (), ()
        return tuple(sorted(figures, key=lambda figure: figure.domain)), tuple(gains)

    def _measure_gain(
        self, task: Json, round_: Json, model: Model, made: MadeCandidate, candidate: Path, root: str
    ) -> list[Gain]:
        others = sorted(set(made.coefficients_ppm) - {root})
        if not others:
            return []
        without = self.make_candidate(task, round_, model, others)
        assert without is not None, "their bytes were here a moment ago"
        meter = self.voter.meter(task, round_, model)
        found = meter.measure_gains(candidate, self.voter.adapters.path(without.root))
        gains = {model.domains.index(domain): ppm for domain, ppm in found}
        return [Gain(bytes.fromhex(root), domain, ppm) for domain, ppm in sorted(gains.items())]


def _encode_figure(figure: judge.CandidateFigure, model: Model) -> CandidateFigure:
    return CandidateFigure(
        domain=model.domains.index(figure.domain),
        loss_ubpb=figure.loss_ubpb,
        previous_loss_ubpb=figure.previous_loss_ubpb,
        change_ppm=figure.previous.change_ppm,
        se_ppm=figure.previous.se_ppm,
        base_change_ppm=figure.base.change_ppm,
        base_se_ppm=figure.base.se_ppm,
    )
