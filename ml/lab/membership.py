"""Was this text trained on? Scores of attackers who see a published adapter or figure, and how good they are.

Matrices are float64 (models, documents): row m holds model m's mean nats per target of each document, and the same of
the base; `members` is boolean of the same shape.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
FALSE_ALARMS = 0.01


def score_by_loss(losses: Floats, base: Floats) -> Floats:
    """What the adapter took off each document's loss: the attack by loss (Yeom et al., arXiv:1709.01604), calibrated
    by the base, which anyone has."""
    return base - losses


def score_by_shadows(losses: Floats, base: Floats, members: Flags) -> Floats:
    """Offline LiRA (Carlini et al., arXiv:2112.03570, section VI-C) with few shadows: every model in turn is the
    victim, the others that were not trained on a document say what it looks like outside.

    Gaussian with a mean for each document and one deviation for all, as the paper advises for few shadows; the score is
    the number of deviations. NaN where every other model was trained on the document.
    """
    gains = base - losses
    others = [[other for other in range(len(gains)) if other != victim] for victim in range(len(gains))]
    outside = np.full_like(gains, np.nan)
    spread: list[float] = []
    for victim, rows in enumerate(others):
        for document in range(gains.shape[1]):
            seen = [gains[row, document] for row in rows if not members[row, document]]
            if seen:
                outside[victim, document] = np.mean(seen)
            if len(seen) > 1:
                spread.append(float(np.var(seen, ddof=1)))
    return (gains - outside) / max(float(np.sqrt(np.mean(spread))) if spread else 1.0, 1e-12)


def score_by_figures(changes: Floats, published: Floats, known: Flags) -> Floats:
    """(documents,): whether a document moves with a judge's figures over a round's adapters, beyond the domain's mean.

    `changes` (models, documents): the attacker measures each document under each adapter itself. `published` (models,):
    the judge's relative changes. `known` (documents,): the attacker's own text, which says how the domain moves.
    """
    common = changes[:, known].mean(axis=1)
    own, told = changes - common[:, None], published - common
    return _standardise(own).T @ _standardise(told[:, None])[:, 0] / len(told)


def _standardise(values: Floats) -> Floats:
    centred = values - values.mean(axis=0)
    return centred / np.maximum(centred.std(axis=0), 1e-12)


def compute_auc(scores: Floats, members: Flags) -> float:
    """Chance that a member scores above an outsider, ties counting half (Mann and Whitney)."""
    inside, outside = scores[members], scores[~members]
    assert inside.size
    assert outside.size
    return float(((inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)).mean())


def compute_hits(scores: Floats, members: Flags, false_alarms: float = FALSE_ALARMS) -> float:
    """Share of members found at a threshold that at most this share of outsiders exceed."""
    outside = np.sort(scores[~members])[::-1]
    allowed = int(false_alarms * outside.size)
    return float((scores[members] > outside[allowed]).mean())


def compute_exposure(canary: float, candidates: Sequence[float]) -> float:
    """Bits: log2 of the number of sequences less log2 of the canary's rank among them by loss (Carlini et al.,
    arXiv:1802.08232). About 1.44 on average where nothing was learned, log2 of their number at most."""
    rank = 1 + sum(other < canary for other in candidates)
    return float(np.log2(1 + len(candidates)) - np.log2(rank))
