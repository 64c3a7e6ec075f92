"""Hostile trainers publish malformed adapters over the real network: each is refused by name, and no process dies."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flockchain.client import Json
from flockchain.devnet import running_pids
from flockchain.errors import Refused
from flockchain.txs import submit_adapter
from flockchain.workers.store import AdapterFolder
from flockchain.workers.trainer import Trainer
from ml.spec import AdapterSpec
from tests.devnet.malformed import MAKERS, make_good
from tests.devnet.network import TRAINERS, Network, make_key
from tests.devnet.scripted import Cast, make_task_spec

pytestmark = pytest.mark.devnet
HONEST, *HOSTILE = TRAINERS
ROUNDS = -(-len(MAKERS) // len(HOSTILE))
NORM_CAP = 6 * 10**10
"""Four times the |BA|^2 of an honest update, a third of the largest possible."""
Forge = Callable[[Path], None]


class HostileFolder(AdapterFolder):
    """Changes what its trainer made before the root is taken, and may lie about the size."""

    def __init__(self, honest: AdapterFolder, forge: Forge, size_error_bytes: int = 0) -> None:
        super().__init__(honest.folder, honest.client)
        self.forge = forge
        self.size_error_bytes = size_error_bytes

    def keep(self, made: Path) -> tuple[str, int]:
        self.forge(made)
        root, size = super().keep(made)
        return root, size + self.size_error_bytes


def turn_hostile(cast: Cast, name: str, kinds: list[str]) -> None:
    """From now on this trainer publishes one of the kinds per round."""
    trainer = cast.members[name]
    assert isinstance(trainer, Trainer)
    specs: list[AdapterSpec] = []
    honest = trainer.make_update

    def make_update(model, train_spec, start):  # type: ignore[no-untyped-def]
        specs.append(model.spec)
        return honest(model, train_spec, start)

    def forge(path: Path) -> None:
        make, _ = MAKERS[kinds.pop(0)]
        path.write_bytes(make(make_good(path, specs[-1])))

    trainer.make_update = make_update
    trainer.adapters = HostileFolder(trainer.adapters, forge)


def test_each_kind_is_refused_with_its_reason_and_the_honest_adapter_settles(network: Network, tmp_path: Path) -> None:
    kinds = list(MAKERS) + ["NaN"] * (ROUNDS * len(HOSTILE) - len(MAKERS))
    plans = {name: kinds[i * ROUNDS : (i + 1) * ROUNDS] for i, name in enumerate(HOSTILE)}
    before = running_pids(network.devnet)
    spec = make_task_spec(trainers=len(TRAINERS), rounds=ROUNDS, norm_cap=NORM_CAP)
    with Cast(network, tmp_path, spec, trainer_names=TRAINERS) as cast:
        for name, plan in plans.items():
            turn_hostile(cast, name, list(plan))
        for number in range(ROUNDS):
            settled = cast.finish_round()
            assert settled["outcome"].startswith("aggregated")
            for name, plan in plans.items():
                verdict = find_verdict(cast, settled, name)
                words = MAKERS[plan[number]][1]
                assert verdict["outcome"] == "refused", (plan[number], verdict)
                assert verdict["reason"].startswith("malformed: "), (plan[number], verdict)
                assert words in verdict["reason"], (plan[number], verdict)
                assert verdict["slashed_uflk"] == verdict["reward_uflk"] == 0
            assert find_verdict(cast, settled, HONEST)["outcome"] == "accept"
            assert not settled["slashes"]
        assert cast.task()["status"] == "finished"
    assert running_pids(network.devnet) == before
    network.check_agreement()
    network.check_nobody_signed_twice()


def test_a_false_size_leaves_the_bytes_unavailable(network: Network, tmp_path: Path) -> None:
    with Cast(network, tmp_path, make_task_spec(publish_ms=3_000)) as cast:
        liar = cast.members["trainer1"]
        assert isinstance(liar, Trainer)
        liar.adapters = HostileFolder(liar.adapters, lambda path: None, size_error_bytes=-1)
        settled = cast.finish_round()
        assert find_verdict(cast, settled, "trainer1")["outcome"] == "unavailable"
        assert settled["outcome"].startswith("aggregated")
        assert [slash["account"] for slash in settled["slashes"]] == [liar.me]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size_bytes": (1 << 16) + 1}, "adapter-too-large"),
        ({"size_bytes": 0}, "bad-adapter"),
        ({"base_root": b"\1" * 32}, "wrong-base"),
        ({"round": 2}, "wrong-round"),
        ({"task": 999_999}, "unknown-task"),
    ],
)
def test_the_chain_refuses_a_record_that_breaks_the_task(
    open_cast: Cast, change: dict[str, int | bytes], code: str
) -> None:
    fields = {"task": open_cast.task_id, "round": 1, "root": b"\2" * 32, "size_bytes": 1, "base_root": b""}
    body = submit_adapter.Body(**{**fields, **change}, examples=1, versions="")  # type: ignore[arg-type]
    with pytest.raises(Refused) as refusal:
        open_cast.watcher.send(make_key(HONEST), submit_adapter.KIND, body)
    assert refusal.value.code == code


@pytest.fixture(scope="module")
def open_cast(shared_network: Network, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A task that stands in TRAIN."""
    if not shared_network.is_running():
        shared_network.restart()
    with Cast(shared_network, tmp_path_factory.mktemp("open"), make_task_spec()) as cast:
        cast.play_to("train")
        yield cast


def find_verdict(cast: Cast, settled: Json, name: str) -> Json:
    me = cast.members[name].me
    found: Json = next(verdict for verdict in settled["verdicts"] if verdict["trainer"] == me)
    return found
