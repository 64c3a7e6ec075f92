"""A trainer's budget of epsilon: spent before a round, kept over restarts, refused when the next would exceed it."""

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flockchain.errors import Refused
from flockchain.workers.privacy import SECRET, SPENDS, PrivacyBudget, Promise, open_budget, read_spends
from ml.data import Block
from ml.privacy import Privacy, Spend
from ml.spec import TrainSpec

NEEDS_LIBRARY = "differential privacy is the extra `dp`: pip install 'flockchain[dp]'"
TRAIN = TrainSpec(local_steps=20, batch_size=8, sequence_length=32, learning_rate=1e-2, seed=0)
BLOCKS = [Block(f"document {number // 2}", tuple(range(20))) for number in range(400)]
PROMISE = Promise(epsilon=4.0, delta=1e-5, clip_norm=0.1, unit="document")


class Told:
    """Keeps what a worker reports."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, what: str, figures: dict[str, Any]) -> None:
        self.events.append((what, figures))


def open_(folder: Path, *, rounds: int = 3, promise: Promise = PROMISE, told: Told | None = None) -> PrivacyBudget:
    pytest.importorskip("opacus", reason=NEEDS_LIBRARY)
    return PrivacyBudget(folder, promise, rounds, told or Told())


def spend(privacy: Privacy, run: str, blocks: Sequence[Block] = BLOCKS) -> None:
    """As a training does before its first step; 200 documents of two blocks each."""
    privacy.spend(Spend(run, privacy.noise_multiplier, 8 / 200, TRAIN.local_steps))


def test_a_tasks_rounds_fit_and_one_more_is_refused(tmp_path: Path) -> None:
    """The budget is opened anew for each round, as after a restart; the refused round leaves no mark."""
    told = Told()
    for number in range(3):
        budget = open_(tmp_path, told=told)
        spend(budget.plan(BLOCKS, TRAIN), f"round {number}")
        budget.tell()
    budget = open_(tmp_path)
    with pytest.raises(
        Refused, match=r"3 trainings spent epsilon 3\.9\d+ of 4 .* the next would make it [45]\.\d+"
    ) as at:
        spend(budget.plan(BLOCKS, TRAIN), "round 3")
    assert at.value.code == "privacy-spent"
    assert len(read_spends(tmp_path)) == 3
    after = [figures for what, figures in told.events if what == "privacy after"]
    assert [figures["next"] for figures in after] == ["fits", "fits", "would be refused"]
    assert after[0]["epsilon_spent"] < after[1]["epsilon_spent"] < after[2]["epsilon_spent"] <= 4.0
    before = [figures for what, figures in told.events if what == "privacy before"]
    assert [figures["epsilon_after"] for figures in before] == [figures["epsilon_spent"] for figures in after]


def test_a_training_that_repeats_itself_is_counted_once(tmp_path: Path) -> None:
    """A killed training begins again under its name, also when the budget is spent."""
    budget = open_(tmp_path, rounds=1)
    privacy = budget.plan(BLOCKS, TRAIN)
    spend(privacy, "round 0")
    spend(open_(tmp_path, rounds=1).plan(BLOCKS, TRAIN), "round 0")
    assert [one.run for one in read_spends(tmp_path)] == ["round 0"]
    with pytest.raises(Refused):
        spend(privacy, "round 1")


def test_the_secret_is_kept_and_private(tmp_path: Path) -> None:
    first, again = (open_(tmp_path).plan(BLOCKS, TRAIN) for _ in range(2))
    assert first.secret == again.secret
    assert stat.S_IMODE((tmp_path / SECRET).stat().st_mode) == 0o600
    assert open_(make_folder(tmp_path, "other")).plan(BLOCKS, TRAIN).secret != first.secret
    spend(first, "round 0")
    assert first.secret.hex() not in (tmp_path / SPENDS).read_text() + repr(first)


def test_who_promised_cannot_forget_it(tmp_path: Path) -> None:
    """Without the option, or with a damaged record, a folder that counts a promise is refused; an empty one is not."""
    told = Told()
    assert open_budget(tmp_path, None, 3, told) is None
    spend(open_(tmp_path).plan(BLOCKS, TRAIN), "round 0")
    with pytest.raises(Refused) as at:
        open_budget(tmp_path, None, 3, told)
    assert at.value.code == "privacy-promised"
    text = (tmp_path / SPENDS).read_text()
    (tmp_path / SPENDS).write_text(text[: len(text) // 2])
    with pytest.raises(Refused, match="is damaged"):
        spend(open_(tmp_path).plan(BLOCKS, TRAIN), "round 1")


def test_a_smaller_epsilon_or_more_rounds_mean_more_noise(tmp_path: Path) -> None:
    noises = [
        open_(tmp_path, rounds=rounds, promise=Promise(epsilon, 1e-5, 0.1, "document"))
        .plan(BLOCKS, TRAIN)
        .noise_multiplier
        for epsilon, rounds in ((8.0, 3), (2.0, 3), (2.0, 12))
    ]
    assert noises == sorted(noises)
    assert noises[0] < noises[1] < noises[2]
    per_block = open_(tmp_path, promise=Promise(8.0, 1e-5, 0.1, "block")).plan(BLOCKS, TRAIN)
    assert per_block.noise_multiplier < noises[0]


def test_a_delta_that_allows_to_publish_a_sample_is_refused(tmp_path: Path) -> None:
    budget = open_(tmp_path, promise=Promise(4.0, 0.01, 0.1, "document"))
    with pytest.raises(Refused, match="one of 200 documents whole"):
        budget.plan(BLOCKS, TRAIN)


@pytest.mark.parametrize(
    "fields",
    [(0, 1e-5, 0.1, "document"), (4, 1, 0.1, "document"), (4, 1e-5, 0, "document"), (4, 1e-5, 0.1, "word")],
)
def test_a_promise_that_means_nothing_is_refused(fields: tuple[Any, ...]) -> None:
    with pytest.raises(Refused) as at:
        Promise(*fields)
    assert at.value.code == "bad-privacy"


def test_without_the_library_the_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(Refused, match=r"pip install 'flockchain\[dp\]'"):
        PrivacyBudget(tmp_path, PROMISE, 3, Told())


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    spend(open_(tmp_path).plan(BLOCKS, TRAIN), "round 0")
    (row,) = json.loads((tmp_path / SPENDS).read_text())
    assert set(row) == {"run", "noise_multiplier", "rate", "steps"}


def test_a_trainer_of_files_spends_before_it_trains_and_stops_when_all_is_spent(tmp_path: Path) -> None:
    """The way of `flockchain trainer run`, on the tiny base: one round of a task of one, then a second."""
    pytest.importorskip("torch")
    from flockchain.workers.learning import Machine, make_honest
    from flockchain.workers.view import Model
    from ml.base import base_hash
    from ml.data import Document
    from ml.spec import make_spec
    from ml.tiny import write_tiny

    told, base = Told(), make_folder(tmp_path, "base")
    write_tiny(base)
    budget = open_(tmp_path, rounds=1, told=told)
    documents = [Document(f"text number {number} of a person" * 3) for number in range(30)]
    make_update = make_honest(documents, Machine(dtype="fp32"), told, budget)
    spec = make_spec(
        base, base_hash(base), rank=4, alpha=8, target_modules=("q_proj",), a_seed=b"task", update_step_log2=-12
    )
    model = Model(base, spec, "fp32", "mean", 0, 2**20, ("code",))
    steps = TrainSpec(local_steps=2, batch_size=4, sequence_length=32, learning_rate=1e-2, seed=0)
    update, _ = make_update(model, steps, None)
    assert set(update) == set(spec.modules)
    assert [what for what, _ in told.events] == ["privacy before", "step", "step", "own loss", "privacy after"]
    with pytest.raises(Refused) as at:
        make_update(model, steps, {module: values.astype("int32") for module, values in update.items()})
    assert at.value.code == "privacy-spent"
    with pytest.raises(Refused, match="--processes 2"):
        make_honest(documents, Machine(processes=2, folder=tmp_path), told, budget)


def make_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def test_an_attack_keeps_to_no_promise(tmp_path: Path) -> None:
    from flockchain.workers.learning import Machine, choose_training

    with pytest.raises(Refused, match="leave one out"):
        choose_training("backdoor", [], Machine(), Told(), open_(tmp_path))
