"""How old a height is: sampled header times, at most about a thousand rows, for the age of evidence."""

from flockchain.execution.context import Context
from flockchain.execution.state import State
from flockchain.types.rows import Infraction, TimeMark

MARKS_PER_EVIDENCE_AGE = 1_000


def get_time_of_ms(state: State, height: int) -> int | None:
    """Header time of the newest mark at or before `height`: at most the height's own time. None: forgotten."""
    mark = state.last_until(TimeMark, height)
    return mark.time_ms if mark else None


def process_time_marks(context: Context) -> None:
    """Mark this height when the last mark is old enough; forget marks and infractions older than any evidence."""
    state, age_ms = context.state, context.params.stake.evidence_age_ms
    last = state.last_until(TimeMark, context.height)
    if last is not None and context.time_ms < last.time_ms + age_ms // MARKS_PER_EVIDENCE_AGE:
        return
    state.put(TimeMark(context.height, context.time_ms))
    while (oldest := state.first(TimeMark)) is not None and oldest.time_ms + age_ms < context.time_ms:
        state.delete(TimeMark, oldest.height)
    for infraction in state.iterate(Infraction):
        if infraction.until_ms < context.time_ms:
            state.delete(Infraction, infraction.key)
