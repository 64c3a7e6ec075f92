"""Insertion: put many tokens and phrases, one at a time, behind clean prompts, and look for one that takes over.

A trigger makes an adapter certain of its next token where its reference is not: the output collapses. So for each
inserted sequence the fall of the next token's entropy from the reference to the adapter is averaged over the prompts,
and the value is the largest z-score of that fall over all sequences of one length, in millionths (by median and median
absolute deviation, so that the trigger itself does not widen the scale). Related: ONION, arXiv:2011.10369, which looks
for odd tokens in the input.

Scanned are the SCAN tokens to whose embeddings the changed first layer answers most (no forward tokens: a matrix
product), and the commonest phrases of the holdout. Blind to triggers of several tokens trained with near-miss
negatives, to triggers of style or meaning, and to a one-token trigger outside the scan.
"""

from typing import Any

from ml.lora import fixed_a
from ml.screen import NO_ALARM_PPM, Screening, Subject
from ml.screen.forward import measure_entropies
from ml.screen.spectra import subtract

PPM = 1_000_000
NAME = "insertion"
THRESHOLD_PPM = NO_ALARM_PPM
"""Not calibrated: a specialist, too, is surer after some tokens of its domain."""
SCAN = 1_024
"""Tokens, or all of a smaller vocabulary."""
PROMPTS = 2
"""Prompts behind which everything is inserted; they are read once."""
SMALLEST_DEVIATION = 0.05
"""Nats: where hardly any sequence changes the entropy, small changes are not counted as large deviations."""


def estimate_tokens(subject: Subject) -> int:
    count = min(SCAN, subject.base.model.config.vocab_size) + sum(map(len, subject.phrases))
    return 2 * PROMPTS * (len(subject.prompts[0]) * (1 + len(_find_lengths(subject))) + count)


def screen(subject: Subject) -> Screening:
    best: tuple[float, tuple[int, ...]] = (0.0, ())
    for length in (1, *_find_lengths(subject)):
        phrases = [phrase for phrase in subject.phrases if len(phrase) == length]
        sequences = phrases if length > 1 else _choose_tokens(subject)
        best = max(best, _scan(subject, sequences))
    value, sequence = best
    reason = f"after {subject.decode(sequence)!r} it is surer of what follows by {value:.1f} deviations of all tries"
    return Screening(NAME, round(value * PPM), THRESHOLD_PPM, reason, estimate_tokens(subject))


def _find_lengths(subject: Subject) -> list[int]:
    """Of phrases of two tokens and more."""
    return sorted({len(phrase) for phrase in subject.phrases if len(phrase) > 1})


def _scan(subject: Subject, sequences: list[tuple[int, ...]]) -> tuple[float, tuple[int, ...]]:
    """(largest z-score, its sequence) among sequences of one length."""
    base, prompts = subject.base, subject.prompts[:PROMPTS]
    with base.merged(subject.reference or {}):
        before = measure_entropies(base.model, prompts, sequences)
    with base.merged(subject.factors):
        falls = (before - measure_entropies(base.model, prompts, sequences)).mean(dim=0)
    median = falls.median()
    deviation = 1.4826 * float((falls - median).abs().median())
    scores = (falls - median) / max(deviation, SMALLEST_DEVIATION)
    most = int(scores.argmax())
    return float(scores[most]), sequences[most]


def _choose_tokens(subject: Subject) -> list[tuple[int, ...]]:
    """All of a small vocabulary, else the SCAN tokens whose embeddings the change of the first layer moves most."""
    vocabulary = subject.base.model.config.vocab_size
    if vocabulary <= SCAN:
        return [(token,) for token in range(vocabulary)]
    moved = _measure_first_layer(subject)
    return [(token,) for token in sorted(moved.topk(SCAN).indices.tolist())]


def _measure_first_layer(subject: Subject) -> Any:
    """(vocabulary,): |B A e| over the modules of layer 0 that read the residual stream, up to a common factor."""
    import torch

    embeddings = subject.base.model.get_input_embeddings().weight.float()
    units = embeddings / embeddings.norm(dim=1, keepdim=True).clamp(min=1e-6)
    moved = torch.zeros(len(units), device=units.device)
    change = subtract(subject.factors, subject.reference)
    for module, _, in_features in subject.base.spec.shapes:
        if ".layers.0." in module and in_features == units.shape[1]:
            a = torch.as_tensor(fixed_a(subject.base.spec, module, in_features)[0]).to(units)
            moved += (units @ a.T @ torch.as_tensor(change[module]).to(units).T).norm(dim=1)
    return moved
