"""Screens without a model: spectra against a plain SVD, the spectrum's outlier, the private detector's promise."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.factors import make_factors
from ml.lora import fixed_a
from ml.screen import Factors, Inapplicable, Subject, spectrum
from ml.screen import private_detector as detecting
from ml.screen.private_detector import MIN_REFERENCES, Detector, fit, read_detector, write_detector
from ml.screen.spectra import STATISTICS, compute_features, compute_statistics
from tests.ml.support import make_small_spec, make_update

SPEC = make_small_spec()


def make(seed: int, limit: int = 40) -> Factors:
    return make_factors(None, make_update(SPEC, seed, limit), 1_000_000, 1, SPEC)


def make_narrow(seed: int) -> Factors:
    """Of rank one: what a single direction leaves."""
    random = np.random.default_rng(seed)
    return {
        module: np.outer(random.normal(size=out), random.normal(size=SPEC.rank)).astype(np.float32)
        for module, out, _ in SPEC.shapes
    }


def make_subject(factors: Factors, peers: int = 5, **changes: Any) -> Subject:
    base: Any = type("SpecOnly", (), {"spec": SPEC})()
    others = {f"{seed:02x}": make(seed) for seed in range(100, 100 + peers)}
    return replace(Subject(base, factors, None, [(1,)] * 8, peers=others), **changes)


def test_statistics_are_those_of_the_product_itself() -> None:
    """Lengths differ from the product's by one factor for all modules, the unit of A's finest step."""
    factors, found = make(1), compute_statistics(make(1), SPEC)
    offsets = []
    for module, _, in_features in SPEC.shapes:
        values, step_log2 = fixed_a(SPEC, module, in_features)
        product = factors[module].astype(np.float64) @ (values.astype(np.float64) * 2.0**step_log2)
        singular = np.linalg.svd(product, compute_uv=False)[: SPEC.rank]
        shares = singular**2 / (singular**2).sum()
        statistics = dict(zip(STATISTICS, found[module], strict=True))
        assert statistics["concentration"] == pytest.approx(shares[0], rel=1e-3)
        assert statistics["entropy"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(SPEC.rank), rel=1e-3)
        assert statistics["log_largest"] - np.log(singular[0]) == pytest.approx(
            statistics["log_norm"] - np.log(np.linalg.norm(product)), rel=1e-3
        )
        offsets.append(statistics["log_norm"] - np.log(np.linalg.norm(product)))
    assert offsets == pytest.approx([offsets[0]] * len(offsets), rel=1e-3)


def test_scaling_changes_lengths_alone_and_zero_has_numbers() -> None:
    one = compute_features(make(1), SPEC).reshape(-1, len(STATISTICS))
    twice = compute_features({name: 2 * values for name, values in make(1).items()}, SPEC).reshape(-1, len(STATISTICS))
    assert np.allclose(twice[:, :2] - one[:, :2], np.log(2), atol=1e-5)
    assert np.allclose(twice[:, 2:], one[:, 2:], atol=1e-5)
    assert np.isfinite(compute_features({name: 0 * values for name, values in make(1).items()}, SPEC)).all()


def test_the_spectrum_tells_the_narrow_one_from_the_others() -> None:
    narrow = spectrum.screen(make_subject(make_narrow(1)))
    assert narrow.value_ppm > 4 * max(spectrum.screen(make_subject(make(seed))).value_ppm for seed in range(5))
    assert not narrow.is_alarm, "published, not calibrated"


def test_a_second_narrow_one_does_not_become_the_rule() -> None:
    peers = {"aa": make_narrow(2), **{f"{seed:02x}": make(seed) for seed in range(5)}}
    subject = replace(make_subject(make_narrow(1)), peers=peers)
    honest = spectrum.screen(replace(subject, factors=make(7), memo={}))
    assert spectrum.screen(subject).value_ppm > 2 * honest.value_ppm


def test_too_few_peers_or_references_raise_nothing_but_inapplicable() -> None:
    with pytest.raises(Inapplicable, match="3 peers, it takes 4"):
        spectrum.screen(make_subject(make_narrow(1), peers=3))
    with pytest.raises(Inapplicable, match="no shadows were trained"):
        detecting.screen(make_subject(make(1)))
    few = Detector((1.0,), tuple(map(float, range(MIN_REFERENCES - 1))))
    with pytest.raises(Inapplicable, match="3 clean references, it takes 4"):
        detecting.screen(make_subject(make(1), detector=few))


def draw(random: np.random.Generator, count: int, shift: float) -> Any:
    return random.normal(size=(count, 10)) + shift * (np.arange(10) < 2)


def test_the_detector_accuses_one_honest_in_k_plus_one_at_most() -> None:
    """400 detectors with k = 9 from normal features: the rate of false alarms lies about 1/10, detection is high."""
    random = np.random.default_rng(11)
    wrong = caught = 0
    for _ in range(400):
        detector = fit(draw(random, 6, 0), draw(random, 6, 4), draw(random, 9, 0))
        wrong += detector.score(draw(random, 1, 0)[0]) > detector.references[-1]
        caught += detector.score(draw(random, 1, 4)[0]) > detector.references[-1]
    assert wrong / 400 <= 0.1 + 3 * (0.1 * 0.9 / 400) ** 0.5
    assert caught / 400 >= 0.9


def test_accepted_adapters_of_earlier_rounds_become_references() -> None:
    """The newest honest adapter scores high: once it is a reference, its like is accused no more."""
    random = np.random.default_rng(3)
    detector = fit(draw(random, 6, 0), draw(random, 6, 4), draw(random, 5, 0))
    odd = draw(random, 1, 2)[0]
    assert detector.score(odd) > detector.references[-1]
    later = detector.add(odd)
    assert len(later.references) == 6
    assert later.score(odd) <= later.references[-1]


def test_a_detector_is_kept_as_json_that_only_its_owner_reads(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    detector = fit(draw(random, 6, 0), draw(random, 6, 4), draw(random, 5, 0))
    path = tmp_path / "detector.json"
    write_detector(path, detector)
    assert read_detector(path) == detector
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(json.loads(path.read_text())) == {"direction", "references"}
