"""Judging in a warm process of its own: what breaks there is an abstention here, never a score.

One CUDA assert poisons a process for good, an out-of-memory kills it, and an import of torch takes seconds; so the
process stays warm from adapter to adapter and is replaced when it fails. The child is ml/judge_desk.py; its environment
holds no secrets.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ml.data import Block
from ml.environment import make_environment
from ml.figures import Change
from ml.judge import CandidateFigure, DomainFigure, JudgingFailed, Measurement, Peer
from ml.judge_desk import MAX_MESSAGE_BYTES, write_message
from ml.screen import Screened, Screening
from ml.spec import AdapterSpec, JudgeSpec, encode_spec

DEFAULT_MEMORY_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Setting:
    """What the process loads. Paths of adapters are None for the bare base."""

    base_dir: Path
    spec: AdapterSpec
    judge_spec: JudgeSpec
    dtype: str
    holdouts: Path
    """Written by `write_holdouts`."""
    current: tuple[str, Path | None] = ("", None)
    best: tuple[str, Path | None] | None = None
    device: str = "cpu"

    def encode(self) -> dict[str, Any]:
        best = self.best if self.best is not None else self.current
        return {
            "base_dir": str(self.base_dir),
            "spec": encode_spec(self.spec),
            "judge_spec": asdict(self.judge_spec),
            "dtype": self.dtype,
            "device": self.device,
            "holdouts": str(self.holdouts),
            "current": [self.current[0], str(self.current[1] or "")],
            "best": [best[0], str(best[1] or "")],
        }


def write_holdouts(path: Path, holdouts: Mapping[str, Sequence[Block]]) -> None:
    """Blocks by domain as JSON, readable by the owner alone: holdouts are private."""
    document = {
        name: [{"document": block.document, "tokens": [int(token) for token in block.tokens]} for block in blocks]
        for name, blocks in sorted(holdouts.items())
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file)


class JudgingProcess:
    """A meter (ml.judge.Meter) whose work happens in a child process. Use as a context manager."""

    def __init__(
        self,
        setting: Setting,
        *,
        threads: int = 1,
        timeout_s: float = 600.0,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        log: Path | None = None,
    ) -> None:
        """`timeout_s` bounds one request, loading included. `log` receives the child's stderr."""
        self.setting, self.threads, self.timeout_s = setting, threads, timeout_s
        self.memory_bytes, self.log = memory_bytes, log
        self._child: subprocess.Popen[bytes] | None = None
        self._opened: Setting | None = None

    def __enter__(self) -> "JudgingProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    def warm_up(self) -> None:
        """Load the base now, while others still train. Raises JudgingFailed."""
        self._request({"do": "open"})

    def use(self, setting: Setting) -> None:
        """Judge under another setting from now on; the base stays loaded if it is the same."""
        self.setting = setting

    def measure(self, path: Path, coefficient_ppm: int, parts: int) -> Measurement:
        """One update in its strength of use. Raises JudgingFailed."""
        request = {"do": "measure", "path": str(path), "coefficient_ppm": coefficient_ppm, "parts": parts}
        answer = self._request(request)
        figures = tuple(
            DomainFigure(item["domain"], Change(**item["current"]), Change(**item["best"]))
            for item in answer["domains"]
        )
        return Measurement(figures, answer["tokens"], answer["seconds"])

    def judge_candidate(self, path: Path) -> tuple[CandidateFigure, ...]:
        """Raises JudgingFailed."""
        answer = self._request({"do": "judge_candidate", "path": str(path)})
        changes = ("previous", "best", "base")
        return tuple(
            CandidateFigure(**{**item, **{name: Change(**item[name]) for name in changes}})
            for item in answer["figures"]
        )

    def measure_gains(self, candidate: Path, without: Path) -> tuple[tuple[str, int], ...]:
        """Raises JudgingFailed."""
        answer = self._request({"do": "measure_gains", "candidate": str(candidate), "without": str(without)})
        return tuple((domain, gain) for domain, gain in answer["gains"])

    def screen_update(self, path: Path, coefficient_ppm: int, peers: Sequence[Peer] = ()) -> Screened:
        """One update at full strength, `peers` being the round's others. Raises JudgingFailed."""
        others = [[str(path), coefficient_ppm] for path, coefficient_ppm in peers]
        return self._screen(
            {"do": "screen_update", "path": str(path), "coefficient_ppm": coefficient_ppm, "peers": others}
        )

    def screen_candidate(self, path: Path) -> Screened:
        """Raises JudgingFailed."""
        return self._screen({"do": "screen_candidate", "path": str(path)})

    def _screen(self, request: dict[str, Any]) -> Screened:
        if not self.setting.judge_spec.screen_tokens:
            return Screened()
        answer = self._request(request)
        screenings = tuple(Screening(**item) for item in answer["screenings"])
        return Screened(screenings, tuple(answer["notes"]), answer["tokens"], answer["seconds"])

    def close(self) -> None:
        """End the child; safe to call twice."""
        child, self._child, self._opened = self._child, None, None
        if child is None:
            return
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def _request(self, message: dict[str, Any]) -> dict[str, Any]:
        """The child's answer. A child that failed is ended, so that the next request starts a fresh one; one that
        refused an adapter keeps its base: loading a large one takes minutes, and bad adapters are cheap to send.
        """
        deadline = time.monotonic() + self.timeout_s
        try:
            child = self._start()
            if self._opened != self.setting:
                self._exchange(child, {"do": "open", "setting": self.setting.encode()}, deadline)
                self._opened = self.setting
            return self._exchange(child, message, deadline) if message["do"] != "open" else {}
        except JudgingFailed as error:
            if not error.is_warm:
                self.close()
            raise

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        environment = make_environment(self.threads)
        # CUDA maps far more than it uses: a limit of the host's memory would stop it at once.
        memory_bytes = self.memory_bytes if self.setting.device == "cpu" else 0
        command = [sys.executable, "-m", "ml.judge_desk", str(self.threads), str(memory_bytes)]
        with open(self.log or os.devnull, "ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, bufsize=0
            )
        return self._child

    def _exchange(self, child: "subprocess.Popen[bytes]", message: dict[str, Any], deadline: float) -> dict[str, Any]:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            write_message(child.stdin, message)
        except OSError:
            raise JudgingFailed("crash", _describe_end(child)) from None
        length = int.from_bytes(self._receive(child, 4, deadline), "big")
        if length > MAX_MESSAGE_BYTES:
            raise JudgingFailed("error", f"answer of {length} bytes exceeds {MAX_MESSAGE_BYTES}")
        answer: dict[str, Any] = json.loads(self._receive(child, length, deadline))
        if "failed" in answer:
            raise JudgingFailed(answer["failed"], answer["detail"], is_warm=answer["is_warm"])
        return answer

    def _receive(self, child: "subprocess.Popen[bytes]", size: int, deadline: float) -> bytes:
        assert child.stdout is not None
        data = b""
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                raise JudgingFailed("timeout", f"no answer within {self.timeout_s:g} s")
            part = child.stdout.read(size - len(data))
            if not part:
                raise JudgingFailed("crash", _describe_end(child))
            data += part
        return data


def _describe_end(child: "subprocess.Popen[bytes]") -> str:
    code = child.wait(timeout=10)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
