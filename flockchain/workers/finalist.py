"""The judge of a revealed final set: measure the task's last global adapter against its first, and say so once."""

import shutil
from collections.abc import Callable
from pathlib import Path

from flockchain.client import Json
from flockchain.txs import judge_final
from flockchain.types.task import AdapterFigures, DomainFigure, Status
from flockchain.workers.participant import Participant
from flockchain.workers.store import AdapterFolder
from flockchain.workers.view import Model, make_judge_spec, make_model
from ml import judge
from ml.data import DataError, Holdout
from ml.final_set import read_final_set
from ml.tokens import BaseTokenizer

FETCH_MARGIN_PART = 4
"""In the last quarter of its time a judge says that it could not get the file."""
MakeFinalMeter = Callable[[Json, Json, Model, Holdout], judge.Meter]
"""(task, final, model, holdout) -> what measures adapters against the task's first one on the revealed text."""


class FinalJudge:
    """The part of a voter that comes after the last round."""

    def __init__(
        self, participant: Participant, adapters: AdapterFolder, base_dir: Path, make_meter: MakeFinalMeter
    ) -> None:
        self.participant = participant
        self.adapters = adapters
        self.base_dir = base_dir
        self.make_meter = make_meter

    def step(self, task: Json) -> None:
        """Judge if this participant owes it."""
        me = self.participant
        final = me.client.final(task["id"])
        if final is None or final["phase"] != "judge" or final["draw"] is None:
            return
        is_drawn = any(member["address"] == me.me for member in final["draw"]["drawn"])
        if not is_drawn or any(vote["judge"] == me.me for vote in final["votes"]):
            return
        name = f"task{task['id']}-final"
        if me.kept_body(name, judge_final.Body) is None:
            entry = self._judge(task, final)
            if entry is None:
                return
            me.keep_body(name, judge_final.Body(task["id"], entry))
        me.send_kept(name, judge_final.KIND)

    def _judge(self, task: Json, final: Json) -> AdapterFigures | None:
        """What this judge finds; None while the bytes may still come."""
        path, last = self.adapters.find(final["terms"]["root"]), self.adapters.find(task["global_root"])
        if path is None or last is None:
            margin_ms = final["terms"]["judge_ms"] // FETCH_MARGIN_PART
            is_late = final["deadline_ms"] - self.participant.now_ms() <= margin_ms
            # Only the final set is the creator's to give; a missing adapter is nobody's fault here.
            status: Status = "unavailable" if path is None else "abstain"
            return _make_entry(task, status, "its bytes could not be had") if is_late else None
        model = make_model(task, self.base_dir)
        text = self.participant.folder / "final.jsonl"  # documents are told by the name of their file
        shutil.copyfile(path, text)
        try:
            holdout = read_final_set(text, model.domains, BaseTokenizer(model.base_dir), make_judge_spec(task))
        except DataError as error:
            return _make_entry(task, "malformed", str(error).replace(str(text), "the final set"))
        try:
            figures = self.make_meter(task, final, model, holdout).judge_candidate(last)
        except judge.JudgingFailed as failure:
            return _make_entry(task, "abstain", str(failure))
        return _make_entry(task, "scored", "", tuple(sorted(map(_encode(model), figures), key=lambda f: f.domain)))


def _encode(model: Model) -> Callable[[judge.CandidateFigure], DomainFigure]:
    def encode(figure: judge.CandidateFigure) -> DomainFigure:
        domain, change = model.domains.index(figure.domain), figure.previous
        return DomainFigure(domain, change.change_ppm, change.se_ppm, change.change_ppm, change.se_ppm)

    return encode


def _make_entry(task: Json, status: Status, reason: str, figures: tuple[DomainFigure, ...] = ()) -> AdapterFigures:
    return AdapterFigures(bytes.fromhex(task["global_root"]), status, reason[:256], figures, ())
