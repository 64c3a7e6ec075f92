"""The hidden final set of a task: text that nobody sees until the last round has settled, and what hangs on it."""

from typing import Annotated, Literal

from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.types.ids import Hash, Ms, Uflk

MAX_VESTED_PPM = 500_000
"""At most half: the creator chose the text, so what hangs on it is the creator's word."""

FinalPhase = Literal["hidden", "reveal", "draw", "judge", "closed"]
FinalOutcome = Literal["none", "passed", "failed", "withheld", "undecided"]
"""none: not judged, for nothing was vested. undecided: too few of the drawn judges said anything."""


class FinalTerms(Canonical, frozen=True):
    """What the creator commits to before anyone can join its task."""

    root: Hash
    """Root over the chunks of the file: one line with a random salt, then documents of every domain."""
    size_bytes: Annotated[int, Meta(ge=1, le=2**40)]
    vested_ppm: Annotated[int, Meta(ge=1, le=MAX_VESTED_PPM)]
    """Part of each trainer's reward that waits for the final judgement."""
    reveal_ms: Ms
    """So long the creator has to reveal the file, from the end of the last round on."""
    judge_ms: Ms
    judge_pay_uflk: Uflk
    """For the judges of the final set; locked beside the pool when the task is created."""
