"""Influence: what the mean of the round loses when one adapter is left out, in loss and in update space.

The value is how much the loss on the prompts falls, relatively, when the adapter is left out of the mean of all at
hand: positive for one that the others would be better without. Loss alone is blind to backdoors; this screen sees the
harm that the sum does and that an adapter measured by itself does not show. The reason gives its part of the mean in
update space too: <u, m> / <m, m>, 1 for everyone when all are alike. Leave-one-out influence: Cook, "Detection of
influential observation in linear regression", Technometrics 1977.

Blind to whatever leaves clean loss as it is, backdoors first of all.
"""

import numpy as np

from ml.canonical import Array
from ml.norms import gram_of_fixed_a
from ml.screen import Factors, Inapplicable, Screening, Subject
from ml.screen.forward import measure_nats
from ml.screen.spectra import subtract
from ml.spec import AdapterSpec

PPM = 1_000_000
NAME = "influence"
THRESHOLD_PPM = 100_000
"""A tenth of the loss. Honest specialists of a first trial raised a mean of three by up to .029."""


def estimate_tokens(subject: Subject) -> int:
    return 2 * len(subject.prompts) * len(subject.prompts[0])


def screen(subject: Subject) -> Screening:
    """Raises Inapplicable without peers: there is nothing to leave it out of."""
    if not subject.peers:
        raise Inapplicable("no peers")
    others = [subject.peers[root] for root in sorted(subject.peers)]
    whole, without = _average([subject.factors, *others]), _average(others)
    with subject.base.merged(whole):
        with_it = measure_nats(subject.base.model, subject.prompts)
    with subject.base.merged(without):
        left_out = measure_nats(subject.base.model, subject.prompts)
    value = with_it / left_out - 1
    part = _compute_part(subject.factors, whole, subject.reference, subject.base.spec)
    reason = f"with it the mean of {len(others)} others has {value:+.1%} loss; its part of that mean is {part:.2f}"
    return Screening(NAME, round(max(0.0, value) * PPM), THRESHOLD_PPM, reason, estimate_tokens(subject))


def _average(adapters: list[Factors]) -> dict[str, Array]:
    return {name: np.mean([factors[name] for factors in adapters], axis=0) for name in adapters[0]}


def _compute_part(own: Factors, whole: Factors, reference: Factors | None, spec: AdapterSpec) -> float:
    change, mean = subtract(own, reference), subtract(whole, reference)
    return _inner(change, mean, spec) / max(_inner(mean, mean, spec), 1e-30)


def _inner(left: Factors, right: Factors, spec: AdapterSpec) -> float:
    """<B A, B' A> over all modules, in the common unit of `gram_of_fixed_a`."""
    return sum(
        float(((left[name].T @ right[name]) * gram).sum()) * 2.0**shift
        for name, (gram, shift) in gram_of_fixed_a(spec).items()
    )
