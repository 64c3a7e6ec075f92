"""The network of one scenario: its namespaces and their switch, and the rules that perturb it."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tests.scenarios.namespaces import (
    Inside,
    make_namespaces,
    remove_namespaces,
    remove_stale_namespaces,
    set_link,
    set_up_device,
)
from tests.scenarios.switch import OPEN, Rule

ROOT = Path(__file__).resolve().parent.parent.parent
SWITCH_STOP_S = 30


class NamespaceNetwork:
    """`count` namespaces that reach each other at `address_of_node(index)`; a context manager that leaves nothing."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count = count
        self._seed = seed
        self.names: list[str] = []
        self.inside: list[Inside] = []
        """A thread in each namespace."""
        self._switch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "NamespaceNetwork":
        remove_stale_namespaces()
        try:
            self.names = make_namespaces(self.count)
            self._switch = subprocess.Popen(
                [sys.executable, "-m", "tests.scenarios.switch", str(self._seed), *self.names],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
            self._read_answer()
            for index, name in enumerate(self.names):
                set_up_device(name, index)
            self.inside = [Inside(name) for name in self.names]
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def set_rules(self, rules: dict[tuple[int, int], Rule]) -> dict[str, int]:
        """Rules by (sender, receiver); every other way is open. Returns the frames counted until now."""
        assert self._switch is not None
        assert self._switch.stdin is not None
        places = range(self.count)
        table = [[rules.get((sender, receiver), OPEN) for receiver in places] for sender in places]
        self._switch.stdin.write(msgspec.json.encode(table) + b"\n")
        self._switch.stdin.flush()
        counted: dict[str, int] = msgspec.json.decode(self._read_answer())
        return counted

    def set_links(self, indexes: Iterable[int], *, is_up: bool) -> None:
        for index in indexes:
            set_link(self.names[index], is_up=is_up)

    def start(self, index: int, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Run a command in the namespace of a node; what it says goes to the end of `log`."""
        with log.open("ab") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[index], *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=ROOT,
            )

    def _read_answer(self) -> bytes:
        assert self._switch is not None
        assert self._switch.stdout is not None
        answer = self._switch.stdout.readline()
        assert answer, "the switch died: see above"
        return answer

    def _clear(self) -> None:
        """The switch clears up at the end of its stdin; once more here, in case that it was killed."""
        if self._switch is not None:
            assert self._switch.stdin is not None
            assert self._switch.stdout is not None
            self._switch.stdin.close()
            self._switch.wait(SWITCH_STOP_S)
            self._switch.stdout.close()
        for inside in self.inside:
            inside.close()
        remove_namespaces(self.names)
