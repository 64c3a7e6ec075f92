"""The quick form of `privacy` on the tiny base: budgets are kept, sequences that nobody else has are found without
protection and not with it, and the report says what it may."""

import pytest

from ml.lab import Json, LabError
from ml.lab.privacy_report import NOTHING_LEARNED, report
from ml.lab.settings import read_settings
from tests.ml.lab.conftest import RunQuick


@pytest.fixture(scope="module")
def ran(run_quick: RunQuick) -> tuple[Json, Json]:
    pytest.importorskip("opacus", reason="differential privacy is the extra `dp`: pip install 'flockchain[dp]'")
    return run_quick("privacy")


def test_the_rounds_together_keep_to_epsilon(ran: tuple[Json, Json]) -> None:
    figure = ran[0]["epsilon/epsilon8"]
    assert 7 < figure["mean"] <= 8


def test_canaries_are_exposed_without_protection_alone(ran: tuple[Json, Json]) -> None:
    """Eight copies among 24 documents: the update knows them, and under epsilon 8 it knows less."""
    plain, protected = (ran[0][f"exposure/{arm}/update/8"]["mean"] for arm in ("plain", "epsilon8"))
    assert plain > NOTHING_LEARNED + 1
    assert protected < plain


def test_the_report_says_that_the_model_is_tiny_and_names_what_does_not_hold(ran: tuple[Json, Json]) -> None:
    settings = read_settings("privacy", form="tiny", quick=True)
    document = {"figures": ran[0], "cells": ran[1], "settings": settings.values, "seeds": [0], "experiment": "privacy"}
    text = report(document)
    assert "**The model is tiny**" in text
    assert "`epsilon8` spends at most 8 | holds" in text
    spent = ran[0]["epsilon/epsilon8"] | {"by_seed": {"0": 8.5}}
    assert "| **does not hold** | 8.500 |" in report(document | {"figures": ran[0] | {"epsilon/epsilon8": spent}})


def test_without_the_library_the_lab_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opacus", None)
    settings = read_settings("privacy", form="tiny", quick=True)
    with pytest.raises(LabError, match=r"pip install 'flockchain\[dp\]'"):
        settings.get_module().plan(settings)
