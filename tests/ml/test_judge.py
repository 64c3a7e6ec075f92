"""Judging: the statistics against known answers, honest and harmful adapters told apart, failures never scored."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.adapter import (
    GlobalAdapter,
    Manifest,
    Update,
    make_global_manifest,
    make_update_manifest,
    write_global,
    write_update,
    zero_global,
)
from ml.aggregate import add_to_global
from ml.data import Block
from ml.figures import (
    MAX_CHANGE_PPM,
    BlockLoss,
    Change,
    compute_change,
    is_harm,
    is_help,
    publish,
    round_to_multiple,
    round_up_bits,
)
from ml.judge import HoldoutMeter, JudgingFailed, Measurement, Submission, check_submissions, judge_round, weigh
from ml.judge_process import JudgingProcess, Setting, write_holdouts
from ml.norms import norm2
from ml.score import ScoringBase
from ml.spec import AdapterSpec, JudgeSpec, make_spec
from tests.ml.support import make_small_spec, make_update

JUDGE = JudgeSpec(min_blocks=6, min_documents=3, block_tokens=32, judge_tokens=32 * 24)


def make_losses(
    ratio: float, noise: float, seed: int, documents: int = 15, blocks: int = 3
) -> tuple[list[BlockLoss], list[BlockLoss]]:
    """(new, old): every document shares one deviation, so that blocks of a document are not independent."""
    random = np.random.default_rng(seed)
    new, old = [], []
    for document in range(documents):
        deviation = random.normal(0, noise)
        for _ in range(blocks):
            nats = float(random.uniform(100, 300))
            old.append(BlockLoss(str(document), nats, 127, 500))
            new.append(BlockLoss(str(document), nats * (ratio + deviation), 127, 500))
    return new, old


class TestFigures:
    def test_the_change_is_the_ratio_of_sums(self) -> None:
        old = [BlockLoss(str(index), nats, 9, 40) for index, nats in enumerate((10.0, 20.0, 30.0, 40.0))]
        new = [replace(loss, nats=nats) for loss, nats in zip(old, (11.0, 20.0, 33.0, 46.0), strict=True)]
        spec = JudgeSpec(min_blocks=4, min_documents=4)
        # 110 / 100 - 1 = 10 %; u = (0, -2, 0, 2); se = sqrt(4/3 * 8) / 100 = 32,660 ppm, in three bits 8 * 2^12.
        raw_se = math.sqrt(4 / 3 * 8) / 100
        coarse = round_up_bits(math.ceil(raw_se * 1e6), 3)
        assert compute_change(new, old, spec) == Change(round_to_multiple(100_000, coarse // 2), coarse)
        assert coarse == 32_768 == 2**15

    def test_the_standard_error_covers_the_truth_as_often_as_it_should(self) -> None:
        """400 simulated holdouts of 15 documents: the true change lies within 2 published errors in 92 % or more."""
        spec = JudgeSpec(min_blocks=30, min_documents=10)
        inside = 0
        for seed in range(400):
            new, old = make_losses(1.05, 0.03, seed)
            change = compute_change(new, old, spec)
            assert change is not None
            inside += abs(change.change_ppm - 50_000) <= 2 * change.se_ppm
        assert 0.92 <= inside / 400 <= 0.999

    def test_blocks_of_one_document_count_as_one_witness(self) -> None:
        spec = JudgeSpec(min_blocks=30, min_documents=10)
        new, old = make_losses(1.05, 0.03, seed=1)
        clustered = compute_change(new, old, spec)
        single = [[replace(loss, document=str(index)) for index, loss in enumerate(losses)] for losses in (new, old)]
        independent = compute_change(single[0], single[1], spec)
        assert clustered is not None
        assert independent is not None
        assert clustered.se_ppm > 1.3 * independent.se_ppm

    @pytest.mark.parametrize(("documents", "blocks"), [(9, 10), (29, 1)])
    def test_too_few_documents_or_blocks_say_nothing(self, documents: int, blocks: int) -> None:
        new, old = make_losses(1.5, 0.01, 1, documents, blocks)
        assert compute_change(new, old, JudgeSpec()) is None

    def test_an_equal_adapter_changes_nothing(self) -> None:
        _, old = make_losses(1, 0, 1)
        change = compute_change(old, old, JudgeSpec())
        assert change == Change(0, 1)
        assert not is_harm(change, JudgeSpec())
        assert not is_help(change, JudgeSpec())

    def test_a_model_that_is_broken_is_harmed(self) -> None:
        new, old = make_losses(1, 0, 1)
        for nats in (math.nan, math.inf):
            change = compute_change([replace(new[0], nats=nats), *new[1:]], old, JudgeSpec())
            assert change == Change(MAX_CHANGE_PPM, 1)
            assert is_harm(change, JudgeSpec())

    def test_published_figures_are_coarse(self) -> None:
        for change_ppm, se_ppm in ((12_345.6, 777.1), (-9.4, 3.3), (0.2, 0.0), (-654_321.9, 9_999.0)):
            found = publish(change_ppm, se_ppm)
            assert se_ppm <= found.se_ppm <= max(1, math.ceil(se_ppm)) * 1.25
            assert abs(found.change_ppm - change_ppm) <= max(1, found.se_ppm // 2) / 2 + 0.5
            assert found.change_ppm % max(1, found.se_ppm // 2) == 0

    def test_rounding_is_exact_at_its_corners(self) -> None:
        assert [round_up_bits(value, 3) for value in (1, 7, 8, 9, 57, 64, 65)] == [1, 7, 8, 10, 64, 64, 80]
        assert [round_to_multiple(value, 4) for value in (-6, -2, 0, 2, 5, 6)] == [-8, 0, 0, 0, 4, 8]

    def test_harm_and_help_are_strict_bounds(self) -> None:
        spec = JudgeSpec(z_milli=3_600, tolerance_ppm=20_000)
        assert not is_harm(Change(23_600, 1_000), spec)
        assert is_harm(Change(23_601, 1_000), spec)
        assert not is_help(Change(-3_600, 1_000), spec)
        assert is_help(Change(-3_601, 1_000), spec)


class TestWeighing:
    SPEC = make_small_spec()

    def weigh(self, updates: dict[str, Update]) -> Any:
        return weigh(updates, {root: norm2(update, self.SPEC) for root, update in updates.items()}, self.SPEC)

    def test_a_near_copy_is_the_later_one(self) -> None:
        original = make_update(self.SPEC, 1)
        near = {name: values.copy() for name, values in original.items()}
        near[self.SPEC.modules[0]][0, 0] ^= 1
        weighed = self.weigh({"bb": original, "cc": make_update(self.SPEC, 2), "aa": near})
        assert weighed.copies == {"aa": "bb"}
        assert weighed.cosines_ppm["aa"] == weighed.cosines_ppm["bb"] > 990_000 > weighed.cosines_ppm["cc"]

    def test_a_scaled_copy_is_a_copy_and_an_opposite_is_not(self) -> None:
        original = make_update(self.SPEC, 1, limit=60)
        double = {name: 2 * values for name, values in original.items()}
        opposite = {name: -values for name, values in original.items()}
        assert self.weigh({"aa": original, "bb": double, "cc": opposite}).copies == {"bb": "aa"}

    def test_strength_is_one_part_in_m_and_at_most_eight(self) -> None:
        updates = {f"{seed:02x}": make_update(self.SPEC, seed) for seed in range(9)}
        assert self.weigh(updates).parts == 8
        assert self.weigh(dict(list(updates.items())[:3])).parts == 3
        assert self.weigh({}).parts == 0

    def test_a_large_norm_shows_in_the_screen_and_in_the_coefficient(self) -> None:
        updates = {f"{seed:02x}": make_update(self.SPEC, seed, limit=12) for seed in range(3)}
        updates["ff"] = {name: 10 * values for name, values in updates["00"].items()}
        weighed = self.weigh(updates)
        assert weighed.norm_ratios_ppm["ff"] > 9_000_000
        assert weighed.coefficients_ppm["ff"] < 120_000


# ---- with the tiny model ----


@pytest.fixture(scope="module")
def spec(tiny_dir: Path) -> AdapterSpec:
    modules = ("q_proj", "v_proj")
    return make_spec(tiny_dir, "ab" * 32, rank=4, alpha=64, target_modules=modules, a_seed=b"task", update_step_log2=-7)


@pytest.fixture(scope="module")
def base(tiny_dir: Path, spec: AdapterSpec) -> ScoringBase:
    return ScoringBase.load(tiny_dir, spec, "fp32")


@pytest.fixture(scope="module")
def holdouts() -> dict[str, list[Block]]:
    """Two domains of twelve documents with two blocks each, of random but repetitive bytes."""
    random = np.random.default_rng(5)
    found = {}
    for domain in ("code", "law"):
        found[domain] = [
            Block(f"{domain} {document}", tuple(int(token) for token in random.integers(60, 90, 32)))
            for document in range(12)
            for _ in range(2)
        ]
    return found


@pytest.fixture
def meter(base: ScoringBase, holdouts: dict[str, list[Block]]) -> HoldoutMeter:
    return HoldoutMeter(base, JUDGE, holdouts, current=None, best=None)


def train(tiny_dir: Path, spec: AdapterSpec, holdouts: dict[str, list[Block]], loss_sign: int) -> Update:
    """B after some steps on the holdout itself: certainly better there, or certainly worse."""
    from ml.base import load_base
    from ml.spec import TrainSpec
    from ml.train import train_update

    blocks = [block for domain in holdouts.values() for block in domain]
    plan = TrainSpec(local_steps=30, batch_size=4, sequence_length=32, learning_rate=0.03, seed=1)
    return train_update(load_base(str(tiny_dir), "fp32"), spec, plan, blocks, None, loss_sign=loss_sign).update


@pytest.fixture(scope="module")
def helpful(tiny_dir: Path, spec: AdapterSpec, holdouts: dict[str, list[Block]]) -> Update:
    return train(tiny_dir, spec, holdouts, 1)


@pytest.fixture(scope="module")
def harmful(tiny_dir: Path, spec: AdapterSpec, holdouts: dict[str, list[Block]]) -> Update:
    return train(tiny_dir, spec, holdouts, -1)


def manifest(spec: AdapterSpec, trainer: str) -> Manifest:
    return make_update_manifest(spec, task=1, round=1, trainer=trainer, base_root="")


def submit(folder: Path, spec: AdapterSpec, updates: dict[str, Update]) -> list[Submission]:
    found = []
    for root, update in updates.items():
        write_update(folder / root, update, manifest(spec, root))
        found.append(Submission(root, folder / root, manifest(spec, root)))
    return found


def negate(update: Update) -> Update:
    return {name: -np.asarray(values) for name, values in update.items()}


def test_helpful_and_harmful_adapters_are_told_apart(
    tmp_path: Path, meter: HoldoutMeter, spec: AdapterSpec, helpful: Update, harmful: Update
) -> None:
    report = judge_round(meter, spec, submit(tmp_path, spec, {"bb": helpful, "aa": harmful}), max_bytes=10**6)
    assert [entry.root for entry in report.figures] == ["aa", "bb"]
    assert report.parts == 2
    assert report.tokens == sum(entry.tokens for entry in report.figures) == 2 * 48 * 32
    for entry, holds in zip(report.figures, (is_harm, is_help), strict=True):
        assert entry.status == "scored"
        assert entry.cosine_ppm < 0
        assert [figure.domain for figure in entry.domains] == ["code", "law"]
        assert all(holds(figure.current, JUDGE) and figure.current == figure.best for figure in entry.domains)


def test_each_submission_gets_its_status(
    tmp_path: Path, meter: HoldoutMeter, spec: AdapterSpec, helpful: Update
) -> None:
    submissions = submit(tmp_path, spec, {"cc": helpful, "aa": helpful, "bb": make_update(spec, 1)})
    (tmp_path / "bb").write_bytes(b"GGUF")
    report = judge_round(meter, spec, [*submissions, Submission("dd", None, {})], max_bytes=10**6)
    said = {entry.root: (entry.status, entry.reason) for entry in report.figures}
    assert said["cc"] == ("scored", "")
    assert said["aa"] == ("copy", "copy of cc: cosine 1000000 ppm")
    assert said["bb"] == ("malformed", "this is a GGUF model, not safetensors")
    assert said["dd"] == ("unavailable", "its bytes could not be had")
    assert report.parts == 2


def test_only_assigned_adapters_are_measured(
    tmp_path: Path, meter: HoldoutMeter, spec: AdapterSpec, helpful: Update
) -> None:
    submissions = submit(tmp_path, spec, {"aa": helpful, "bb": negate(helpful)})
    report = judge_round(meter, spec, submissions, max_bytes=10**6, assigned=frozenset({"bb"}))
    assert [entry.root for entry in report.figures] == ["bb"]
    assert report.parts == 2


def test_a_domain_without_enough_blocks_is_left_out(
    base: ScoringBase, holdouts: dict[str, list[Block]], helpful: Update
) -> None:
    meter = HoldoutMeter(base, JUDGE, {**holdouts, "law": holdouts["law"][:5]}, current=None, best=None)
    measured = meter.measure_update(helpful, 10**6, 1)
    assert [figure.domain for figure in measured.domains] == ["code"]
    assert measured.tokens == 24 * 32


def test_a_judge_scores_no_more_than_its_budget(base: ScoringBase, holdouts: dict[str, list[Block]]) -> None:
    meter = HoldoutMeter(
        base, replace(JUDGE, judge_tokens=100, min_blocks=3, min_documents=2), holdouts, current=None, best=None
    )
    assert [len(blocks) for blocks in meter.holdouts.values()] == [3, 3]
    with pytest.raises(ValueError, match="a block of 32 tokens; it takes 2 to 16"):
        HoldoutMeter(base, replace(JUDGE, block_tokens=16), holdouts, current=None, best=None)


def to_global(update: Update, spec: AdapterSpec) -> GlobalAdapter:
    return add_to_global(zero_global(spec), {name: values.astype(np.int32) * 256 for name, values in update.items()})


def test_harm_against_the_best_adapter_shows_where_the_current_one_hides_it(
    base: ScoringBase, spec: AdapterSpec, holdouts: dict[str, list[Block]], helpful: Update
) -> None:
    """Slow drip: the current global adapter is already worse than the best one, so the last step looks harmless."""
    best = to_global(helpful, spec)
    meter = HoldoutMeter(base, JUDGE, holdouts, current=None, best=best)
    still = {name: np.zeros_like(values) for name, values in helpful.items()}
    still[spec.modules[0]][0, 0] = 1
    for figure in meter.measure_update(still, 10**6, 1).domains:
        assert not is_harm(figure.current, JUDGE)
        assert is_harm(figure.best, JUDGE)


def test_the_candidate_is_compared_with_previous_best_and_base(
    tmp_path: Path, base: ScoringBase, spec: AdapterSpec, holdouts: dict[str, list[Block]], helpful: Update
) -> None:
    good, bad = to_global(helpful, spec), to_global(negate(helpful), spec)
    paths = [tmp_path / "good", tmp_path / "bad"]
    for path, adapter in zip(paths, (good, bad), strict=True):
        write_global(path, adapter, make_global_manifest(spec, task=1, round=1))
    meter = HoldoutMeter(base, JUDGE, holdouts, current=bad, best=good)
    for figure in meter.judge_candidate(paths[0]):
        assert figure.loss_ubpb < figure.previous_loss_ubpb
        assert figure.loss_ubpb % 100 == figure.previous_loss_ubpb % 100 == 0
        assert is_help(figure.previous, JUDGE)
        assert is_help(figure.base, JUDGE)
        assert figure.best == Change(0, 1)
    gains = meter.measure_gains(candidate=paths[0], without=paths[1])
    assert [domain for domain, _ in gains] == ["code", "law"]
    assert all(gain > 0 for _, gain in gains)


class FailingMeter:
    """Fails on one adapter, as a process that was killed."""

    def __init__(self, meter: HoldoutMeter, bad: str) -> None:
        self.meter, self.bad = meter, bad

    def measure(self, path: Path, coefficient_ppm: int, parts: int) -> Measurement:
        if path.name == self.bad:
            raise JudgingFailed("out-of-memory", "killed")
        return self.meter.measure(path, coefficient_ppm, parts)

    def judge_candidate(self, path: Path) -> Any:
        return self.meter.judge_candidate(path)

    def measure_gains(self, candidate: Path, without: Path) -> Any:
        return self.meter.measure_gains(candidate, without)

    def screen_update(self, path: Path, coefficient_ppm: int, peers: Any) -> Any:
        return self.meter.screen_update(path, coefficient_ppm, peers)

    def screen_candidate(self, path: Path) -> Any:
        return self.meter.screen_candidate(path)


def test_a_failure_is_an_abstention_and_the_next_adapter_is_judged(
    tmp_path: Path, meter: HoldoutMeter, spec: AdapterSpec, helpful: Update
) -> None:
    submissions = submit(tmp_path, spec, {"aa": negate(helpful), "bb": helpful})
    first, second = judge_round(FailingMeter(meter, "aa"), spec, submissions, max_bytes=10**6).figures
    assert (first.status, first.reason, first.domains) == ("abstain", "out-of-memory: killed", ())
    assert second.status == "scored"


# ---- the process ----


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path, spec: AdapterSpec, holdouts: Any) -> Setting:
    path = tmp_path_factory.mktemp("judge") / "holdouts.json"
    write_holdouts(path, holdouts)
    assert path.stat().st_mode & 0o077 == 0
    return Setting(tiny_dir, spec, JUDGE, "fp32", path)


@pytest.fixture(scope="module")
def process(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgingProcess]:
    with JudgingProcess(setting, log=tmp_path_factory.mktemp("log") / "judge.log") as found:
        found.warm_up()
        yield found


def test_the_process_measures_what_this_process_measures(
    tmp_path: Path, process: JudgingProcess, meter: HoldoutMeter, spec: AdapterSpec, helpful: Update
) -> None:
    (item,) = submit(tmp_path, spec, {"aa": helpful})
    assert item.path is not None
    there, here = process.measure(item.path, 10**6, 2), meter.measure(item.path, 10**6, 2)
    assert there.tokens == here.tokens
    assert there.domains == here.domains
    write_global(tmp_path / "g", to_global(helpful, spec), make_global_manifest(spec, task=1, round=1))
    assert process.judge_candidate(tmp_path / "g") == meter.judge_candidate(tmp_path / "g")
    assert process.measure_gains(tmp_path / "g", tmp_path / "g") == (("code", 0), ("law", 0))


def test_a_killed_process_is_a_crash_and_the_next_request_starts_another(
    tmp_path: Path, process: JudgingProcess, spec: AdapterSpec, helpful: Update
) -> None:
    (item,) = submit(tmp_path, spec, {"aa": helpful})
    assert item.path is not None
    process.warm_up()
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(JudgingFailed, match="crash"):
        process._exchange(process._child, {"do": "measure"}, time.monotonic() + 30)  # type: ignore[arg-type]
    assert process.measure(item.path, 10**6, 2).tokens == 48 * 32
    assert process.pid != first


def test_a_process_that_hangs_is_a_timeout(
    tmp_path: Path, process: JudgingProcess, spec: AdapterSpec, helpful: Update
) -> None:
    (item,) = submit(tmp_path, spec, {"aa": helpful})
    assert item.path is not None
    process.warm_up()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    process.timeout_s, before = 0.5, process.timeout_s
    try:
        with pytest.raises(JudgingFailed, match=r"timeout: no answer within 0.5 s"):
            process.measure(item.path, 10**6, 2)
    finally:
        process.timeout_s = before
    assert process.pid is None


def test_a_bad_adapter_costs_an_answer_not_the_loaded_base(
    tmp_path: Path, process: JudgingProcess, spec: AdapterSpec, helpful: Update
) -> None:
    """No file, no adapter, then a good one: one process answers all three."""
    process.warm_up()
    warm = process.pid
    (tmp_path / "junk").write_bytes(b"\xff" * 100)
    for name, sentence in (("absent", "error: FileNotFoundError"), ("junk", "error: malformed")):
        with pytest.raises(JudgingFailed, match=sentence):
            process.measure(tmp_path / name, 10**6, 2)
    (item,) = submit(tmp_path, spec, {"aa": helpful})
    assert item.path is not None
    assert process.measure(item.path, 10**6, 2).tokens == 48 * 32
    assert process.pid == warm


def test_an_error_of_the_model_ends_the_process(
    tmp_path: Path, process: JudgingProcess, setting: Setting, spec: AdapterSpec, helpful: Update
) -> None:
    """A token beyond the vocabulary, as on a GPU a failed assertion: nothing that process says later would count."""
    broken = tmp_path / "holdouts.json"
    broken.write_text(json.dumps({"code": [{"document": f"d{n}", "tokens": [100_000] * 32} for n in range(8)]}))
    (item,) = submit(tmp_path, spec, {"aa": helpful})
    assert item.path is not None
    process.use(replace(setting, holdouts=broken))
    try:
        with pytest.raises(JudgingFailed, match="error: IndexError"):
            process.measure(item.path, 10**6, 2)
    finally:
        process.use(setting)
    assert process.pid is None


def test_too_little_memory_is_out_of_memory(setting: Setting, tmp_path: Path) -> None:
    """The limit lets Python and torch start (their code is shared, not private) and stops the model's tensors."""
    big = tmp_path / "holdouts.json"
    big.write_text(json.dumps({"code": [{"document": "d", "tokens": [65] * 32}] * 8}))
    with JudgingProcess(replace(setting, holdouts=big), memory_bytes=90 * 2**20) as process:
        with pytest.raises(JudgingFailed) as failure:
            process.warm_up()
        assert failure.value.kind in ("out-of-memory", "crash")


def test_the_process_holds_no_secrets_of_its_parent(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOCKCHAIN_PASSPHRASE_FILE", "/secret")
    with JudgingProcess(setting) as process:
        process.warm_up()
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert b"OMP_WAIT_POLICY=PASSIVE" in environment
    assert not any(entry.startswith(b"FLOCKCHAIN_PASSPHRASE") for entry in environment)


def test_the_parent_of_a_judging_process_needs_no_torch() -> None:
    program = "import sys, ml.judge, ml.judge_process; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_checks_come_before_any_model(tmp_path: Path, spec: AdapterSpec) -> None:
    submissions = submit(tmp_path, spec, {"aa": make_update(spec, 1)})
    refused, norms2 = check_submissions(spec, submissions, max_bytes=10, norm_cap=0)
    assert refused["aa"].status == "malformed"
    assert not norms2
