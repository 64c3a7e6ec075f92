"""`noise`: the exact error of two looks, and honest adapters under committees drawn anew."""

import json
import random
from statistics import NormalDist

import pytest

from ml.lab.bank import Holder
from ml.lab.noise import compute_early_z, compute_two_look_error, judge_once, plan, report, summarize
from ml.lab.settings import read_settings
from ml.lab.task import make_meter_spec, make_task_spec
from tests.ml.lab.banks import DOMAINS, make_bank

TASK = {
    "rounds": 1,
    "trainers_drawn": 8,
    "seats": 3,
    "z_milli": 3600,
    "tolerance_ppm": 10_000,
    "min_blocks": 10,
    "min_documents": 5,
}


@pytest.mark.parametrize(("z", "error"), [(1.977, 0.025), (1.678, 0.05)])
def test_two_looks_have_the_published_error(z: float, error: float) -> None:
    """O'Brien and Fleming's constants for two looks: 2.797 and 1.977 at 2.5 %, 2.373 and 1.678 at 5 %, one-sided."""
    assert compute_two_look_error(z, compute_early_z(z)) == pytest.approx(error, rel=0.01)


def test_at_our_margin_the_early_look_costs_a_thousandth() -> None:
    plain = 1 - NormalDist().cdf(3.6)
    assert plain < compute_two_look_error(3.6, compute_early_z(3.6)) < plain * 1.002


def test_specialists_are_accepted_and_poisoners_rejected() -> None:
    bank, spec = make_bank(), make_task_spec(TASK, DOMAINS, "merit", 1)
    rng = random.Random(1)
    holders = [Holder(bank, make_meter_spec(TASK), 15, rng) for _ in range(3)]
    said = {adapter.author: judge_once(spec, bank, holders, adapter) for adapter in bank.adapters}
    assert said == {**{f"honest/{domain}": "accept" for domain in DOMAINS}, "sign_flip": "reject"}


def test_a_holder_measures_what_it_holds_and_once() -> None:
    bank = make_bank(honest=1, bad=0)
    holder = Holder(bank, make_meter_spec(TASK), 12, random.Random(2))
    assert {len(documents) for documents in holder.held.values()} == {12}
    adapter = bank.adapters[0]
    whole, half = holder.measure(adapter, "code"), holder.measure(adapter, "code", 6)
    assert whole is not None
    assert half is not None
    assert half.se_ppm > whole.se_ppm
    assert holder.measure(adapter, "code") is whole
    assert holder.measure(adapter, "code", 4) is None, "fewer than min_documents"


def test_the_report_explains_itself() -> None:
    settings = read_settings("noise", quick=True)
    author = {"proposals": 20, "left out": 1, "slashed": 0}
    cases = {
        f"z-{z}/tolerance-{t}/seats-{s}": {"authors": {"honest/code": author}, "slashed adapters": 0}
        for z in settings["z_milli"]
        for t in settings["tolerance_ppm"]
        for s in settings["seats"]
    }
    early = {"figures": 10, "settled at half": 5, "otherwise at the end": 0}
    results = {cell.name: {"cases": cases, "early": early, "adapters": 6} for cell in plan(settings)}
    text = report(json.loads(json.dumps({"settings": settings.values, "figures": summarize(settings, results)})))
    assert "| 5.00% " in text
    assert "0 of 6" in text
    assert "25.0%" in text
