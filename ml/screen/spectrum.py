"""Spectrum: an adapter whose singular values are spread unlike those of the round's others.

A backdoor is a narrow task, and its update leans on fewer directions than one that learned a domain's text. The value
is the root mean square, over projections and the scale-free statistics of ml/screen/spectra.py, of the distance to the
peers' median in their median absolute deviations (made comparable to a standard deviation by 1.4826), in millionths.
Medians, so that fewer than half of the peers cannot move what is normal. Related: arXiv:2602.15195 (the statistics,
with a bank of clean references), FLAME, arXiv:2101.02281 (clustering updates).

Blind to an attacker who trains with honest text at honest settings, whose spectrum is honest too. A lone specialist
among many of one other domain stands out as well: the value is published without an alarm. Takes no tokens.
"""

import numpy as np

from ml.screen import NO_ALARM_PPM, Inapplicable, Screening, Subject
from ml.screen.spectra import SCALE_FREE, STATISTICS, compute_features, subtract

PPM = 1_000_000
NAME = "spectrum"
THRESHOLD_PPM = NO_ALARM_PPM
"""Not calibrated: how far a lone specialist of a domain lies from the others is not measured yet."""
MIN_PEERS = 4
"""A median absolute deviation of fewer says nothing."""
SMALLEST_DEVIATION = 1e-2
"""Peers that are all alike: a statistic's differences below this are not counted as deviations."""


def estimate_tokens(subject: Subject) -> int:
    return 0


def screen(subject: Subject) -> Screening:
    """Raises Inapplicable for fewer than MIN_PEERS peers."""
    spec = subject.base.spec
    if len(subject.peers) < MIN_PEERS:
        raise Inapplicable(f"{len(subject.peers)} peers, it takes {MIN_PEERS}")
    own = compute_features(subtract(subject.factors, subject.reference), spec)
    peers = []
    for root, factors in sorted(subject.peers.items()):
        if (NAME, root) not in subject.memo:
            subject.memo[NAME, root] = compute_features(subtract(factors, subject.reference), spec)
        peers.append(subject.memo[NAME, root])
    median = np.median(peers, axis=0)
    deviations = 1.4826 * np.median(np.abs(np.asarray(peers) - median), axis=0)
    scores = (np.abs(own - median) / np.maximum(deviations, SMALLEST_DEVIATION)).reshape(-1, len(STATISTICS))
    value = float(np.sqrt((scores[:, SCALE_FREE] ** 2).mean()))
    worst = STATISTICS[SCALE_FREE[int(scores[:, SCALE_FREE].max(axis=0).argmax())]]
    reason = f"its spectrum is {value:.1f} deviations from the median of {len(peers)} others, most in {worst}"
    return Screening(NAME, round(value * PPM), THRESHOLD_PPM, reason, 0)
