"""Attackers on adapters and figures: what they score where the answer is known, and by chance where there is none."""

import numpy as np
import pytest

from ml.lab.membership import (
    compute_auc,
    compute_exposure,
    compute_hits,
    score_by_figures,
    score_by_loss,
    score_by_shadows,
)

MODELS, DOCUMENTS = 8, 400
BASE = np.full((MODELS, DOCUMENTS), 3.0)


def make_round(effect: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Losses of models that take `effect` deviations of noise off a member's loss, and a share of each document's own
    that is larger than that off everybody's: only shadows can tell the two apart."""
    random = np.random.default_rng(seed)
    members = random.random((MODELS, DOCUMENTS)) < 0.5
    easy = random.normal(0, 5, DOCUMENTS)
    return 3.0 - 0.01 * (easy + random.normal(size=(MODELS, DOCUMENTS)) + effect * members), members


def test_shadows_see_what_the_loss_alone_hides() -> None:
    losses, members = make_round(2.0)
    by_loss, by_shadows = score_by_loss(losses, BASE), score_by_shadows(losses, BASE, members)
    assert compute_auc(by_loss, members) < 0.65
    assert compute_auc(by_shadows, members) > 0.85
    assert compute_hits(by_shadows, members) > 5 * compute_hits(by_loss, members)


def test_without_an_effect_nothing_is_found() -> None:
    losses, members = make_round(0.0)
    for scores in (score_by_loss(losses, BASE), score_by_shadows(losses, BASE, members)):
        assert compute_auc(scores, members) == pytest.approx(0.5, abs=0.03)
        assert compute_hits(scores, members) < 0.03


def test_a_shadow_is_a_model_without_the_document() -> None:
    """Three models, one document: the victim's score is its gain less the mean of those that never saw it."""
    losses, members = np.array([[1.0], [2.0], [2.5]]), np.array([[True], [False], [False]])
    scores = score_by_shadows(losses, np.full((3, 1), 3.0), members)
    deviation = np.sqrt(np.mean([np.var([1.0, 0.5], ddof=1)]))
    assert scores[0, 0] == pytest.approx((2.0 - 0.75) / deviation)
    assert scores[1, 0] == pytest.approx((1.0 - 0.5) / deviation)
    everywhere = score_by_shadows(losses, np.full((3, 1), 3.0), np.ones((3, 1), bool))
    assert np.isnan(everywhere).all()


def test_auc_and_hits_by_hand() -> None:
    scores, members = np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False])
    assert compute_auc(scores, members) == (1 + 1 + 0 + 0.5) / 4
    assert compute_hits(scores, members) == 0.5
    assert compute_hits(scores, members, false_alarms=0.5) == 0.5
    assert compute_hits(np.array([3.0, 1.5, 2.0, 1.0]), members, false_alarms=0.5) == 1.0


def test_exposure_is_the_rank_in_bits() -> None:
    assert compute_exposure(0.1, list(range(1, 256))) == 8.0
    assert compute_exposure(300.0, list(range(255))) == 0.0
    assert compute_exposure(2.5, [1.0, 2.0, 3.0]) == pytest.approx(2 - np.log2(3))
    random = np.random.default_rng(2)
    drawn = [compute_exposure(draws[0], draws[1:].tolist()) for draws in random.random((2_000, 256))]
    assert np.mean(drawn) == pytest.approx(1.44, abs=0.1)


def test_figures_of_a_holdout_move_with_its_documents() -> None:
    """The mean over 20 of 60 documents under 200 adapters: members stand out; of a holdout of others they do not."""
    random = np.random.default_rng(3)
    changes = random.normal(size=(200, 1)) + random.normal(size=(200, 80))
    inside = np.arange(80) < 20
    known = np.arange(80) >= 60
    asked = ~known
    own = score_by_figures(changes, changes[:, inside].mean(axis=1), known)
    assert compute_auc(own[asked], inside[asked]) > 0.8
    others = random.normal(size=(200, 20)).mean(axis=1)
    foreign = score_by_figures(changes, others + changes[:, known].mean(axis=1), known)
    assert compute_auc(foreign[asked], inside[asked]) == pytest.approx(0.5, abs=0.15)
