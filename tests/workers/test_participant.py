"""A participant whose node goes away in the middle, so that the next to answer is a block behind."""

from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from flockchain.client import Client, Json
from flockchain.errors import Refused
from flockchain.workers import participant
from flockchain.workers.participant import Participant

OPEN = {"status": "open", "round": 2}
ENDED = {"status": "finished", "round": 2, "reason": ""}


class Changing(Client):
    """Names round 2 by one node and asks another for it, which refuses `lags` times; then the task ends."""

    def __init__(self, lags: int, refusal: Refused) -> None:
        super().__init__(["http://127.0.0.1:9"])
        self.lags, self.refusal = lags, refusal
        self.tasks = [OPEN] * (lags + 1) + [ENDED]

    def task(self, task: int) -> Json:
        return self.tasks.pop(0)

    def round(self, task: int, number: int) -> Json:
        if self.lags:
            self.lags -= 1
            raise self.refusal
        return {"number": number}


class Watcher(Participant):
    def __init__(self, client: Client, folder: Path) -> None:
        self.seen: list[Any] = []
        super().__init__(client, SigningKey(bytes(32)), 1, folder, lambda what, _: self.seen.append(what))

    def step(self, task: Json, round_: Json) -> None:
        self.seen.append(round_["number"])

    def finish(self, task: Json) -> None:
        self.seen.append("finished")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participant, "POLL_S", 0.01)


def test_a_round_that_the_next_node_does_not_know_yet_is_waited_for(tmp_path: Path) -> None:
    """Two answers of a node that lags; the participant says so, and takes part once the round is known."""
    watcher = Watcher(Changing(2, Refused("not-found", "task 1 has no round 2")), tmp_path)
    watcher.run()
    assert watcher.seen == [*["waiting for a node that lags"] * 2, 2, "finished", "task ended"]


def test_any_other_refusal_ends_the_participant(tmp_path: Path) -> None:
    """What waiting does not mend is not waited for."""
    with pytest.raises(Refused, match="no such"):
        Watcher(Changing(1, Refused("bad-query", "no such")), tmp_path).run()
