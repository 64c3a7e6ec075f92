"""The quick form of `domains` on the tiny base, with two specialists and one held-out domain; and its arithmetic."""

import pytest

from ml.lab import Json
from ml.lab.domains_cells import find_documents
from ml.lab.domains_figures import OWN, compare, compute_loss
from ml.lab.domains_report import judge, report
from ml.lab.learners import deal
from ml.lab.settings import read_settings
from tests.ml.lab.conftest import RunQuick

DOMAINS, HELD_OUT = ("code", "medicine"), "recipes"
DATA = {"domains": list(DOMAINS), "held_out": [HELD_OUT], "specialists": 2, "test_documents": 12}


@pytest.fixture(scope="module")
def ran(run_quick: RunQuick) -> tuple[Json, Json]:
    few = {"trainers": 2, "data": DATA, "test": {"tokens_per_domain": 768}, "long_controls": ["local"]}
    return run_quick("domains", **few)


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


def test_held_out_domains_are_measured_and_trained_on_by_nobody(ran: tuple[Json, Json]) -> None:
    figures, cells = ran
    for other in ("base", "pooled", "local-code", "local-code-long"):
        assert figures[f"relative_loss/global/{other}/{HELD_OUT}"]["by_seed"]["0"] != 0
    assert list(cells["holdings/seed0"]["holdings"]["code"]) == ["code"]
    assert not any(HELD_OUT in held for held in cells["holdings/seed0"]["holdings"].values())


def test_the_report_keeps_the_two_claims_apart(ran: tuple[Json, Json]) -> None:
    settings = read_settings("domains", form="tiny", quick=True, overrides={"data": DATA, "trainers": 2})
    text = report({"figures": ran[0], "cells": ran[1], "settings": settings.values, "seeds": [0]})
    assert "| equal own data | specialists' own domain | 2 |" in text
    assert "| equal compute | their other domains | 2 |" in text
    assert "| held-out domains, against the base | 1 |" in text
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))
    assert "recipes (held out)" in text


def test_a_specialists_own_mixture_is_its_domain(ran: tuple[Json, Json]) -> None:
    for domain in DOMAINS:
        own = ran[0][f"relative_loss/global/local-{domain}/{OWN}"]
        assert own == ran[0][f"relative_loss/global/local-{domain}/{domain}"]


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
    """Two documents of 10 and 30 bytes: 40 nats over 40 bytes are 1 / ln 2 bits per byte; a mixture is a mean of it."""
    losses = {"code": [[10.0, 10], [30.0, 30]], "law": [[30.0, 10]]}
    assert compute_loss(losses, {"code": 1.0}) == pytest.approx(1.4427, abs=1e-4)
    assert compute_loss(losses, {"code": 0.25, "law": 0.75}) == pytest.approx(2.5 * 1.4427, abs=1e-3)


def test_bounds_come_from_documents_and_seeds() -> None:
    """A tenth less loss on every document is a tenth less on every draw; where documents disagree, bounds are apart."""
    other = {seed: {"code": [[10.0 + seed, 10], [30.0, 30], [5.0, 9]]} for seed in range(3)}
    less = {seed: {"code": [[0.9 * nats, count] for nats, count in held["code"]]} for seed, held in other.items()}
    shares = {seed: {"code": 1.0} for seed in range(3)}
    figure = compare(less, other, shares)
    assert [figure[name] for name in ("lower", "mean", "upper")] == pytest.approx([-0.1] * 3)
    mixed = {seed: {"code": [[9.0 + seed, 10], [33.0, 30], [5.0, 9]]} for seed in range(3)}
    spread = compare(mixed, other, shares)
    assert spread["lower"] < 0 < spread["upper"]
    assert spread["lower"] < spread["mean"] < spread["upper"]


def test_a_dirichlet_split_gives_every_document_to_one_trainer() -> None:
    settings = read_settings("domains-dirichlet").values
    data = deal(settings["data"], 3)
    held = [find_documents(data, trainer, settings["split"], 3) for trainer in range(4)]
    pooled = find_documents(data, -1, settings["split"], 3)
    assert sorted(pooled) == settings["data"]["domains"]
    for domain in pooled:
        ids = [document.id for own in held for document in own.get(domain, [])]
        assert sorted(ids) == sorted(document.id for document in pooled[domain])
    assert min(sum(map(len, own.values())) for own in held) >= 16
