"""`economics` on made-up adapters: the game is played on the real ledger, and honesty pays."""

import json
from pathlib import Path
from typing import Any

import pytest

from ml.lab.economics import GROUPS, plan, report, summarize
from ml.lab.game import MIN_BOND_UFLK, TRUTHFUL, Game
from ml.lab.settings import read_settings
from tests.ml.lab.banks import DOMAINS, make_bank

TASK = {
    "rounds": 9,
    "trainers": 10,
    "trainers_drawn": 8,
    "judges": 10,
    "seats": 9,
    "bond_tickets": 2,
    "documents": 15,
    "z_milli": 3600,
    "tolerance_ppm": 10_000,
    "min_blocks": 30,
    "min_documents": 10,
    "parts": 8,
}


def play(**changes: Any) -> Game:
    """One task, with 40 % poisoners and 20 % of the judges malicious."""
    settings = {
        "task": TASK,
        "domains": DOMAINS,
        "rule": "arena",
        "trainers": 0.4,
        "judges": 0.2,
        "seed": 3,
        "vote": "lying_judge",
        "split": 1,
        **changes,
    }
    game = Game(make_bank(), settings)
    for _ in range(settings["task"]["rounds"]):
        assert game.play_round()
    game.ledger.check()
    return game


@pytest.fixture(scope="module")
def game() -> Game:
    return play()


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_with_21_seats_poisoners_end_below_the_minimum_bond_and_the_honest_win(share: float) -> None:
    """Row 18 of the features, at both ends: 21 seats, a fifth of the judges' tickets lie."""
    found = play(trainers=share, judges=5 / 25, task={**TASK, "judges": 25, "seats": 21, "rounds": 8}).describe()[
        "groups"
    ]
    assert found["bad trainers"]["bond_uflk"] < found["bad trainers"]["accounts"] * MIN_BOND_UFLK
    assert found["honest trainers"]["net_uflk"] > 0
    assert found["honest trainers"]["bond_uflk"] == found["honest trainers"]["staked_uflk"]
    assert found["honest judges"]["net_uflk"] > 0


def test_poisoners_fall_below_the_minimum_bond_and_the_honest_win(game: Game) -> None:
    """40 % poisoners, a fifth of the judges lie, nine rounds."""
    found = game.describe()["groups"]
    assert found["bad trainers"]["bond_uflk"] / found["bad trainers"]["accounts"] < MIN_BOND_UFLK
    assert found["bad trainers"]["below_minimum"] == 4
    assert found["honest trainers"]["net_uflk"] > 0
    assert found["honest trainers"]["bond_uflk"] == found["honest trainers"]["staked_uflk"]
    assert found["honest judges"]["bond_uflk"] == found["honest judges"]["staked_uflk"]


def test_lying_judges_lose_what_honest_ones_win(game: Game) -> None:
    found = game.describe()["groups"]
    per_uflk = {what: found[what]["net_uflk"] / found[what]["staked_uflk"] for what in GROUPS}
    assert per_uflk["bad judges"] < 0 < per_uflk["honest judges"]


def test_nobody_honest_is_slashed_and_no_reward_is_stolen(game: Game) -> None:
    counts = game.describe()["counts"]
    assert counts["honest submitted"] > 40
    assert counts.get("honest slashed", 0) == 0
    assert counts.get("bad trainers' reward", 0) == 0
    assert counts["bad reject"] >= 16


def test_the_batch_verdict_slashes_the_honest_with_the_poisoners(game: Game) -> None:
    assert game.describe()["counts"]["batch honest slashed"] > 10


@pytest.mark.parametrize("vote", ["lazy_judge", "copied_vote", "colluding_minority", "withheld_reveal"])
def test_no_attack_on_votes_by_one_judge_pays_under_arena(vote: str) -> None:
    """But for the copy of another's ballot, which must be had before the seal and then is as good as its own."""
    found = play(judges="one", vote=vote, task={**TASK, "rounds": 4}).describe()["groups"]
    honest = found["honest judges"]["net_uflk"] / found["honest judges"]["accounts"]
    assert found["bad judges"]["net_uflk"] < honest * (1.3 if vote == "copied_vote" else 1.0)


def test_a_split_stake_is_as_many_accounts(game: Game) -> None:
    """Two malicious judges of two tickets each: four accounts, no more stake."""
    split = play(split=2, vote=TRUTHFUL, task={**TASK, "rounds": 1}).describe()["groups"]["bad judges"]
    whole = game.describe()["groups"]["bad judges"]
    assert (split["accounts"], split["staked_uflk"]) == (2 * whole["accounts"], whole["staked_uflk"])


def test_a_seed_is_a_game() -> None:
    task = {**TASK, "rounds": 2}
    assert play(task=task).describe() == play(task=task).describe()
    assert play(task=task).describe() != play(task=task, seed=4).describe()


def test_the_report_explains_itself(tmp_path: Path) -> None:
    """From what the planned cells would give, all tables come out."""
    settings = read_settings("economics", quick=True)
    one = play(task={**TASK, "rounds": 2}).describe()
    results = {cell.name: one for cell in plan(settings)}
    figures = summarize(settings, results)
    document = {"settings": settings.values, "figures": figures, "cells": results}
    text = report(json.loads(json.dumps(document)))
    for words in ("Rule `arena`: poisoners and liars", "Attacks on votes", "Is honesty the best response?", "95 %"):
        assert words in text
    assert "nan" not in text
