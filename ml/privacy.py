"""Differential privacy of a trainer's text: the unit that is protected, and what all steps together spend.

DP-SGD (Abadi et al., arXiv:1607.00133): a step draws every sample with the same probability, clips each one's gradient
to a norm and adds Gaussian noise to their sum, so that what leaves the trainer hardly depends on any one sample.
Epsilon comes from the accountant of opacus (Renyi DP of the sampled Gaussian mechanism, Mironov et al.,
arXiv:1908.10530; adding or removing one sample): an upper bound without numerical error terms. The steps themselves:
ml/private_trainer.py.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ml.data import Block

Unit = Literal["document", "block"]
UNITS: tuple[str, ...] = get_args(Unit)
ORDERS = (*(quarter / 4 for quarter in range(8, 32)), *range(8, 40), 48, 64, 96, 128, 192, 256, 512)
"""Of Renyi divergences to convert from: the best of them is taken, so fewer give a looser bound, never a false one.
None below 2: there the series for fractional orders need not converge (dp-accounting leaves such orders out)."""
MAX_EPSILON = 1_000.0
"""Beyond, the noise is none."""
HOW_TO_INSTALL = "differential privacy needs opacus: pip install 'flockchain[dp]'"


class PrivacyUnavailable(RuntimeError):
    """The library is not installed; the sentence says how to get it."""


@dataclass(frozen=True)
class Spend:
    """One training: `steps` times the Gaussian mechanism, each on a draw of every sample with probability `rate`."""

    run: str
    """Names the training: the same run again gives the same bytes, so it spends nothing more."""
    noise_multiplier: float
    rate: float
    steps: int


def _spend_freely(spend: Spend) -> None:
    """For experiments, which count for themselves."""


@dataclass(frozen=True)
class Privacy:
    """How a trainer protects its samples."""

    noise_multiplier: float
    """Deviation of the noise on the summed gradients, in clip norms."""
    secret: bytes = field(repr=False)
    """32 bytes that never leave the machine: draws and noise follow from them, so that a killed training repeats itself
    to the byte. Who knows them can subtract the noise."""
    clip_norm: float = 0.1
    """Most length of one sample's gradient of all B. Adam takes out its scale; so low that most samples are clipped
    (Bu et al., arXiv:2206.07136)."""
    unit: Unit = "document"
    """What a sample is. `document`: each drawn document gives one of its blocks, by chance. `block`: each block is one,
    and a document of n blocks has n times the epsilon and more."""
    spend: Callable[[Spend], None] = field(default=_spend_freely, repr=False)
    """Told before the first step; raises where it is too much."""

    def __post_init__(self) -> None:
        assert self.noise_multiplier >= 0
        assert self.clip_norm > 0
        assert len(self.secret) == 32
        assert self.unit in UNITS


def require_library() -> None:
    """Raises PrivacyUnavailable."""
    _import_accountants()


def group_samples(blocks: Sequence[Block], unit: Unit) -> list[list[Block]]:
    """Blocks by sample, in order of their first appearance."""
    if unit == "block":
        return [[block] for block in blocks]
    samples: dict[str, list[Block]] = {}
    for block in blocks:
        samples.setdefault(block.document, []).append(block)
    return list(samples.values())


def compute_rate(samples: int, batch_size: int) -> float:
    """Probability of each sample in each step, so that a step expects `batch_size`."""
    return min(1.0, batch_size / samples)


def compute_epsilon(spends: Sequence[Spend], delta: float) -> float:
    """Epsilon of all of them together at `delta`; infinite when one had no noise."""
    if any(spend.noise_multiplier == 0 for spend in spends):
        return float("inf")
    accountant = _import_accountants().RDPAccountant()
    accountant.history = [(spend.noise_multiplier, spend.rate, spend.steps) for spend in spends]
    with _loose_bounds():
        return float(accountant.get_epsilon(delta, alphas=ORDERS))


def choose_noise(epsilon: float, delta: float, *, rate: float, steps: int) -> float:
    """The least noise multiplier, to a hundredth of epsilon, with which so many steps stay within `epsilon`."""
    assert 0 < epsilon <= MAX_EPSILON
    assert 0 < delta < 1
    _import_accountants()
    from opacus.accountants.utils import get_noise_multiplier

    with _loose_bounds():
        return float(
            get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                epsilon_tolerance=epsilon / 100,
                alphas=ORDERS,
            )
        )


@contextmanager
def _loose_bounds() -> Iterator[None]:
    """opacus warns where the first or the last order gives the bound, which is then looser than it might be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
        yield


def _import_accountants() -> Any:
    try:
        from opacus import accountants
    except ImportError:
        raise PrivacyUnavailable(HOW_TO_INSTALL) from None
    return accountants
