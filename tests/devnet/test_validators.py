"""Any one of the four validators dies by -9 in any phase: the round settles, the node returns, all agree."""

import os
from pathlib import Path
from random import Random

import pytest

from flockchain.client import Json
from tests.devnet.network import VALIDATORS, Network
from tests.devnet.scripted import Cast, make_task_spec, make_update
from tests.support.processes import wait_until

pytestmark = [pytest.mark.devnet, pytest.mark.slow]
FIRST_TO_ACT = {
    "train": "trainer0",
    "publish": "trainer0",
    "commit": "judge0",
    "reveal": "judge0",
    "aggregate": "judge0",
}
HONEST = ("trainer0", "trainer1", "trainer2")
POISONER = "trainer3"


@pytest.mark.parametrize("phase", FIRST_TO_ACT)
def test_each_validator_killed_in_a_phase(network: Network, tmp_path: Path, phase: str) -> None:
    """One round per victim; it dies when the first participant has acted, and comes back for the next round."""
    poison = {POISONER: make_update(POISONER, sign=-1)}
    with Cast(network, tmp_path, make_task_spec(rounds=VALIDATORS), poison) as cast:
        for victim in range(VALIDATORS):
            cast.play_to(phase)
            cast.step(FIRST_TO_ACT[phase])
            network.kill(victim)
            check_settled(cast, cast.finish_round())
            network.restart()
        network.check_agreement()
        network.check_nobody_signed_twice()


def check_settled(cast: Cast, settled: Json) -> None:
    """As if nobody had died: the honest are accepted and paid, only the poisoner is slashed."""
    assert settled["outcome"].startswith("aggregated")
    outcomes = {verdict["trainer"]: verdict["outcome"] for verdict in settled["verdicts"]}
    expected = dict.fromkeys(HONEST, "accept") | {POISONER: "reject"}
    assert outcomes == {cast.members[name].me: outcome for name, outcome in expected.items()}
    assert [slash["account"] for slash in settled["slashes"]] == [cast.members[POISONER].me]
    assert {reward["account"] for reward in settled["rewards"]} == {
        cast.members[name].me for name in (*HONEST, *cast.judge_names)
    }


def test_free_running_participants_and_validators_killed_at_random(network: Network, tmp_path: Path) -> None:
    """Nobody waits for the test here: the workers' own loops run while one validator after another dies anywhere."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    random = Random(seed)
    poison = {POISONER: make_update(POISONER, sign=-1)}
    with Cast(network, tmp_path, make_task_spec(rounds=4), poison) as cast, cast.running():
        while cast.task()["status"] == "open":
            victim, witness = random.sample(range(VALIDATORS), 2)
            network.kill(victim)
            height = int(network.status(witness)["height"]) + random.randrange(12)
            wait_until(lambda w=witness, h=height: cast.is_over() or network.status(w)["height"] >= h, 60)  # type: ignore[misc]
            network.restart()
        for number in range(1, 5):
            check_settled(cast, cast.round(number))
    network.check_agreement()
    network.check_nobody_signed_twice()
