"""What goes on from round to round: the ledger, the attackers' caution, where a cell starts; without a model."""

import dataclasses

import pytest

from flockchain.types.task import AdapterFigures, AttestationBody, CandidateFigure, DomainFigure
from ml.attacks import compute_median_norm2
from ml.lab import Json
from ml.lab.backdoor import Scene
from ml.lab.backdoor_rounds import Task, describe_cost, plan, report, summarize
from ml.lab.caution import adapt_options, compute_caution_milli, shorten
from ml.lab.cells import list_all
from ml.lab.committee import Said, make_attestation, play_again
from ml.lab.judging import from_json, to_json
from ml.lab.ledger import LedgerTask
from ml.lab.settings import read_settings
from ml.lab.standing import get_round
from ml.lab.task import make_task_spec
from ml.norms import norm2
from tests.ml.support import is_equal, make_small_spec, make_update

MIN_BOND_UFLK = 10_000_000
TRAINERS, JUDGES = ("honest-0", "honest-1", "attacker-0"), ("judge-0", "judge-1", "judge-2")
DOMAINS = ("code", "medicine")


def is_friend(name: str) -> bool:
    return name.startswith("attacker")


def open_ledger(spare_uflk: int) -> LedgerTask:
    """Three trainers and three judges with one ticket each, and so much more in every bond."""
    settings = {"rounds": 3, "trainers_drawn": 3, "seats": 3, "z_milli": 3_600, "tolerance_ppm": 5_000}
    settings |= {"min_blocks": 8, "min_documents": 4}
    bonds = dict.fromkeys((*TRAINERS, *JUDGES), MIN_BOND_UFLK + spare_uflk)
    spec = make_task_spec(settings, DOMAINS, "flalliance", MIN_BOND_UFLK)
    return LedgerTask(spec, bonds, TRAINERS, pool_uflk=9 * MIN_BOND_UFLK, seed=0)


def say(is_harm: bool) -> AdapterFigures:
    """Ten percent worse in every domain, or better."""
    change = 100_000 if is_harm else -100_000
    figures = tuple(DomainFigure(domain, change, 1_000, change, 1_000) for domain in range(len(DOMAINS)))
    return AdapterFigures(bytes(32), "scored", "", figures, ())


SAID = Said(
    {judge: {name: say(name.startswith("attacker")) for name in TRAINERS} for judge in JUDGES},
    dict.fromkeys(JUDGES, ((), ())),
)


def attest(judge: str, accepted: object) -> AttestationBody:
    return make_attestation(SAID.attested[judge])


def test_a_rejected_trainer_without_spare_bond_is_drawn_no_more() -> None:
    ledger = open_ledger(0)
    assert set(ledger.draw_trainers()) == set(TRAINERS)
    play_again(ledger, SAID)
    assert set(ledger.draw_trainers()) == {"honest-0", "honest-1"}


def test_a_rejected_trainer_with_spare_bond_comes_back_until_it_is_spent() -> None:
    """A tenth of the bond, then two: 1.25 of a ticket last one rejection."""
    ledger = open_ledger(MIN_BOND_UFLK // 4)
    drawn = []
    for _ in range(3):
        drawn.append("attacker-0" in ledger.draw_trainers())
        play_again(ledger, SAID)
    assert drawn == [True, True, False]
    assert ledger.draw_trainers() == ()


def test_the_best_round_is_the_last_whose_candidate_was_better() -> None:
    """The first is, the second is worse and refused, the third stays as it was."""
    ledger, found = open_ledger(0), []
    for change in (-50_000, 50_000, 0):
        figures = tuple(CandidateFigure(d, 10**6 + change, 10**6, change, 1_000, change, 1_000) for d in range(2))
        play_again(ledger, Said(SAID.ballots, dict.fromkeys(JUDGES, (figures, ()))))
        found.append(ledger.find_best_round())
    assert found == [1, 1, 1]


def test_what_was_said_comes_to_the_same_when_it_is_said_again() -> None:
    """Through JSON, as a cell keeps it."""
    kept = from_json(to_json(SAID), Said)
    first, second = open_ledger(0), open_ledger(0)
    played = first.play_round(lambda judge, authors: tuple(SAID.ballots[judge][name] for name in authors), attest)
    play_again(second, kept)
    assert played is not None
    assert list(first.state.rows()) == list(second.state.rows())


def make_played(outcomes: dict[str, str], settled: bool = True) -> Json:
    return {"round": 3, "settled": 3 if settled else 2, "outcomes": outcomes}


@pytest.mark.parametrize(
    ("accepted", "caution"),
    [([], 1_000), ([0], 2_000), ([1], 1_000), ([0, 0, 0, 0], 8_000), ([0, 2], 1_500), ([0, 2, 2], 1_125)],
)
def test_caution_doubles_when_most_are_refused_and_falls_by_a_quarter(accepted: list[int], caution: int) -> None:
    """Two colluders; so many of them accepted, by round. One of two is half."""
    played = [
        make_played({"attacker-0": "accept" if n > 0 else "undecided", "attacker-1": "accept" if n > 1 else "reject"})
        for n in accepted
    ]
    assert compute_caution_milli(played, is_friend) == caution


def test_what_was_accepted_and_not_settled_did_not_come_in() -> None:
    assert compute_caution_milli([make_played({"attacker-0": "accept"}, settled=False)], is_friend) == 2_000


@pytest.mark.parametrize("outcomes", [{"honest-0": "reject"}, {"attacker-0": "not drawn", "honest-0": "reject"}])
def test_a_round_without_the_colluders_teaches_them_nothing(outcomes: dict[str, str]) -> None:
    assert compute_caution_milli([make_played(outcomes)], is_friend) == 1_000


def test_a_cautious_attacker_is_weaker_and_better_hidden() -> None:
    assert adapt_options("adaptive", {"scale_milli": 2_500}, 1_000) == {"scale_milli": 2_500}
    adapted = adapt_options("adaptive", {"scale_milli": 2_500}, 2_000)
    assert (adapted["scale_milli"], adapted["weight_milli"], adapted["near_misses"]) == (1_250, 2_000, 1)
    assert adapt_options("common_phrase", {}, 2_000) == {"scale_milli": 500}
    assert adapt_options("slow_drip", {}, 4_000) == {"norm_milli": 250, "poison_every": 8}


def test_after_a_refusal_no_update_is_longer_than_what_was_accepted() -> None:
    spec = make_small_spec()
    own, accepted = make_update(spec, 1), [make_update(spec, seed, 20) for seed in (2, 3, 4)]
    shortened = shorten(own, accepted, spec, 2_000)
    assert norm2(shortened, spec) <= compute_median_norm2(accepted, spec) < norm2(own, spec)
    assert is_equal(shorten(own, accepted, spec, 1_000), own)
    assert is_equal(shorten(own, [], spec, 2_000), own)


def test_the_cells_of_a_single_round_keep_their_keys() -> None:
    """Results are kept under their keys for weeks: another key would train and judge everything again."""
    values = {"model": {"base": "tiny"}, "data": {"generalists": 1, "judges": 1}, "judge": {"blocks": 8}}
    values |= {"norm_cap_milli": 3_000, "test": {"prompts": 6}}
    settings = dataclasses.replace(read_settings("backdoor"), values=values)
    flock = Scene(settings, 7, "rare-token", {"attack": "backdoor"}, 2, 1).plan_arm("flock")
    assert flock.key == "3e3112fd175341dd0065d8e5ab3268d3342a09a60fbcf2f582b55af55fe0500e"


def test_arms_and_attacks_share_what_they_have_in_common() -> None:
    """The first round's updates among arms, the whole of `clean` among attacks; a later round needs all before it."""
    settings = read_settings("backdoor-rounds")
    attacks = settings["attacks"]

    def list_cells(name: str, arm: str) -> set[str]:
        return {cell.key for cell in list_all(list(Task(settings, 0, name, attacks[name], arm).plan_measurements()))}

    both = list_cells("rare-token", "flock") & list_cells("rare-token", "fedavg")
    assert len(both) == 1 + settings["trainers"]
    clean = list_cells("adaptive", "clean") & list_cells("split", "clean")
    honest = settings["trainers"] - settings["attackers"]
    assert len(clean) == settings["rounds"] * (honest + 1) + 1
    (*_, last) = Task(settings, 0, "split", attacks["split"], "flock").plan_measurements()
    (play,) = last.needs
    assert [get_round(need) for need in play.needs if need.run.endswith(":play_round")] == [3, 2, 1]


def make_result(rate: float, loss: float, accepted: int | None) -> Json:
    asr = {"with_trigger": rate, "without_trigger": 0.0, "random_token": 0.1, "prompts": 20}
    found: Json = {"asr": asr, "loss": {"code": loss}, "within_bound": True, "outcomes": {}, "outcome": "said"}
    if accepted is not None:
        found |= {"honest_left_out": 1, "honest_slashed": 0, "attackers_accepted": accepted, "reasons": {}}
    return found


def test_the_report_shows_each_round_and_claims_the_last() -> None:
    """Two rounds of two seeds: FedAvg falls in the second, flock accepts an attacker in the first and is not hurt."""
    rounds = {"base": ((0.0, 4.0), (0.0, 4.0)), "clean": ((0.0, 3.5), (0.0, 3.0))}
    rounds |= {"fedavg": ((0.1, 3.5), (0.9, 3.0)), "flock": ((0.0, 3.5), (0.05, 3.2))}
    results = {
        f"split/40/seed{seed}/{arm}/round{number}": make_result(rate, loss, 2 - number if arm == "flock" else None)
        for arm, found in rounds.items()
        for number, (rate, loss) in enumerate(found, start=1)
        for seed in (0, 1)
    }
    settings = read_settings("backdoor-rounds", overrides={"rounds": 2, "defences": ["fedavg", "flock"]})
    figures = summarize(settings, results)
    assert figures["asr/split/40/fedavg"]["mean"] == figures["asr/fedavg"]["mean"] == 0.9
    assert figures["asr/split/40/fedavg/round1"]["mean"] == 0.1
    assert figures["gain_lost/split/40/flock"]["mean"] == pytest.approx(0.2)
    assert figures["attackers_accepted/split/40/flock"]["mean"] == 0.5
    assert figures["attackers_accepted/split/40/flock/round1"]["mean"] == 1
    text = report({"figures": figures, "cells": results, "settings": settings.values, "seeds": [0, 1]})
    assert "| split, 40 % | 0.90 | 0.05, wanted at most 0.29: holds | 20.0 %, wanted at most 10 %: **does not" in text
    assert "| `fedavg` | 0.10 (" in text
    assert "| `flock` | 1 | 0.00 (" in text
    assert "| 1.0 | 0.0 | 1.0 |" in text


def test_a_short_run_is_the_beginning_of_the_whole() -> None:
    """Not one of its cells is another; and it says what it takes."""
    whole, short = read_settings("backdoor-rounds"), read_settings("backdoor-rounds", form="short")
    cells = {settings.name: {cell.key for cell in list_all(plan(settings))} for settings in (whole, short)}
    assert cells["backdoor-rounds-short"] < cells["backdoor-rounds"]
    said = describe_cost(short)
    assert said.startswith(f"{len(cells['backdoor-rounds-short'])} cells a seed: ")
    assert "of 12,288 tokens" in said


def test_judges_run_no_screens_where_these_are_struck_out() -> None:
    settings = read_settings("backdoor-rounds")
    for arm, tokens in (("loss_only", 0), ("flock", settings["judge"]["screen_tokens"])):
        cells = list_all(Task(settings, 1, "split", settings["attacks"]["split"], arm).plan_measurements())
        judges = [cell for cell in cells if cell.run.endswith(":judge")]
        assert {cell.settings["judge"]["screen_tokens"] for cell in judges} == {tokens}
        assert len(judges) == settings["rounds"] * settings["data"]["judges"]
