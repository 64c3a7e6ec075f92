"""What a participant does at its start while no node answers: wait for one, for a stated time, and say so."""

import time
from collections.abc import Callable
from typing import TypeVar

from flockchain.client import Unreachable
from flockchain.workers.participant import RETRY_S, Report

REPORT_EVERY_S = 10.0
T = TypeVar("T")


def wait_for_node(ask: Callable[[], T], wait_s: float, report: Report, is_stopping: Callable[[], bool]) -> T | None:
    """What `ask` returns once a node answers it; None when stopped meanwhile.

    `ask` is called again after `Unreachable`, so it must be one that may be repeated. Raises `Unreachable`, with what
    to do, after `wait_s` without an answer.
    """
    begin = time.monotonic()
    reported = begin - REPORT_EVERY_S
    while not is_stopping():
        try:
            return ask()
        except Unreachable as error:
            now = time.monotonic()
            if now - begin >= wait_s:
                raise Unreachable(
                    f"{error}. Waited {wait_s:.0f} s: start a node, or wait longer by --wait-s, and run this again. "
                    "What was signed is kept and is sent then, nothing twice"
                ) from None
            if now - reported >= REPORT_EVERY_S:
                reported = now
                report("waiting for a node", {"error": str(error), "left_s": round(begin + wait_s - now)})
            time.sleep(min(RETRY_S, begin + wait_s - now))
    return None
