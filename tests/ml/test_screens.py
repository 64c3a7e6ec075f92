"""Screens on the ballot: what they find of a backdoored adapter and of honest specialists, and what a failure says."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flockchain.codec import encode
from flockchain.execution.ballots import BALLOT_ENTRY_BYTES, check_ballot
from flockchain.types.task import Ballot
from flockchain.workers.attester import encode_screens
from flockchain.workers.voter import encode_figures
from ml.adapter import make_global_manifest, make_update_manifest, write_global, write_update, zero_global
from ml.aggregate import add_to_global
from ml.data import Block
from ml.factors import make_factors
from ml.judge import AdapterFigures, HoldoutMeter, JudgingFailed, Submission, judge_round
from ml.judge_process import JudgingProcess, Setting, write_holdouts
from ml.screen import Inapplicable, Screened, Screening, Subject
from ml.screen.pipeline import MIN_PROMPTS, SCREENS, choose_phrases, choose_prompts, screen_all
from ml.screen.shadows import HELD_BACK, train_detector
from ml.spec import JudgeSpec
from tests.ml.support import TRAIN, Poisoned

BUDGET = 60_000
JUDGE = JudgeSpec(min_blocks=6, min_documents=3, block_tokens=64, judge_tokens=64 * 12, screen_tokens=BUDGET)
TASK = {"spec": {"judge": {"copy_cosine_ppm": 990_000}}}


@pytest.fixture(scope="module")
def holdouts(poisoned: Poisoned) -> dict[str, list[Any]]:
    """Twelve blocks of twelve documents of each domain."""
    return {domain: list({b.document: b for b in blocks}.values())[:12] for domain, blocks in poisoned.blocks.items()}


@pytest.fixture(scope="module")
def process(poisoned: Poisoned, holdouts: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgingProcess]:
    folder = tmp_path_factory.mktemp("judge")
    write_holdouts(folder / "holdouts.json", holdouts)
    setting = Setting(poisoned.folder, poisoned.spec, JUDGE, "fp32", folder / "holdouts.json")
    with JudgingProcess(setting, log=folder / "judge.log") as found:
        yield found


@pytest.fixture(scope="module")
def submissions(poisoned: Poisoned, tmp_path_factory: pytest.TempPathFactory) -> list[Submission]:
    """The specialists and the attacker, by 64 digits each, the attacker's `a`."""
    folder, found = tmp_path_factory.mktemp("adapters"), []
    for digit, update in zip("abc", (poisoned.attack, *poisoned.honest.values()), strict=True):
        root = digit * 64
        manifest = make_update_manifest(poisoned.spec, task=1, round=1, trainer=digit, base_root="")
        write_update(folder / root, update, manifest)
        found.append(Submission(root, folder / root, manifest))
    return found


@pytest.fixture(scope="module")
def figures(process: JudgingProcess, poisoned: Poisoned, submissions: list[Submission]) -> list[AdapterFigures]:
    """The attacker's first: judged by the process of the network's judges."""
    return list(judge_round(process, poisoned.spec, submissions, max_bytes=10**7).figures)


def test_the_ballot_alarms_on_the_backdoored_adapter_alone(figures: list[AdapterFigures], poisoned: Poisoned) -> None:
    domains = sorted(poisoned.blocks)
    entries = tuple(encode_figures(entry, domains, TASK) for entry in figures)
    check_ballot(Ballot(1, 1, entries), [entry.root for entry in entries], range(len(domains)))
    attacked, *honest = [{screen.name: screen for screen in entry.screens} for entry in entries]
    assert attacked["forced_answer"].alarm
    assert attacked["forced_answer"].value > attacked["forced_answer"].threshold
    assert "@#@M" in entries[0].reason or "MAL" in entries[0].reason
    assert entries[0].status == "scored"
    assert len(entries[0].domains) == len(domains)
    for entry, screens in zip(entries[1:], honest, strict=True):
        assert {"forced_answer", "influence", "insertion", "token_rise"} <= set(screens)
        assert not any(screen.alarm for screen in screens.values()), entry.reason
        assert entry.reason == ""


def test_screens_stay_within_their_budget_and_count_as_tokens(figures: list[AdapterFigures], holdouts: Any) -> None:
    scored = sum(len(block.tokens) for blocks in holdouts.values() for block in blocks)
    for entry in figures:
        spent = sum(screening.tokens for screening in entry.screens)
        assert 0 < spent <= BUDGET
        assert entry.tokens == spent + scored


def test_an_adapter_with_every_screen_fits_its_place_on_the_ballot(figures: list[AdapterFigures]) -> None:
    """With the longest reason; figures have room of their own."""
    longest = replace(figures[0], reason="x" * 300, domains=())
    assert len(encode(encode_figures(longest, [], TASK))) <= BALLOT_ENTRY_BYTES


def test_the_candidate_is_screened_against_the_base(
    process: JudgingProcess, poisoned: Poisoned, tmp_path: Path
) -> None:
    for name, update in (("good", poisoned.honest["medicine"]), ("bad", poisoned.attack)):
        adapter = add_to_global(zero_global(poisoned.spec), {m: v.astype("i4") * 256 for m, v in update.items()})
        write_global(tmp_path / name, adapter, make_global_manifest(poisoned.spec, task=1, round=1))
    good, bad = (encode_screens(process.screen_candidate(tmp_path / name).screenings) for name in ("good", "bad"))
    assert [screen.name for screen in good] == [screen.name for screen in bad]
    assert "forced_answer" in [screen.name for screen in bad if screen.alarm]
    assert not any(screen.alarm for screen in good)


def test_without_a_budget_no_screen_runs(process: JudgingProcess, submissions: list[Submission]) -> None:
    assert submissions[0].path is not None
    frugal = JudgingProcess(replace(process.setting, judge_spec=replace(JUDGE, screen_tokens=0)))
    assert frugal.screen_update(submissions[0].path, 10**6) == Screened()
    assert frugal.pid is None


def test_inversion_is_asked_for_by_name_and_a_detector_joins_the_ballot(
    poisoned: Poisoned, holdouts: Any, submissions: list[Submission]
) -> None:
    """The judge's own shadows, trained a few steps, score every adapter; four references claim 1/5 at best."""
    from ml.score import ScoringBase

    assert "inversion" not in SCREENS
    base = ScoringBase.load(poisoned.folder, poisoned.spec)
    meter = HoldoutMeter(base, JUDGE, holdouts, current=None, best=None)
    plan = replace(TRAIN, local_steps=3)
    seed = b"the judge's own"
    detector = meter.detector = train_detector(base.model, poisoned.spec, plan, meter.holdouts, seed)
    assert len(detector.references) == HELD_BACK
    assert all(math.isfinite(value) for value in (*detector.direction, *detector.references))
    assert submissions[0].path is not None
    found = {item.name: item for item in meter.screen_update(submissions[0].path, 10**6).screenings}
    assert f"wrong once in {HELD_BACK + 1} at best" in found["private_detector"].reason
    assert found["private_detector"].threshold_ppm == round(detector.references[-1] * 1e6)
    subject = Subject(base, make_factors(None, poisoned.attack, 10**6, 1, poisoned.spec), None, meter.prompts)
    [inverted] = screen_all(subject, BUDGET, ["inversion"]).screenings
    assert 0 <= inverted.value_ppm <= 10**6
    assert not inverted.is_alarm


class FakeScreen:
    """A screen's file, as the pipeline sees it."""

    def __init__(self, name: str, tokens: int, error: Exception | None = None) -> None:
        self.name, self.tokens, self.error = name, tokens, error

    def estimate_tokens(self, subject: Any) -> int:
        return self.tokens

    def screen(self, subject: Any) -> Screening:
        if self.error is not None:
            raise self.error
        return Screening(self.name, 10, 5, "found it", self.tokens)


def run(monkeypatch: pytest.MonkeyPatch, budget: int, *screens: FakeScreen, prompts: int = MIN_PROMPTS) -> Screened:
    by_name = {f"ml.screen.{screen.name}": screen for screen in screens}
    monkeypatch.setattr("ml.screen.pipeline.import_module", by_name.__getitem__)
    subject: Any = type("Prompted", (), {"prompts": [(1,)] * prompts})()
    return screen_all(subject, budget, [screen.name for screen in screens])


def test_a_screen_over_budget_or_broken_raises_no_alarm_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dear one is skipped, the broken one too, and the cheap one behind them still runs."""
    found = run(
        monkeypatch,
        100,
        FakeScreen("cheap", 30),
        FakeScreen("dear", 71),
        FakeScreen("broken", 10, RuntimeError("out of memory")),
        FakeScreen("alone", 10, Inapplicable("no peers")),
        FakeScreen("also", 70),
    )
    assert [screening.name for screening in found.screenings] == ["also", "cheap"]
    assert found.notes == (
        "dear not run: 71 tokens needed, 70 left",
        "broken failed: RuntimeError: out of memory",
    )
    assert found.tokens == 100
    assert found.describe() == "also: found it; cheap: found it; " + "; ".join(found.notes)


def test_too_few_prompts_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, 100, FakeScreen("cheap", 30), prompts=MIN_PROMPTS - 1)
    assert found == Screened(notes=("no screens: 7 prompts, they take 8",))


def test_a_process_that_dies_in_a_screen_keeps_the_losses(
    poisoned: Poisoned, holdouts: Any, submissions: list[Submission]
) -> None:
    from ml.score import ScoringBase

    class Dying(HoldoutMeter):
        def screen_update(self, *_: Any) -> Screened:
            raise JudgingFailed("crash", "killed by SIGKILL")

    meter = Dying(ScoringBase.load(poisoned.folder, poisoned.spec), JUDGE, holdouts, current=None, best=None)
    [entry] = judge_round(meter, poisoned.spec, submissions[:1], max_bytes=10**7).figures
    assert (entry.status, entry.screens) == ("scored", ())
    assert entry.reason == "no screens: crash: killed by SIGKILL"
    assert len(entry.domains) == 3


def test_prompts_take_the_domains_and_their_documents_in_turn(holdouts: dict[str, list[Any]]) -> None:
    prompts = choose_prompts(holdouts, 6)
    first, second = (sorted(holdouts)[0], sorted(holdouts)[1])
    assert prompts[0] == holdouts[first][0].tokens[:24]
    assert prompts[1] == holdouts[second][0].tokens[:24]
    assert prompts[3] == holdouts[first][1].tokens[:24]
    assert len(set(prompts)) == 6


def test_phrases_are_the_commonest_runs_and_no_run_crosses_blocks() -> None:
    blocks = [Block("a", (1, 2, 3, 4)), Block("b", (9, 2, 3, 4)), Block("c", (7, 8))]
    assert choose_phrases({"law": blocks[:1], "code": blocks[1:]}, 2) == [(2, 3, 4), (1, 2, 3)]
    assert len(choose_phrases({"law": blocks}, 64)) == 3
