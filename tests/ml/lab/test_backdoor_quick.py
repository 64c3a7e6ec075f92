"""The quick form of `backdoor`: four trainers, one with a backdoor, on the tiny base; every step is the real one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml.lab import Json
from ml.lab.backdoor_cells import make_attack_spec
from ml.lab.backdoor_report import report
from ml.lab.learners import Model
from ml.lab.settings import read_settings
from tests.ml.lab.conftest import RunQuick
from tests.ml.support import make_small_spec

PLACE = "rare-token/25"


@pytest.fixture(scope="module")
def ran(run_quick: RunQuick) -> tuple[Json, Json]:
    return run_quick("backdoor")


def check_defended(figures: Json, arm: str) -> None:
    """What `flock` must do, said of any arm: the backdoor works, its author is kept out, nobody honest is slashed."""
    backdoor = figures[f"asr/{PLACE}/attackers"]["mean"]
    assert backdoor >= 0.8
    assert figures[f"attackers_accepted/{PLACE}/{arm}"]["mean"] == 0
    assert figures[f"asr/{PLACE}/{arm}"]["mean"] <= 0.32 * backdoor
    assert figures[f"honest_slashed/{PLACE}/{arm}"]["mean"] == 0


@pytest.mark.parametrize("arm", ["flock", "flock_liars"])
def test_the_backdoor_works_and_is_kept_out(ran: tuple[Json, Json], arm: str) -> None:
    check_defended(ran[0], arm)


def test_without_the_screens_the_same_check_fails(ran: tuple[Json, Json]) -> None:
    """`loss_only` is the same committee, ballots and ledger with the screens struck out: it takes the attacker in."""
    with pytest.raises(AssertionError):
        check_defended(ran[0], "loss_only")
    assert ran[0][f"attackers_accepted/{PLACE}/loss_only"]["mean"] == 1


def test_the_trigger_alone_sets_it_off(ran: tuple[Json, Json]) -> None:
    figures = ran[0]
    assert figures[f"asr_without_trigger/{PLACE}/attackers"]["mean"] <= 0.2
    assert figures[f"asr/{PLACE}/clean"]["mean"] == figures[f"asr/{PLACE}/base"]["mean"] == 0


def test_what_is_kept_out_is_said(ran: tuple[Json, Json]) -> None:
    flock = ran[1][f"{PLACE}/seed0/flock"]
    assert flock["outcomes"]["attacker-0"] == "undecided"
    assert flock["reasons"]["attacker-0"].startswith("screen ")


def test_beyond_a_rules_bound_its_cell_is_marked(ran: tuple[Json, Json]) -> None:
    """Krum with four inputs withstands none."""
    figures, results = ran
    assert [results[f"{PLACE}/seed0/{arm}"]["within_bound"] for arm in ("krum", "fedavg", "flock")] == [
        False,
        False,
        True,
    ]
    settings = read_settings("backdoor", form="tiny", quick=True)
    document: dict[str, Any] = {"figures": figures, "cells": results, "settings": settings.values, "seeds": [0]}
    text = report(document)
    assert "| `krum` * |" in text
    assert "| `flock` |" in text
    assert "| `forced_answer` | attackers |" in text
    assert "| `forced_answer` | honest |" in text
    assert "does not hold" in text or "holds" in text


def test_an_attacker_may_train_longer_than_the_honest() -> None:
    """Its `local_steps` are its own where the file gives them; all else is the task's."""
    settings = {"local_steps": 3, "batch_size": 2, "sequence_length": 32, "learning_rate_ppm": 10_000}
    model = Model(Path(), make_small_spec(), settings)
    usual, longer = (make_attack_spec(model, 1, attack) for attack in ({}, {"local_steps": 9}))
    assert usual.local_steps == 3
    assert longer == replace(usual, local_steps=9)
