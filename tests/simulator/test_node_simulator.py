"""Networks of real nodes under faults and attackers: no fork, nobody stuck, nobody honest punished. See `node/`."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from .node.adversary import PLOTS
from .node.dice import Dice
from .node.disk import SimDisk, installed
from .node.golden import FILE, SEEDS
from .node.mutants import MUTANTS, find
from .node.outcome import Outcome
from .node.run import run_seed
from .node.scenario import Crash, Moment, draw_scenario
from .run import Finding, simulate

ROOT = Path(__file__).resolve().parents[2]
SIZES = (4, 5, 4, 5, 4, 7)
MET = {
    "a block request was served",
    "a clock was far off",
    "a connection broke",
    "a height was decided after round 0",
    "a height was decided by consensus",
    "a height was learnt by a decision",
    "a height was learnt by block sync",
    "a height was replayed from the log",
    "a log was lost",
    "a locked value was proposed again",
    "a message met a one-way cut",
    "a message met a partition",
    "a message was duplicated",
    "a message was held back",
    "a message was lost",
    "a node crashed",
    "a peer was banned",
    "a plot lost a message",
    "a torn log was cut",
    "a write to log or signer state was torn",
    "an equivocation was found",
    "answered a block request with lie",
    "answered a block request with nothing",
    "answered a block request with silence",
    "answered a block request with truth",
    "claimed a height",
    "equivocating precommits",
    "equivocating prevotes",
    "equivocating proposals",
    "felled after its precommit left",
    "felled before it persisted",
    "flipped a bit",
    "forged a decision",
    "forged a proof of lock",
    "forged a vote",
    "not everyone was connected to everyone",
    "one went a round ahead of all others",
    "repeated an old message",
    "sent a bad transaction",
    "sent garbage",
    "stores were SQLite files",
    "withheld a message from some",
    *(f"a crash was planned for when {moment.value}" for moment in Moment),
    *(f"plot: {plot.__name__}" for plot in PLOTS),
}
"""Every fault, every act of the faulty and every interesting path occurs within the seeds of `make test`."""


def must_hold(seed: int, n: int, app: str = "node") -> Counter[str]:
    result = simulate(seed, n, app)
    assert not isinstance(result, Finding), f"{result.what}\nreplay: {result.replay}"
    return Counter(result.counts)


def test_networks_of_real_nodes_agree_go_on_and_meet_every_fault() -> None:
    counts: Counter[str] = Counter()
    for seed in range(36):
        counts += must_hold(seed, SIZES[seed % len(SIZES)])
    assert not MET - counts.keys(), "these never happened"


def test_with_more_than_a_third_faulty_the_chain_forks_and_the_evidence_names_a_third() -> None:
    counts: Counter[str] = Counter()
    for seed in range(18):
        counts += must_hold(seed, (4, 5, 7)[seed % 3], "split")
    assert counts["the chain forked"] == 18
    assert counts["by signing twice"] >= 5
    assert counts["by forgetting a lock"] >= 5


def test_a_forgetful_attack_plays_a_height_until_both_halves_decided() -> None:
    """755: one half was in a round before the other decided, whose turn it was: nobody spoke to the first any more."""
    assert must_hold(755, 7, "split")["by forgetting a lock"] == 1


def test_commits_of_the_database_torn_by_a_crash_leave_whole_blocks() -> None:
    counts: Counter[str] = Counter()
    for seed in range(3):
        crashes = tuple(Crash(300 + 400 * i, index, Moment.COMMIT) for i in range(4) for index in range(4))
        scenario = replace(draw_scenario(seed, 4), is_on_files=True, crashes=crashes)
        counts += Counter(run_seed(seed, 4, scenario=scenario).counts)
    assert counts["a commit of the database was torn"] >= 3


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_always_does_the_same(hash_seed: str) -> None:
    """In another process, under another hash seed, and on whatever Python runs this: as committed."""
    code = "import json; from tests.simulator.node.golden import compute; print(json.dumps(compute()))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True, timeout=120
    ).stdout
    assert json.loads(printed) == json.loads(FILE.read_text()), "write them anew: python -m tests.simulator.node.golden"


def test_the_golden_seeds_differ_from_each_other() -> None:
    digests = json.loads(FILE.read_text())
    assert len(set(digests.values())) == len(digests) == len(SEEDS)


@pytest.mark.parametrize(
    "name",
    [
        "no lock rule", "quorum of half", "no proof of lock", "only this round sent again", "time unchecked",
        "signer not synced", "log not replayed", "log not synced", "log synced late", "log emptied early",
        "torn record believed", "commit unchecked", "commit of another block", "small commit accepted",
        "third vote always new",
    ],
)  # fmt: skip
def test_a_planted_bug_is_noticed(name: str) -> None:
    """Those that take few seeds; the others are in `make sim`."""
    assert find(name, 60) is not None, f"{name} survived 60 seeds"


def test_planted_bugs_lie_in_every_room() -> None:
    assert {mutant.room for mutant in MUTANTS.values()} >= {"consensus", "signer", "log", "store", "sync"}
    assert len(MUTANTS) >= 12


def test_a_failing_seed_of_nodes_comes_with_the_command_that_replays_it() -> None:
    with MUTANTS["commit unchecked"].patch():
        found = next(r for seed in range(20) if isinstance(r := simulate(seed, 4, "node"), Finding))
    assert found.replay == f"python -m tests.simulator --first {found.seed} --seeds 1 --n 4 --app node --trace"
    assert isinstance(simulate(found.seed, 4, "node"), Outcome), "without the bug the seed holds"


# The simulated disk itself


def test_what_was_synced_survives_a_crash_and_the_rest_is_kept_in_order_or_torn() -> None:
    from flockchain.node.wal import WriteAheadLog

    records = [bytes([i]) * 50 for i in range(6)]
    lengths = set()
    for seed in range(60):
        disk = SimDisk()
        with installed():
            log = WriteAheadLog(disk.path("wal"))
            for number, record in enumerate(records):
                log.append(record)
                if number == 2:
                    log.sync()
            disk.crash(Dice("disk", seed))
            found = WriteAheadLog(disk.path("wal")).records
        assert found == records[: len(found)], f"seed {seed}"
        assert len(found) >= 3, f"seed {seed}"
        lengths.add(len(found))
    assert lengths == {3, 4, 5, 6}


def test_a_renamed_file_that_was_not_synced_may_be_empty_after_a_crash() -> None:
    contents = set()
    for seed in range(40):
        disk = SimDisk()
        with installed():
            old = disk.open("state", os.O_CREAT)
            disk.append(old, b"old")
            disk.sync(old)
            disk.sync_folder()
            disk.append(disk.open("state.tmp", os.O_CREAT), b"new")
            disk.replace("state.tmp", "state")
        disk.crash(Dice("rename", seed))
        contents.add(disk.path("state").read_bytes())
    assert {b"old", b"new", b""} <= contents
