"""Any one of the four validators dies by -9 in any phase: the round settles, the node returns, all agree."""

from pathlib import Path

import pytest

from flockchain.client import Json
from tests.devnet.network import VALIDATORS, Network
from tests.devnet.scripted import Cast, make_task_spec, make_update

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
