"""Run seeds of the real node: what is installed around them, findings, and what happened how often."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import structlog
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from flockchain import crypto

from . import disk
from .outcome import Outcome
from .split_brain import SplitWorld
from .world import World

SIZES = (4, 5)
QUIET = 50
"""Above every level of structlog."""


class _Memo:
    """`VerifyKey` that asks libsodium once for each (key, message, signature): every node verifies the same votes."""

    answers: ClassVar[dict[tuple[bytes, bytes, bytes], bool]] = {}

    def __init__(self, key: bytes) -> None:
        self._key = key

    def verify(self, message: bytes, signature: bytes) -> None:
        place = (self._key, message, signature)
        answer = self.answers.get(place)
        if answer is None:
            answer = self.answers[place] = self._ask(message, signature)
        if not answer:
            raise BadSignatureError

    def _ask(self, message: bytes, signature: bytes) -> bool:
        try:
            VerifyKey(self._key).verify(message, signature)
        except (BadSignatureError, ValueError):
            return False
        return True


@contextmanager
def surroundings() -> Iterator[None]:
    """What the simulated nodes run in: memory for a disk, each signature verified once, no log lines."""
    config, original = structlog.get_config(), crypto.VerifyKey
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(QUIET), cache_logger_on_first_use=False)
    crypto.VerifyKey = _Memo  # type: ignore[assignment,misc]
    _Memo.answers = {}
    try:
        with ExitStack() as stack:
            stack.enter_context(disk.installed())
            yield
    finally:
        crypto.VerifyKey = original  # type: ignore[misc]
        structlog.configure(**config)


def run_seed(seed: int, n: int, trace: Callable[[str], None] | None = None, **options: Any) -> Outcome:
    """One network; raises `Violation`."""
    with surroundings():
        return World(seed, n, trace, **options).run()


def run_split(seed: int, n: int, trace: Callable[[str], None] | None = None) -> Outcome:
    """One network with too many faulty validators; raises `Violation` unless it forks."""
    with surroundings():
        return SplitWorld(seed, n, trace).run()
