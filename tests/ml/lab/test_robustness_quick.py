"""The quick form of `robustness`: two kinds of attack on five trainers of the tiny base, a few steps each."""

import pytest

from ml.lab import Json
from ml.lab.robustness_report import report
from ml.lab.settings import merge, read_settings
from tests.ml.lab.conftest import RunQuick

CHANGES = {
    "trainers": 5,
    "attackers": [0, 2],
    "only": ["alie", "gradient-ascent"],
    "defences": ["fedavg", "median", "flock"],
    "model": {"local_steps": 10, "learning_rate_ppm": 5_000},
    "data": {"specialists": 5, "generalists": 3, "judge_documents": 12, "test_documents": 12},
    "judge": {"blocks": 30, "block_tokens": 32, "screen_tokens": 0},
    "test": {"tokens_per_domain": 1024},
}


@pytest.fixture(scope="module")
def ran(run_quick: RunQuick) -> tuple[Json, Json]:
    return run_quick("robustness", form="", **CHANGES)


def test_ascent_costs_the_plain_mean_its_gain_and_is_kept_out_by_the_committee(ran: tuple[Json, Json]) -> None:
    figures, results = ran
    lost = {arm: figures[f"gain_lost/gradient-ascent/40/{arm}"]["mean"] for arm in ("fedavg", "flock", "clean")}
    assert lost["fedavg"] > 0.5
    assert lost["flock"] < lost["fedavg"]
    assert results["gradient-ascent/40/seed0/flock"]["honest_slashed"] == 0


def test_without_attackers_nothing_is_lost_and_all_attacks_share_their_cells(ran: tuple[Json, Json]) -> None:
    figures, results = ran
    assert figures["gain_lost/alie/0/clean"]["mean"] == 0
    assert results["alie/0/seed0/fedavg"] == results["gradient-ascent/0/seed0/fedavg"]


def test_the_report_shows_the_worst_attack_of_each_share(ran: tuple[Json, Json]) -> None:
    figures, results = ran
    values = merge(read_settings("robustness").values, CHANGES)
    text = report({"figures": figures, "cells": results, "settings": values, "seeds": [0]})
    assert "| defence | 0 % | 40 % |" in text
    assert f"({figures['gain_lost/fedavg/40']['of']})" in text
