"""The short form of `python -m tests.fuzz --frames 1000000`, and the proof that the fuzzer sees what it looks for."""

from collections.abc import Iterator

import pytest

from flockchain.errors import Refused

from .__main__ import fuzz
from .targets import Fuzzer

SEED = 1


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    return Fuzzer(SEED, tmp_path_factory.mktemp("fuzz"))


def test_untrue_bytes_crash_nothing_and_the_node_goes_on(fuzzer: Fuzzer, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz(fuzzer, 10_000, SEED) == 0, capsys.readouterr().out


def test_a_decoder_that_lets_an_error_of_its_own_out_is_found(
    fuzzer: Fuzzer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_on_empty(self: Fuzzer) -> None:
        if not self._untrue(b""):
            raise IndexError("a bug")
        raise Refused("malformed", "as it should be")

    monkeypatch.setattr(Fuzzer, "_feed_messages", break_on_empty)
    assert fuzz(fuzzer, 1_000, SEED) == 1
    assert "python -m tests.fuzz --seed 1 --frames" in capsys.readouterr().out
