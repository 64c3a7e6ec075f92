"""The attester: in AGGREGATE, compute the candidate for the next global adapter, measure it, and name its root.

Aggregation is a rule, not a person: integers in, integers out, so every honest attester names the same root. The
committee measures the candidate too. After its deadline any bonded participant may attest, then without figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flockchain.client import Json
from flockchain.errors import Refused
from flockchain.txs import attest_aggregate
from flockchain.types.task import CandidateFigure, Coefficient, Gain, Screen
from flockchain.workers.participant import Participant
from flockchain.workers.store import AdapterFolder
from flockchain.workers.view import Model, make_model
from ml import judge
from ml.adapter import make_global_manifest
from ml.merging import merge_files
from ml.screen import Screening

MakeMeter = Callable[[Json, Json, Model], judge.Meter]
"""(task, round, model) -> what measures adapters on the participant's holdout in this round."""


@dataclass(frozen=True, slots=True)
class MadeCandidate:
    """A candidate that was computed here and lies in the adapters' folder."""

    root: str
    size_bytes: int
    coefficients_ppm: dict[str, int]


class Attester:
    """The AGGREGATE part of a participant; `make_meter` is None for one without a holdout."""

    def __init__(
        self, participant: Participant, adapters: AdapterFolder, base_dir: Path, make_meter: MakeMeter | None = None
    ) -> None:
        self.participant = participant
        self.adapters = adapters
        self.base_dir = base_dir
        self.make_meter = make_meter
        self._uploaded: set[str] = set()

    def upload_settled(self, task: Json) -> None:
        """Give the settled global adapter to a node, so that trainers find it; every attester does, none is needed."""
        root = task["global_root"]
        if not root or root in self._uploaded or not self.adapters.path(root).exists():
            return
        try:
            self.participant.client.put_blob(bytes.fromhex(root), self.adapters.path(root))
            self._uploaded.add(root)
        except Refused as refusal:
            self.participant.report("upload refused", {"root": root, "message": refusal.message})

    def step(self, task: Json, round_: Json) -> None:
        """Attest if this participant owes it, or may now."""
        me = self.participant
        if any(row["attester"] == me.me for row in round_["attestations"]):
            return
        is_member = me.me in (member["address"] for member in round_["committee"])
        if not is_member and not round_["second_deadline"]:
            return
        name = f"task{task['id']}-round{round_['number']}-attest"
        if me.kept_body(name, attest_aggregate.Body) is None:
            body = self._make_body(task, round_, is_member)
            if body is None:
                return
            me.keep_body(name, body)
        me.send_kept(name, attest_aggregate.KIND, free=is_member)

    def _make_body(self, task: Json, round_: Json, is_member: bool) -> attest_aggregate.Body | None:
        """The candidate and what it measures; None while an accepted adapter's bytes are not to be had."""
        model = make_model(task, self.base_dir)
        accepted = sorted(v["root"] for v in round_["verdicts"] if v["outcome"] == "accept")
        made = self.make_candidate(task, round_, model, accepted)
        if made is None:
            return None
        self.participant.report("attesting", {"round": round_["number"], "candidate": made.root})
        figures: tuple[CandidateFigure, ...] = ()
        gains: tuple[Gain, ...] = ()
        screens: tuple[Screen, ...] = ()
        if is_member and self.make_meter is not None:
            meter = self.make_meter(task, round_, model)
            figures, gains = self._measure(task, round_, model, made, meter)
            screens = self._screen(made, meter)
        return attest_aggregate.Body(
            task=task["id"],
            round=round_["number"],
            candidate=bytes.fromhex(made.root),
            size_bytes=made.size_bytes,
            coefficients=tuple(Coefficient(bytes.fromhex(r), p) for r, p in sorted(made.coefficients_ppm.items())),
            figures=figures,
            gains=gains,
            screens=screens,
        )

    def make_candidate(self, task: Json, round_: Json, model: Model, roots: list[str]) -> MadeCandidate | None:
        """Aggregate the updates of `roots` onto the round's global adapter, in the adapters' folder."""
        paths = {root: self.adapters.find(root) for root in roots}
        base_root = round_["base_root"] or ""
        base_path = self.adapters.find(base_root) if base_root else None
        if None in paths.values() or (base_root and base_path is None):
            self.participant.report("waiting for adapters", {"round": round_["number"]})
            return None
        made = self.participant.folder / f"candidate-{len(roots)}.safetensors"
        manifest = make_global_manifest(model.spec, task=task["id"], round=round_["number"])
        found = {root: path for root, path in paths.items() if path is not None}
        coefficients_ppm = merge_files(
            model.aggregator, found, base_path, made, model.spec, manifest, norm_cap=model.norm_cap
        )
        root, size = self.adapters.keep(made)
        return MadeCandidate(root, size, coefficients_ppm)

    def _measure(
        self, task: Json, round_: Json, model: Model, made: MadeCandidate, meter: judge.Meter
    ) -> tuple[tuple[CandidateFigure, ...], tuple[Gain, ...]]:
        """Figures of the candidate on our holdout, and, under rules `merit` and `arena`, what each adapter adds.

        A failure to measure leaves the figures out: the root stands by itself, and no score is invented.
        """
        path = self.adapters.path(made.root)
        gains: list[Gain] = []
        try:
            figures = tuple(encode_candidate_figure(figure, model.domains) for figure in meter.judge_candidate(path))
            if task["spec"]["rewards"]["rule"] in ("merit", "arena"):
                for root in sorted(made.coefficients_ppm):
                    gains.extend(self._measure_gain(task, round_, model, made, meter, root))
        except judge.JudgingFailed as failure:
            self.participant.report("candidate not measured", {"reason": str(failure)})
            return (), ()
        return tuple(sorted(figures, key=lambda figure: figure.domain)), tuple(gains)

    def _screen(self, made: MadeCandidate, meter: judge.Meter) -> tuple[Screen, ...]:
        """What the screens say of the candidate; their reasons, which an attestation has no room for, are reported."""
        try:
            screened = meter.screen_candidate(self.adapters.path(made.root))
        except judge.JudgingFailed as failure:
            self.participant.report("candidate not screened", {"reason": str(failure)})
            return ()
        if screened.describe():
            self.participant.report("candidate screened", {"found": screened.describe()})
        return encode_screens(screened.screenings)

    def _measure_gain(
        self, task: Json, round_: Json, model: Model, made: MadeCandidate, meter: judge.Meter, root: str
    ) -> list[Gain]:
        others = sorted(set(made.coefficients_ppm) - {root})
        if not others:
            return []
        without = self.make_candidate(task, round_, model, others)
        assert without is not None, "their bytes were here a moment ago"
        found = meter.measure_gains(self.adapters.path(made.root), self.adapters.path(without.root))
        gains = {model.domains.index(domain): ppm for domain, ppm in found}
        return [Gain(bytes.fromhex(root), domain, ppm) for domain, ppm in sorted(gains.items())]


def encode_screens(screenings: Sequence[Screening]) -> tuple[Screen, ...]:
    """In the integers of the chain, sorted by name."""
    found = (Screen(item.name, item.value_ppm, item.threshold_ppm, item.is_alarm) for item in screenings)
    return tuple(sorted(found, key=lambda screen: screen.name))


def encode_candidate_figure(figure: judge.CandidateFigure, domains: Sequence[str]) -> CandidateFigure:
    return CandidateFigure(
        domain=domains.index(figure.domain),
        loss_ubpb=figure.loss_ubpb,
        previous_loss_ubpb=figure.previous_loss_ubpb,
        change_ppm=figure.previous.change_ppm,
        se_ppm=figure.previous.se_ppm,
        base_change_ppm=figure.base.change_ppm,
        base_se_ppm=figure.base.se_ppm,
    )
