"""What a committee makes of a round: ballots onto the ledger, verdicts, the candidate, its own judgement.

Ballots are the judges' measurements as they stand, or with screens struck out: an arm that lacks a screen differs from
the whole in nothing else. FLock's batch verdict is kept beside as a baseline: one vote over the whole round's mean.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from flockchain.params import UFLK_PER_FLK
from flockchain.types.task import AdapterFigures, AttestationBody, CandidateFigure, DomainFigure, Screen
from ml.adapter import GlobalAdapter, Update, zero_global
from ml.aggregate import add_to_global, aggregate
from ml.attacks.votes import VoteContext, cast_vote
from ml.canonical import Array
from ml.figures import Change
from ml.judge import hash_adapter
from ml.lab import Json, LabError
from ml.lab.cells import Work
from ml.lab.defences import CANDIDATE, LIARS, LOSS_ONLY, PAPER, WITHOUT, aggregate_updates, make_global
from ml.lab.judging import ROUND, TASK, from_json, judge_candidate, make_meter, to_json
from ml.lab.learners import Model, deal
from ml.lab.learning_task import LIAR, give_seats, name_judges
from ml.lab.learning_task import to_json as task_to_json
from ml.lab.ledger import LedgerTask, Played
from ml.lab.standing import FIRST, Standing, get_round
from ml.screen import NO_ALARM_PPM

HONEST_SEATS, LIAR_SEATS = 12, 3
"""Of all measured judges, and of a liar: a fifth of all."""
POOL_UFLK = 9_000 * UFLK_PER_FLK
Ballots = dict[str, dict[str, AdapterFigures]]
"""By judge and trainer."""
Attested = dict[str, tuple[tuple[CandidateFigure, ...], tuple[Screen, ...]]]
"""By judge."""


class Said(msgspec.Struct):
    """What a committee said in a round."""

    ballots: Ballots
    attested: Attested


@dataclass
class Decided:
    """What the committee decided, and what came of it."""

    factors: dict[str, Array] | None
    """Of the next global adapter; None where the old one stays."""
    outcomes: dict[str, str]
    reasons: dict[str, str] = field(default_factory=dict)
    slashed_uflk: dict[str, int] = field(default_factory=dict)
    outcome: str = ""
    said: Json = field(default_factory=dict)
    """`Said`, for whoever plays the round again; empty where there was no round."""
    best: int = 0
    """The round that made the best adapter so far; 0: none."""
    drawn: list[str] = field(default_factory=list)
    """Who trains in the coming round."""
    screens: Json = field(default_factory=dict)
    """By trainer and screen that can alarm: each judge's value and the threshold, in ppm."""

    def describe(self) -> Json:
        honest = [name for name in self.outcomes if name.startswith("honest")]
        return {
            "outcomes": self.outcomes,
            "reasons": self.reasons,
            "outcome": self.outcome,
            "slashed_uflk": self.slashed_uflk,
            "screens": self.screens,
            "honest_left_out": sum(self.outcomes[name] != "accept" for name in honest),
            "honest_slashed": sum(name in self.slashed_uflk for name in honest),
            "attackers_accepted": sum(o == "accept" for name, o in self.outcomes.items() if name not in honest),
        }


def run_committee(
    work: Work,
    model: Model,
    make_task: Callable[[Work, Model, int, int], Any],
    updates: Mapping[str, Update],
    standing: Standing = FIRST,
) -> Decided:
    """The arm of the cell, on the entries of the judges whose cells it needs."""
    arm = work.settings["arm"]
    judges = [need for need in work.cell.needs if need.run.endswith(":judge") and get_round(need) == standing.number]
    names, has_liar = name_judges(len(judges)), arm == LIARS or work.settings.get("liar", False)
    seats = give_seats(len(judges), HONEST_SEATS // len(judges), LIAR_SEATS if has_liar else 0)
    task = make_task(work, model, len(work.settings["names"]), sum(seats.values()))
    if arm == PAPER:
        return _decide_batch(work, model, task, updates)
    ballots = {
        name: from_json(work.result(need)["entries"], dict[str, AdapterFigures])
        for name, need in zip(names, judges, strict=True)
    }
    struck = _find_struck(arm)
    ballots = {judge: {name: _strike(entry, struck) for name, entry in said.items()} for judge, said in ballots.items()}
    if has_liar:
        ballots[LIAR] = _lie(ballots, task)
    return _settle(work, model, task, updates, ballots, seats, struck, standing)


def _find_struck(arm: str) -> set[str]:
    """Names of screens that an arm goes without; `*` is all of them."""
    if arm == LOSS_ONLY:
        return {"*"}
    return {arm.removeprefix(WITHOUT)} if arm.startswith(WITHOUT) else set()


def _strike(entry: AdapterFigures, struck: set[str]) -> AdapterFigures:
    return msgspec.structs.replace(entry, screens=_keep(entry.screens, struck))


def _keep(screens: Sequence[Screen], struck: set[str]) -> tuple[Screen, ...]:
    return tuple(screen for screen in screens if "*" not in struck and screen.name not in struck)


def _lie(ballots: Ballots, task: Any) -> dict[str, AdapterFigures]:
    """What the attacker's judge says instead of what it measured: ml/attacks/votes/lying_judge.py, and no alarm."""
    said = ballots[sorted(ballots)[0]]
    honest = {
        name: {figure.domain: Change(figure.change_ppm, figure.se_ppm) for figure in entry.domains}
        for name, entry in said.items()
    }
    friends = frozenset(name for name in said if not name.startswith("honest"))
    lies = cast_vote("lying_judge", VoteContext(honest, friends, tolerance_ppm=task.judge.tolerance_ppm))
    assert lies is not None
    return {
        name: msgspec.structs.replace(entry, screens=(), domains=_encode_lie(lies[name]))
        for name, entry in said.items()
    }


def _encode_lie(figures: Mapping[Any, Change]) -> tuple[DomainFigure, ...]:
    return tuple(DomainFigure(d, f.change_ppm, f.se_ppm, f.change_ppm, f.se_ppm) for d, f in sorted(figures.items()))


def _settle(
    work: Work,
    model: Model,
    task: Any,
    updates: Mapping[str, Update],
    ballots: Ballots,
    seats: Mapping[str, int],
    struck: set[str],
    standing: Standing,
) -> Decided:
    """The round on the ledger, from enrolment to settlement, after those before it."""
    ledger = _open_ledger(work, task, seats, standing)
    made: list[GlobalAdapter] = []
    attested: Attested = {}

    def attest(judge: str, accepted: Sequence[tuple[str, bytes]]) -> AttestationBody:
        if not made:
            made.append(_make_candidate(model, task, {name: updates[name] for name, _ in accepted}, standing))
        attested[judge] = _attest(work, model, task, list(seats).index(judge), made[0], struck, standing)
        return make_attestation(attested[judge])

    played = ledger.play_round(lambda judge, authors: tuple(ballots[judge][name] for name in authors), attest)
    if played is None:
        if standing.number == 1:
            raise LabError("the ledger drew nobody: the settings give too few judges for a committee, or no trainers")
        return Decided(None, {}, outcome="no round: the task has ended")
    ledger.check()
    settles = bool(played.round.candidate_root) and played.round.result_root == played.round.candidate_root
    verdicts = {ledger.names[verdict.trainer]: verdict for verdict in played.round.verdicts}
    return Decided(
        factors=make_global(made[0], model.spec) if settles else None,
        outcomes={name: verdict.outcome for name, verdict in sorted(verdicts.items())},
        reasons={name: verdict.reason for name, verdict in sorted(verdicts.items())},
        slashed_uflk=_sum_slashes(ledger, played),
        outcome=played.round.outcome,
        said=to_json(Said(ballots, attested)),
        best=ledger.find_best_round(),
        drawn=sorted(ledger.draw_trainers()),
        screens=_list_screens(ballots),
    )


def _list_screens(ballots: Ballots) -> Json:
    """{trainer: {screen: {"values_ppm": one for each judge that ran it, "threshold_ppm"}}}."""
    found: Json = {}
    for _, said in sorted(ballots.items()):
        for name, entry in sorted(said.items()):
            for screen in entry.screens:
                if 0 < screen.threshold < NO_ALARM_PPM:
                    row = {"values_ppm": [], "threshold_ppm": screen.threshold}
                    kept = found.setdefault(name, {}).setdefault(screen.name, row)
                    kept["values_ppm"].append(screen.value)
    return found


def _open_ledger(work: Work, task: Any, seats: Mapping[str, int], standing: Standing) -> LedgerTask:
    """The ledger before this round: all that was said in those before is said again, and comes to the same.

    `spare_milli` is what every bond holds beyond its tickets, in thousandths of one: so much can be slashed before the
    first ticket is lost.
    """
    names: list[str] = work.settings["names"]
    tickets = dict.fromkeys(names, 1) | dict(seats)
    spare_uflk = work.settings.get("spare_milli", 0) * task.min_bond_uflk // 1_000
    bonds = {name: count * task.min_bond_uflk + spare_uflk for name, count in tickets.items()}
    ledger = LedgerTask(task, bonds, names, pool_uflk=POOL_UFLK, seed=work.settings["seed"])
    for before in standing.played:
        if before["said"]:
            play_again(ledger, from_json(before["said"], Said))
    return ledger


def play_again(ledger: LedgerTask, said: Said) -> None:
    played = ledger.play_round(
        lambda judge, authors: tuple(said.ballots[judge][name] for name in authors),
        lambda judge, _: make_attestation(said.attested[judge]),
    )
    assert played is not None


def make_attestation(said: tuple[tuple[CandidateFigure, ...], tuple[Screen, ...]]) -> AttestationBody:
    """Root, round and coefficients are filled in by the ledger."""
    figures, screens = said
    return AttestationBody(TASK, ROUND, bytes(32), 1, (), figures, gains=(), screens=screens)


def _sum_slashes(ledger: LedgerTask, played: Played) -> dict[str, int]:
    """uflk by name; nobody with nothing."""
    taken: dict[str, int] = {}
    for receipt in played.receipts:
        if receipt.kind == "slash":
            name = ledger.names[receipt.account]
            taken[name] = taken.get(name, 0) + receipt.amount_uflk
    return taken


def _make_candidate(model: Model, task: Any, accepted: Mapping[str, Update], standing: Standing) -> GlobalAdapter:
    """By the task's rule, on the current global adapter."""
    combined = aggregate(task.model.aggregator, accepted, model.spec, norm_cap=task.model.norm_cap)
    return add_to_global(standing.current or zero_global(model.spec), combined.delta)


def _attest(
    work: Work, model: Model, task: Any, number: int, adapter: GlobalAdapter, struck: set[str], standing: Standing
) -> tuple[tuple[CandidateFigure, ...], tuple[Screen, ...]]:
    """What judge `number` says of the candidate; the liar, the last one, and an arm without this step say nothing."""
    if number >= work.settings["data"]["judges"] or CANDIDATE in struck:
        return (), ()
    figures, screens = _judge_candidate(work, model, task, number, adapter, standing)
    return figures, _keep(screens, struck)


def _judge_candidate(
    work: Work, model: Model, task: Any, number: int, adapter: GlobalAdapter, standing: Standing
) -> tuple[tuple[CandidateFigure, ...], tuple[Screen, ...]]:
    """One judge's figures and screens; equal candidates of several arms are judged once."""
    settings = work.settings
    facts = [settings[name] for name in ("model", "data", "judge", "seed", "norm_cap_milli")]
    digest = hashlib.sha256(json.dumps([number, *facts], sort_keys=True).encode())
    for module, values in sorted(adapter.items()):
        digest.update(module.encode() + np.ascontiguousarray(values).tobytes())
    if standing.number > 1:
        digest.update(f"{standing.number} {hash_adapter(standing.current)} {hash_adapter(standing.best)}".encode())
    path = work.folder / f"candidate-{digest.hexdigest()[:32]}.json"
    if not path.exists():
        data = deal(settings["data"], settings["seed"])
        meter = make_meter(model, data, settings["judge"], task_to_json(task), number, standing)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(to_json(judge_candidate(meter, model, task.domains, adapter))))
        partial.replace(path)
    kept = json.loads(path.read_text())
    found: tuple[tuple[CandidateFigure, ...], tuple[Screen, ...]] = from_json(
        kept, tuple[tuple[CandidateFigure, ...], tuple[Screen, ...]]
    )
    return found


def _decide_batch(work: Work, model: Model, task: Any, updates: Mapping[str, Update]) -> Decided:
    """FLock's verdict over the whole batch, after arXiv:2307.00543: every judge compares the round's plain mean with
    the global model on its own clean data. With most votes for it all are in, else all are out and slashed.
    """
    adapter = aggregate_updates("mean", updates, model.spec, zero_global(model.spec))
    votes = []
    for number in range(work.settings["data"]["judges"]):
        figures, _ = _judge_candidate(work, model, task, number, adapter, FIRST)
        votes.append(sum(f.loss_ubpb for f in figures) < sum(f.previous_loss_ubpb for f in figures))
    is_in = 2 * sum(votes) > len(votes)
    outcome = f"{sum(votes)} of {len(votes)} judges found the batch better"
    slashed = {} if is_in else dict.fromkeys(updates, task.min_bond_uflk * task.penalties.rejected_ppm // 1_000_000)
    return Decided(
        factors=make_global(adapter, model.spec) if is_in else None,
        outcomes=dict.fromkeys(updates, "accept" if is_in else "reject"),
        slashed_uflk=slashed,
        outcome=outcome,
    )
