"""The judging process itself (`python -m ml.judge_desk`): answers one request at a time over stdin and stdout.

Messages are 4 bytes of length (big endian) and JSON: no pickle, and tensors stay in files. Its other end is
ml/judge_process.py.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ml.adapter import read_global
from ml.canonical import Malformed
from ml.data import Block
from ml.judge import HoldoutMeter
from ml.spec import JudgeSpec, decode_spec

MAX_MESSAGE_BYTES = 2**24


def write_message(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    view = memoryview(len(data).to_bytes(4, "big") + data)
    while view:
        view = view[stream.write(view) :]


def read_message(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message, or None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    message: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
    return message


class Desk:
    """The child's side: holds the loaded base and answers one request at a time."""

    def __init__(self) -> None:
        self._base: Any = None
        self._loaded: tuple[Any, ...] = ()
        self._meter: Any = None

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if message["do"] == "open":
            self._open(message["setting"])
            return {}
        if message["do"] == "measure":
            measured = self._meter.measure(Path(message["path"]), message["coefficient_ppm"], message["parts"])
            return asdict(measured)
        if message["do"] == "judge_candidate":
            return {"figures": [asdict(figure) for figure in self._meter.judge_candidate(Path(message["path"]))]}
        if message["do"] == "measure_gains":
            return {"gains": self._meter.measure_gains(Path(message["candidate"]), Path(message["without"]))}
        if message["do"] == "screen_update":
            peers = [(Path(path), coefficient_ppm) for path, coefficient_ppm in message["peers"]]
            return asdict(self._meter.screen_update(Path(message["path"]), message["coefficient_ppm"], peers))
        if message["do"] == "screen_candidate":
            return asdict(self._meter.screen_candidate(Path(message["path"])))
        raise ValueError(f"unknown request {message['do']!r}")

    def _open(self, setting: Mapping[str, Any]) -> None:
        from ml.base import load_tokenizer
        from ml.score import ScoringBase

        spec = decode_spec(setting["spec"])
        base_dir = Path(setting["base_dir"])
        wanted = (base_dir, spec, setting["dtype"], setting["device"])
        if self._loaded != wanted:
            self._base, self._meter, self._loaded = None, None, ()
            self._base = ScoringBase.load(base_dir, spec, setting["dtype"], setting["device"])
            self._loaded = wanted
        listing = json.loads(Path(setting["holdouts"]).read_text())
        holdouts = {
            name: [Block(item["document"], tuple(item["tokens"])) for item in blocks]
            for name, blocks in listing.items()
        }
        current, best = (
            read_global(Path(path), spec)[0] if path else None for _, path in (setting["current"], setting["best"])
        )
        judge_spec = JudgeSpec(**setting["judge_spec"])
        decode = load_tokenizer(str(base_dir)).decode if judge_spec.screen_tokens else str
        self._meter = HoldoutMeter(self._base, judge_spec, holdouts, current=current, best=best, decode=decode)


def _limit_resources(memory_bytes: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        # Private writable memory; the mapped base is shared between judges and does not count (Linux >= 4.7).
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _name_failure(error: Exception) -> str:
    said = str(error).lower()
    memory = isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said
    return "out-of-memory" if memory else "error"


def main(threads: int, memory_bytes: int) -> None:
    """Answer requests until stdin ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    _limit_resources(memory_bytes)
    import torch

    torch.set_num_threads(threads)
    desk = Desk()
    while (message := read_message(requests)) is not None:
        try:
            answer = desk.answer(message)
        except Malformed as error:
            answer = {"failed": "error", "detail": f"malformed: {error}", "is_warm": True}
        except FileNotFoundError as error:
            answer = {"failed": "error", "detail": f"FileNotFoundError: {error}", "is_warm": True}
        except Exception as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            # After an error of CUDA no later one means anything: whoever asked starts another process.
            detail = f"{type(error).__name__}: {str(error)[:160]}"
            answer = {"failed": _name_failure(error), "detail": detail, "is_warm": False}
        write_message(answers, answer)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
