"""Screens: what a loss cannot see. Each sibling file is one screen with its threshold, source and cost.

A screen returns a number, the threshold it was held against, and a reason that a person can check. A screen may leave
an adapter out (undecided, unpaid); alone it never slashes (docs/protocol.md, verdicts).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Screening:
    """What one screen says of one adapter."""

    value_ppm: int
    threshold_ppm: int
    reason: str
    tokens: int
    """Forward tokens it took."""

    @property
    def is_alarm(self) -> bool:
        return self.value_ppm > self.threshold_ppm
