"""A participant that is started before its node, or while that is away."""

from typing import Any

import pytest

from flockchain.client import Unreachable
from flockchain.workers.patience import wait_for_node


class Absent:
    """Answers from the call `answers_at` on; keeps what the participant was told."""

    def __init__(self, answers_at: int) -> None:
        self.calls_left = answers_at
        self.told: list[tuple[str, dict[str, Any]]] = []

    def ask(self) -> str:
        self.calls_left -= 1
        if self.calls_left > 0:
            raise Unreachable("no node answers")
        return "answer"

    def report(self, what: str, figures: dict[str, Any]) -> None:
        self.told.append((what, figures))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flockchain.workers.patience.RETRY_S", 0.01)


def test_it_says_once_that_it_waits_and_goes_on_when_a_node_answers() -> None:
    node = Absent(answers_at=4)
    assert wait_for_node(node.ask, 30, node.report, lambda: False) == "answer"
    assert node.told == [("waiting for a node", {"error": "no node answers", "left_s": 30})]


@pytest.mark.parametrize("wait_s", [0.0, 0.05])
def test_when_the_time_is_over_it_says_what_to_do(wait_s: float) -> None:
    node = Absent(answers_at=1_000_000)
    with pytest.raises(Unreachable, match="Waited 0 s: start a node, or wait longer by --wait-s"):
        wait_for_node(node.ask, wait_s, node.report, lambda: False)
    assert len(node.told) == (wait_s > 0)


def test_it_stops_waiting_when_it_is_told_to_stop() -> None:
    node = Absent(answers_at=1_000_000)
    assert wait_for_node(node.ask, 30, node.report, lambda: node.calls_left < 999_997) is None
