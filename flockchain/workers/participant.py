"""What trainer and voter share: watch one task, and send what is owed exactly once.

A participant keeps no plan of its own: each step reads the chain and does what the chain still lacks from it. So a
restart, of itself or of its node, in any phase, is no special case.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from nacl.signing import SigningKey

from flockchain.client import Client, Json, Unreachable
from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import address_of, format_address
from flockchain.errors import Refused
from flockchain.types.tx import OK
from flockchain.workers.outbox import Outbox

POLL_S = 0.25
RETRY_S = 1.0
SEND_TIMEOUT_S = 20.0
RESIGN_CODES = frozenset({"nonce-spent", "nonce-ahead", "nonce-gap", "nonce-taken", "expired"})
"""Refusals of the envelope, not of the content: the same body may be signed again with a fresh envelope."""

Report = Callable[[str, dict[str, Any]], None]
"""Told what the participant does, for progress displays: a short verb phrase and its figures."""


def log_report(what: str, figures: dict[str, Any]) -> None:
    structlog.get_logger().info(what, **figures)


class Participant(ABC):
    """One key in one task."""

    def __init__(self, client: Client, key: SigningKey, task: int, folder: Path, report: Report = log_report) -> None:
        self.client = client
        self.key = key
        self.address = address_of(bytes(key.verify_key))
        self.me = format_address(self.address)
        self.task_id = task
        self.folder = folder
        self.report = report
        self.outbox = Outbox(folder / "outbox")
        self.last_refusal: Refused | None = None
        self._stopping = False

    def pause(self) -> None:
        """Wait a little before the next attempt."""
        time.sleep(RETRY_S)

    def stop(self) -> None:
        """Ask `run` to return after the current step."""
        self._stopping = True

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    def run(self) -> None:
        """Take part until the task ends or `stop` is called."""
        try:
            while not self._stopping:
                try:
                    task = self.client.task(self.task_id)
                    if task["status"] != "open":
                        self.finish(task)
                        self.report("task ended", {"status": task["status"], "reason": task["reason"]})
                        return
                    round_ = self._find_round(task["round"])
                    if round_ is not None:
                        self.step(task, round_)
                    time.sleep(POLL_S)
                except Unreachable as error:
                    self.report("waiting for a node", {"error": str(error)})
                    self.pause()
        finally:
            self.outbox.close()

    def _find_round(self, number: int) -> Json | None:
        """The task's round; None while the node that answers now is behind the one that named it."""
        try:
            return self.client.round(self.task_id, number)
        except Refused as refusal:
            if refusal.code != "not-found":
                raise
            self.report("waiting for a node that lags", {"round": number, "message": refusal.message})
            return None

    @abstractmethod
    def finish(self, task: Json) -> None:
        """Do what is left once the task is over."""

    @abstractmethod
    def step(self, task: Json, round_: Json) -> None:
        """Do what the chain still lacks from this participant in this phase; subclasses say what."""

    def now_ms(self) -> int:
        """Header time, or our clock where no block was made for a while: nothing happens while all wait for bytes."""
        return max(int(self.client.status()["time_ms"]), time.time_ns() // 1_000_000)

    # Sending

    def send_once(self, name: str, kind: str, make_body: Callable[[], Canonical], *, free: bool = True) -> Json | None:
        """Send the transaction called `name`, whose content is fixed by the first call.

        Content and signed bytes are on disk before anything leaves. Only the envelope (nonce, expiry) is ever signed
        again, and only when the chain refused the old one. Returns the result once final, or None to try again.
        """
        if self.outbox.find(f"{name}.body") is None:
            self.keep_body(name, make_body())
        return self.send_kept(name, kind, free=free)

    def send_kept(self, name: str, kind: str, *, free: bool = True) -> Json | None:
        """As `send_once`, for content that `keep_body` has fixed."""
        body = self.outbox.find(f"{name}.body")
        assert body is not None, f"{name} was never fixed"
        signed = self.outbox.keep(f"{name}.tx", lambda: self._sign(kind, body, free))
        try:
            result = self.client.wait(self.client.submit(signed), timeout_s=SEND_TIMEOUT_S)
            code, message = result["code"], result["message"]
        except Refused as refusal:
            code, message = refusal.code, refusal.message
        if code == OK:
            return result
        if code in RESIGN_CODES:
            self.outbox.replace(f"{name}.tx", self._sign(kind, body, free))
        self.last_refusal = Refused(code, message)
        self.report("refused", {"name": name, "code": code, "message": message})
        return None

    def _sign(self, kind: str, body: bytes, free: bool) -> bytes:
        return self.client.build(self.key, kind, body, free=free)

    def keep_body(self, name: str, body: Canonical) -> None:
        """Fix the content called `name` for good."""
        self.outbox.keep(f"{name}.body", lambda: encode(body))

    def kept_body(self, name: str, kind: type[Canonical]) -> Canonical | None:
        """The content fixed under `name` earlier, if any."""
        found = self.outbox.find(f"{name}.body")
        return None if found is None else decode(kind, found)
