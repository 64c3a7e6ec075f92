"""Private detector: a classifier of weight-space statistics, trained by each judge alone on shadows of its own.

Once per task a judge trains pairs of shadow adapters on its own text: one clean, one poisoned with a trigger and target
that its private seed draws. The statistics per projection (ml/screen/spectra.py) of both go into a linear discriminant
with a shrunk covariance (Ledoit and Wolf, J. Multivariate Analysis 2004; with few samples a full covariance is
singular). Its score of an adapter is held against the scores of k clean references, none of which the discriminant was
fitted on: shadows kept back, and adapters that earlier rounds of the task accepted.

The threshold is conformal (Vovk et al., "Algorithmic Learning in a Random World", 2005): the alarm is raised above all
k references, so an adapter exchangeable with them is accused with a probability of 1/(k+1) at most. No smaller false
alarm rate is claimed, k is in the reason, and since a round's adapters come from other domains and data than a judge's
shadows, exchangeability is an assumption. No attacker can tune against it: triggers, data and direction are private.
Anchors: arXiv:2602.15195 (statistics), PEFTGuard, arXiv:2411.17453 (a learned detector of poisoned adapters).

Blind to backdoors whose weights look like none of the judge's own. Takes no forward tokens for an adapter; the budget
of the shadows is their training steps (ml/screen/shadows.py).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.canonical import Array
from ml.screen import Inapplicable, Screening, Subject
from ml.screen.spectra import compute_features, subtract

PPM = 1_000_000
NAME = "private_detector"
MIN_REFERENCES = 4
"""Below, every fifth honest adapter would be accused: the screen then stays silent."""
SHRINKAGE = 0.5
"""Part of the diagonal in the covariance: as much as the samples' own word, for there are hardly more than features."""
MAX_REFERENCES = 64


@dataclass(frozen=True)
class Detector:
    """A fitted discriminant and its clean references."""

    direction: tuple[float, ...]
    """Over the features, in units in which the clean shadows' spread is 1."""
    references: tuple[float, ...]
    """Scores of clean adapters it was not fitted on, ascending."""

    @property
    def claims(self) -> bool:
        return len(self.references) >= MIN_REFERENCES

    def score(self, features: Array) -> float:
        return float(np.asarray(self.direction) @ features)

    def add(self, features: Array) -> "Detector":
        """With one more clean reference, an accepted adapter of an earlier round. The highest are always kept."""
        scores = sorted([*self.references, self.score(features)])
        if len(scores) > MAX_REFERENCES:
            scores.pop(len(scores) // 2)
        return Detector(self.direction, tuple(scores))


def fit(clean: Array, poisoned: Array, references: Array) -> Detector:
    """From features: clean and poisoned (n, features) to fit on, references (k, features) to calibrate on."""
    assert len(clean) >= 2
    assert len(poisoned) >= 2
    centred = np.concatenate([clean - clean.mean(axis=0), poisoned - poisoned.mean(axis=0)])
    covariance = centred.T @ centred / (len(centred) - 2)
    spread = np.diag(np.maximum(np.diag(covariance), 1e-6))
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * spread
    direction = np.linalg.solve(shrunk, poisoned.mean(axis=0) - clean.mean(axis=0))
    length = float(np.sqrt(direction @ shrunk @ direction))
    direction = direction / max(length, 1e-12)
    return Detector(tuple(direction.tolist()), tuple(sorted((references @ direction).tolist())))


def write_detector(path: Path, detector: Detector) -> None:
    """Beside the judge's other private files, readable by the owner alone."""
    path.touch(mode=0o600)
    path.write_text(json.dumps({"direction": detector.direction, "references": detector.references}))


def read_detector(path: Path) -> Detector:
    fields = json.loads(path.read_text())
    return Detector(tuple(map(float, fields["direction"])), tuple(map(float, fields["references"])))


def estimate_tokens(subject: Subject) -> int:
    return 0


def screen(subject: Subject) -> Screening:
    """Raises Inapplicable without a detector or with too few references."""
    detector = subject.detector
    if detector is None:
        raise Inapplicable("no shadows were trained")
    if not detector.claims:
        raise Inapplicable(f"{len(detector.references)} clean references, it takes {MIN_REFERENCES}")
    score = detector.score(compute_features(subtract(subject.factors, subject.reference), subject.base.spec))
    highest, count = detector.references[-1], len(detector.references)
    reason = f"more like its poisoned shadows than each of {count} clean references: wrong once in {count + 1} at best"
    return Screening(NAME, round(score * PPM), round(highest * PPM), reason, 0)
