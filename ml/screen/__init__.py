"""Screens: what a loss cannot see. Each sibling file is one screen with its threshold, source and cost.

A screen returns a number, the threshold it was held against, and a reason that a person can check. A screen may leave
an adapter out (undecided, unpaid); alone it never slashes (docs/protocol.md, verdicts). Table: docs/screens.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml.canonical import Array

if TYPE_CHECKING:
    from ml.score import ScoringBase
    from ml.screen.private_detector import Detector

Prompts = Sequence[tuple[int, ...]]
"""Clean ones of one length, of several domains, from the judge's private holdout."""
Factors = Mapping[str, Array]
"""Float32 B by module (ml/factors.py)."""


NO_ALARM_PPM = 2**62
"""The threshold of a screen that is not calibrated: its value is published, and no value raises an alarm."""


class Inapplicable(Exception):
    """A screen has nothing to compare with: too few peers, no shadows. It is not on the ballot, and needs no note."""


@dataclass(frozen=True)
class Screening:
    """What one screen says of one adapter."""

    name: str
    """Of the screen's file."""
    value_ppm: int
    threshold_ppm: int
    reason: str
    tokens: int
    """Forward tokens it took at most; what peers share may have been read before."""

    @property
    def is_alarm(self) -> bool:
        return self.value_ppm > self.threshold_ppm


@dataclass(frozen=True)
class Subject:
    """One adapter under the screens, with what a judge compares it to.

    At full strength (`reference + k * update`, not the 1/m of the loss figures): what an adapter hides shows most where
    nothing dilutes it, and k takes away what mere scaling adds.
    """

    base: "ScoringBase"
    factors: Factors
    reference: Factors | None
    """The adapter it was trained from, None for the bare base."""
    prompts: Prompts
    decode: Callable[[Sequence[int]], str] = str
    """Makes text of tokens, for the reason."""
    phrases: Prompts = ()
    """Common ones of the judge's holdout, by which a trigger may hide in plain words."""
    peers: Mapping[str, Factors] = field(default_factory=dict)
    """The round's other adapters by root, in the same strength."""
    detector: "Detector | None" = None
    """The judge's own of this task, if it has trained shadows."""
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What the subjects of one round share, by screen: computed once, emptied with the round."""


@dataclass(frozen=True)
class Screened:
    """All that a judge's screens say of one adapter."""

    screenings: tuple[Screening, ...] = ()
    """Sorted by name."""
    notes: tuple[str, ...] = ()
    """One sentence for each screen that did not run: over budget or failed. Such a screen raises no alarm."""
    tokens: int = 0
    seconds: float = 0.0

    def describe(self) -> str:
        """For the ballot's reason: what the alarms found, then what did not run; empty when there is nothing to say."""
        alarms = [f"{found.name}: {found.reason}" for found in self.screenings if found.is_alarm]
        return "; ".join([*alarms, *self.notes])
