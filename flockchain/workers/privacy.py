"""A trainer's privacy budget: what its trainings spend of epsilon, on disk before the first step of each.

One file and one secret in the folder of a trainer's key, over all rounds and tasks: the same text trained on under
another key, or on another machine, is counted there alone.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flockchain.errors import Refused
from flockchain.files import PRIVATE_MODE, replace_file
from flockchain.workers.participant import Report
from ml.data import Block
from ml.privacy import (
    MAX_EPSILON,
    UNITS,
    Privacy,
    PrivacyUnavailable,
    Spend,
    choose_noise,
    compute_epsilon,
    compute_rate,
    group_samples,
    require_library,
)
from ml.spec import TrainSpec

SPENDS, SECRET, LOCK = "privacy.json", "privacy.key", "privacy.lock"
SECRET_BYTES = 32
MAX_CLIP_NORM = 1_000.0


@dataclass(frozen=True)
class Promise:
    """What a trainer promises those whose text it holds."""

    epsilon: float
    """Of all trainings together."""
    delta: float
    clip_norm: float
    unit: str

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= MAX_EPSILON:
            raise Refused("bad-privacy", f"--dp-epsilon {self.epsilon:g}: give more than 0, at most {MAX_EPSILON:g}")
        if not 0 < self.delta < 1:
            raise Refused("bad-privacy", f"--dp-delta {self.delta:g}: give a chance between 0 and 1, such as 1e-5")
        if not 0 < self.clip_norm <= MAX_CLIP_NORM:
            raise Refused("bad-privacy", f"--dp-clip {self.clip_norm:g}: give more than 0, at most {MAX_CLIP_NORM:g}")
        if self.unit not in UNITS:
            raise Refused("bad-privacy", f"--dp-unit {self.unit}: choose from {', '.join(UNITS)}")


class PrivacyBudget:
    """Plans a task's rounds so that they keep to the promise, and refuses the round that would break it."""

    def __init__(self, folder: Path, promise: Promise, rounds: int, report: Report) -> None:
        """`rounds`: of the task; the noise is chosen so that all of them keep to the promise."""
        try:
            require_library()
        except PrivacyUnavailable as error:
            raise Refused("no-privacy-library", str(error)) from None
        self.folder, self.promise, self.rounds, self.report = folder, promise, rounds, report
        self._secret = _keep_secret(folder / SECRET)

    def plan(self, blocks: Sequence[Block], train_spec: TrainSpec) -> Privacy:
        """How to train the next round; Refused where so few samples cannot be protected."""
        promise = self.promise
        samples = len(group_samples(blocks, promise.unit))
        if samples * promise.delta >= 1:
            raise Refused(
                "bad-privacy",
                f"a delta of {promise.delta:g} would allow to publish one of {samples} {promise.unit}s whole: give a "
                f"--dp-delta well below {1 / samples:.1g}, or more text",
            )
        rate = compute_rate(samples, train_spec.batch_size)
        steps = train_spec.local_steps * self.rounds
        noise = choose_noise(promise.epsilon, promise.delta, rate=rate, steps=steps)
        return Privacy(noise, self._secret, promise.clip_norm, promise.unit, self.spend)

    def spend(self, spend: Spend) -> None:
        """Record a training before it begins, unless it is recorded; Refused when all together would spend too much."""
        with self._locked():
            spends = read_spends(self.folder)
            known = {one.run for one in spends}
            after = self._compute(spends if spend.run in known else [*spends, spend])
            if after > self.promise.epsilon and spend.run not in known:
                raise Refused(
                    "privacy-spent",
                    f"{len(spends)} trainings spent epsilon {self._compute(spends):.3f} of {self.promise.epsilon:g} "
                    f"(delta {self.promise.delta:g}), the next would make it {after:.3f}: nothing was trained; raise "
                    "--dp-epsilon only if those whose text it is agree",
                )
            self.report("privacy before", self._describe(spends, spend, after))
            if spend.run not in known:
                text = json.dumps([asdict(one) for one in [*spends, spend]], indent=1)
                replace_file(self.folder / SPENDS, text.encode())

    def tell(self) -> None:
        """After a training: what is spent, and whether one more like it would be refused."""
        spends = read_spends(self.folder)
        after = self._compute([*spends, spends[-1]])
        self.report(
            "privacy after",
            {
                "epsilon_spent": round(self._compute(spends), 3),
                "of": self.promise.epsilon,
                "delta": self.promise.delta,
                "with_one_more": round(after, 3),
                "next": "would be refused" if after > self.promise.epsilon else "fits",
            },
        )

    def _describe(self, spends: Sequence[Spend], spend: Spend, after: float) -> dict[str, Any]:
        return {
            "epsilon_alone": round(self._compute([spend]), 3),
            "epsilon_spent": round(self._compute(spends), 3),
            "epsilon_after": round(after, 3),
            "of": self.promise.epsilon,
            "delta": self.promise.delta,
            "unit": self.promise.unit,
            "noise_multiplier": round(spend.noise_multiplier, 3),
            "sample_rate": round(spend.rate, 6),
        }

    def _compute(self, spends: Sequence[Spend]) -> float:
        return compute_epsilon(spends, self.promise.delta) if spends else 0.0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two processes of one key may not both find room for their own."""
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def read_spends(folder: Path) -> list[Spend]:
    """What is recorded in a trainer's folder. Refused where the file is damaged: it must not count as empty."""
    path = folder / SPENDS
    try:
        return [Spend(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise Refused(
            "bad-privacy", f"{path} is damaged ({error}): restore it; without it nobody knows what was spent"
        ) from None


def open_budget(folder: Path, promise: Promise | None, rounds: int, report: Report) -> PrivacyBudget | None:
    """None without a promise. Refused where the folder's text was trained on under one: once without makes it void."""
    if promise is not None:
        return PrivacyBudget(folder, promise, rounds, report)
    if read_spends(folder):
        raise Refused(
            "privacy-promised",
            f"{folder / SPENDS} records trainings under differential privacy: go on with --dp-epsilon; training once "
            "without it makes the promise void (if that is what you want, move the file away)",
        )
    return None


def _keep_secret(path: Path) -> bytes:
    if not path.exists():
        replace_file(path, secrets.token_bytes(SECRET_BYTES))
    found = path.read_bytes()
    if len(found) != SECRET_BYTES:
        raise Refused("bad-privacy", f"{path} holds {len(found)} bytes instead of {SECRET_BYTES}: restore it")
    return found
