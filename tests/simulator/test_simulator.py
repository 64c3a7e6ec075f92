"""Networks of real cores, 300 over a toy, 300 over the real execution: safety under faults, then liveness after."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .__main__ import main
from .mutants import no_lock_rule
from .run import Finding, simulate, size_of
from .world import Outcome

CHUNK = 25
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("first", range(0, 300, CHUNK))
def test_networks_agree_under_faults_and_go_on_after_them(first: int) -> None:
    for seed in range(first, first + CHUNK):
        result = simulate(seed, size_of(seed))
        assert isinstance(result, Outcome), f"{result.what}\nreplay: {result.replay}"


@pytest.mark.parametrize("first", range(1000, 1300, CHUNK))
def test_networks_over_the_real_execution_reach_equal_state_roots(first: int) -> None:
    for seed in range(first, first + CHUNK):
        result = simulate(seed, size_of(seed), "chain")
        assert isinstance(result, Outcome), f"{result.what}\nreplay: {result.replay}"


def test_seeds_meet_the_faults_they_are_meant_to_meet() -> None:
    outcomes = [simulate(seed, size_of(seed)) for seed in range(30)]
    assert not [outcome for outcome in outcomes if isinstance(outcome, Finding)]
    assert sum(outcome.crashes for outcome in outcomes if isinstance(outcome, Outcome)) >= 10
    assert sum(outcome.highest_round >= 2 for outcome in outcomes if isinstance(outcome, Outcome)) >= 15


def test_a_seed_always_does_the_same() -> None:
    """Also under another hash seed: no order of a set of bytes may leak into the core."""
    command = [sys.executable, "-m", "tests.simulator", "--first", "7", "--seeds", "2", "--trace"]
    traces = [
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, check=True
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert traces[0].count(b"\n") > 1000


def test_the_command_prints_its_budget() -> None:
    command = [sys.executable, "-m", "tests.simulator", "--seeds", "4", "--jobs", "2"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True, timeout=60).stdout
    assert "no finding: 4 seeds, 40 heights" in printed


def test_a_failing_seed_comes_with_the_command_that_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    with no_lock_rule():
        assert main(["--seeds", "50", "--jobs", "1"]) == 1
        replay = capsys.readouterr().out.strip().splitlines()[-1]
        assert replay.startswith("replay: python -m tests.simulator --first ")
        assert main(replay.removesuffix(" --trace").split()[4:]) == 1
