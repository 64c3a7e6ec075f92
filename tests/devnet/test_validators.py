"""Any one of the four validators dies by -9 in any phase: the round settles, the node returns, all agree."""

from pathlib import Path

import pytest

from tests.devnet.network import Network
from tests.devnet.scripted import Cast, make_task_spec, make_update

pytestmark = pytest.mark.devnet
FIRST_TO_ACT = {
    "train": "trainer0",
    "publish": "trainer0",
    "commit": "judge0",
    "reveal": "judge0",
    "aggregate": "judge0",
}


@pytest.mark.parametrize(
    ("phase", "victim"), [("train", 0), ("publish", 0), ("commit", 1), ("reveal", 2), ("aggregate", 3)]
)
def test_a_validator_killed_in_a_phase(network: Network, tmp_path: Path, phase: str, victim: int) -> None:
    poison = {"trainer3": make_update("trainer3", sign=-1)}
    with Cast(network, tmp_path, make_task_spec(), poison) as cast:
        cast.play_to(phase)
        cast.step(FIRST_TO_ACT[phase])
        network.kill(victim)
        settled = cast.finish_round()
        assert settled["outcome"].startswith("aggregated")
        outcomes = {verdict["trainer"]: verdict["outcome"] for verdict in settled["verdicts"]}
        expected = dict.fromkeys((f"trainer{i}" for i in range(3)), "accept") | {"trainer3": "reject"}
        assert outcomes == {cast.members[name].me: outcome for name, outcome in expected.items()}
        assert [slash["account"] for slash in settled["slashes"]] == [cast.members["trainer3"].me]
        network.restart()
        network.check_agreement()
        network.check_nobody_signed_twice()
