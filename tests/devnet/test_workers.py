"""A worker process dies by -9 after each thing it writes or sends, and starts again: it never says two things."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flockchain.client import wait_until
from tests.devnet.network import Network
from tests.devnet.scripted import Cast, make_task_spec

pytestmark = pytest.mark.devnet
KILLED = -9
MAX_LIVES = 30


class Lives:
    """One worker of `cast` as a process that is killed after every durable act and started again."""

    def __init__(self, network: Network, cast: Cast, name: str) -> None:
        member = cast.members[name]
        member.outbox.close()
        self.folder = member.folder
        self.command = [
            *(sys.executable, "-m", "tests.devnet.worker"),
            *(str(network.devnet.home), str(self.folder), str(cast.task_id), name, "1"),
        ]
        self.deaths = 0
        self.process = self._start()

    def tend(self) -> None:
        """Start it again if it died; it must not end in any other way while the task is open."""
        code = self.process.poll()
        if code is None:
            return
        assert code == KILLED, (self.folder / "errors.txt").read_text()
        self.deaths += 1
        assert self.deaths < MAX_LIVES
        self.process = self._start()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def signed(self) -> list[tuple[str, str]]:
        """(kind, body) of everything it ever signed."""
        lines = (self.folder / "signed.jsonl").read_text().splitlines()
        return [(entry["kind"], entry["body"]) for entry in map(json.loads, lines)]

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "errors.txt").open("ab") as errors:
            return subprocess.Popen(self.command, stderr=errors)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("trainer0", ["submit-adapter"]),
        ("judge0", ["attest-aggregate", "confirm-fetched", "vote", "vote"]),
    ],
)
def test_a_worker_killed_after_each_act_says_everything_once(
    network: Network, tmp_path: Path, name: str, kinds: list[str]
) -> None:
    with Cast(network, tmp_path, make_task_spec()) as cast:
        lives = Lives(network, cast, name)
        try:

            def tend(task: dict[str, object], _: object) -> bool:
                if task["status"] == "open":
                    lives.tend()
                return task["status"] != "open"

            cast.play(tend, silent=[name])
            assert wait_until(lambda: lives.process.poll() is not None, timeout_s=10)
        finally:
            lives.stop()
        settled = cast.round(1)
        assert settled["outcome"].startswith("aggregated")
        assert cast.members[name].me in {reward["account"] for reward in settled["rewards"]}
        assert not settled["slashes"]
        assert sorted(kind for kind, _ in set(lives.signed())) == kinds
        assert lives.deaths > 2 * len(kinds)
