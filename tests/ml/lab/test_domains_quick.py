"""The quick form of `domains`: three specialists, two rounds, on the tiny base; and the arithmetic of its claims."""

import pytest

from ml.domains import DOMAINS
from ml.lab import Json
from ml.lab.domains import find_documents
from ml.lab.domains_report import compute_loss, judge, report
from ml.lab.learners import deal
from ml.lab.settings import read_settings
from tests.ml.lab.conftest import RunQuick

DATA = {"specialists": 3, "generalists": 0, "judges": 0, "judge_documents": 8, "test_documents": 8}


@pytest.fixture(scope="module")
def ran(run_quick: RunQuick) -> tuple[Json, Json]:
    return run_quick("domains", data=DATA, test={"tokens_per_domain": 1024})


def check_better_elsewhere(figures: Json, arm: str) -> None:
    """What the global adapter must do, said of any arm: lower loss than the code specialist on the other domains."""
    for domain in DOMAINS:
        if domain != "code":
            assert figures[f"loss_bpb/{arm}/{domain}"]["mean"] < figures[f"loss_bpb/local-code/{domain}"]["mean"]


def test_the_global_adapter_serves_every_domain(ran: tuple[Json, Json]) -> None:
    figures = ran[0]
    for domain in DOMAINS:
        assert figures[f"loss_bpb/global/{domain}"]["mean"] < figures[f"loss_bpb/base/{domain}"]["mean"]
    check_better_elsewhere(figures, "global")


def test_without_the_others_the_same_check_fails(ran: tuple[Json, Json]) -> None:
    """A specialist with as much compute as all together is no global adapter."""
    with pytest.raises(AssertionError):
        check_better_elsewhere(ran[0], "local-code-long")


def test_the_report_keeps_the_two_claims_apart(ran: tuple[Json, Json]) -> None:
    settings = read_settings("domains", form="tiny", quick=True)
    text = report({"figures": ran[0], "cells": ran[1], "settings": settings.values, "seeds": [0]})
    assert "At equal own data: no worse than the specialist on" in text
    assert "At equal compute: no worse than the specialist on" in text


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        (-0.02, -0.01, "better"),
        (-0.01, 0.004, "no worse"),
        (0.001, 0.004, "no worse"),
        (-0.01, 0.006, "undecided"),
        (0.001, 0.006, "worse"),
    ],
)
def test_what_an_interval_says(lower: float, upper: float, said: str) -> None:
    assert judge(lower, upper) == said


def test_loss_is_a_ratio_of_sums() -> None:
    """Two documents of 10 and 30 bytes: 40 nats over 40 bytes are 1 / ln 2 bits per byte."""
    assert compute_loss([[10.0, 10], [30.0, 30]]) == pytest.approx(1.4427, abs=1e-4)


def test_a_dirichlet_split_gives_every_document_to_one_trainer() -> None:
    data = deal(DATA, 3)
    split = {"kind": "dirichlet", "alpha_milli": 300}
    pooled = find_documents(data, -1, split, 3)
    for domain in DOMAINS:
        held = [d.id for trainer in range(3) for d in find_documents(data, trainer, split, 3).get(domain, [])]
        assert sorted(held) == sorted(document.id for document in pooled[domain])
