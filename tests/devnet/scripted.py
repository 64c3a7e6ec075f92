"""Participants without a model: the real workers, with updates drawn from a seed and a meter that follows a rule.

An honest update has only positive values and every judge says that it helps; a poisoned one has only negative values
and every judge says that it harms. All else is real: transactions, ingress, blobs, seals, aggregation, attestations.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from flockchain.client import Client, Json, Unreachable
from flockchain.crypto import sha256
from flockchain.params import UFLK_PER_FLK
from flockchain.txs import create_task
from flockchain.types.task import Holdout, JudgeSpec, ModelSpec, PenaltySpec, PhaseSpec, RewardSpec, TaskSpec
from flockchain.workers.bonding import ensure_bond
from flockchain.workers.participant import Participant
from flockchain.workers.trainer import MakeUpdate, Trainer
from flockchain.workers.view import Model
from flockchain.workers.voter import Voter
from ml.adapter import GlobalAdapter, Update, read_global, read_update
from ml.figures import Change
from ml.judge import CandidateFigure, DomainFigure, Measurement, Peer
from ml.screen import Screened
from ml.spec import TrainSpec
from tests.devnet.network import CREATOR, JUDGES, TRAINERS, Network, make_key
from tests.support.processes import wait_until

DOMAINS = ("code", "law", "medicine")
BOND_UFLK = 1_000 * UFLK_PER_FLK
POOL_UFLK = 900 * UFLK_PER_FLK
PHASE_MS = 60_000
ROUND_TIMEOUT_S = 60.0
CONFIG = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
"""All that a spec needs of a base: no weights exist."""
HELPS_PPM, HARMS_PPM = -50_000, 90_000


def make_task_spec(*, trainers: int = 4, rounds: int = 1, norm_cap: int = 0, **phases_ms: int) -> TaskSpec:
    """Phases of a minute that end early when all act; `phases_ms` shortens those in which somebody is silent."""
    phases = PhaseSpec(
        enroll_ms=PHASE_MS,
        train_ms=PHASE_MS,
        publish_ms=PHASE_MS,
        commit_ms=PHASE_MS,
        reveal_ms=PHASE_MS,
        aggregate_ms=PHASE_MS,
        enroll_limit_ms=2 * PHASE_MS,
    )
    return TaskSpec(
        name="scripted",
        model=ModelSpec(
            name="none",
            base_hash=sha256(json.dumps(CONFIG).encode()),
            tokenizer_hash=sha256(b"none"),
            precision="fp32",
            rank=4,
            alpha=8,
            target_modules=("q_proj", "v_proj"),
            local_steps=1,
            batch_size=1,
            sequence_length=8,
            learning_rate_ppm=1_000,
            update_step_log2=-8,
            norm_cap=norm_cap,
        ),
        domains=DOMAINS,
        rounds=rounds,
        phases=replace(phases, **phases_ms),
        trainers_min=2,
        trainers_max=trainers,
        judge=JudgeSpec(seats=len(JUDGES), judge_tokens=100, slowest_tokens_per_s=1_000),
        penalties=PenaltySpec(),
        rewards=RewardSpec(),
        min_bond_uflk=BOND_UFLK // 2,
        max_adapter_bytes=1 << 16,
    )


def write_base(folder: Path) -> Path:
    """A folder that has a base's config and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def make_update(name: str, sign: int = 1) -> MakeUpdate:
    """Seeded by name and training seed; positive values help, negative ones harm."""

    def make(model: Model, train_spec: TrainSpec, start: GlobalAdapter | None) -> tuple[Update, int]:
        seed = hashlib.sha256(f"{name}/{train_spec.seed}".encode()).digest()
        random = np.random.default_rng(list(seed))
        update: Update = {
            module: (sign * random.integers(1, 65, (out, model.spec.rank))).astype(np.int8)
            for module, out, _ in model.spec.shapes
        }
        return update, 1

    return make


class RuleMeter:
    """Measures by the sign of the values; `noise_ppm` is what makes one judge's figures differ from another's."""

    def __init__(self, model: Model, noise_ppm: int) -> None:
        self.model = model
        self.noise_ppm = noise_ppm

    def measure(self, path: Path, coefficient_ppm: int, parts: int) -> Measurement:
        change = self._change(read_update(path, self.model.spec)[0])
        return Measurement(tuple(DomainFigure(domain, change, change) for domain in self.model.domains), 100, 0.0)

    def judge_candidate(self, path: Path) -> tuple[CandidateFigure, ...]:
        change = self._change(read_global(path, self.model.spec)[0])
        return tuple(
            CandidateFigure(domain, 950_000, 1_000_000, change, change, change) for domain in self.model.domains
        )

    def measure_gains(self, candidate: Path, without: Path) -> tuple[tuple[str, int], ...]:
        return tuple((domain, 1_000) for domain in self.model.domains)

    def screen_update(self, path: Path, coefficient_ppm: int, peers: Sequence[Peer]) -> Screened:
        return Screened()

    def screen_candidate(self, path: Path) -> Screened:
        return Screened()

    def _change(self, values: Mapping[str, Any]) -> Change:
        helps = sum(int(array.sum(dtype=np.int64)) for array in values.values()) > 0
        return Change((HELPS_PPM if helps else HARMS_PPM) + self.noise_ppm, 1_000)


def make_trainer(client: Client, name: str, task: int, folder: Path, base_dir: Path, make: MakeUpdate) -> Trainer:
    return Trainer(client, make_key(name), task, folder, base_dir=base_dir, make_update=make, report=lambda *_: None)


def make_voter(client: Client, name: str, task: int, folder: Path, base_dir: Path, noise_ppm: int) -> Voter:
    return Voter(
        client,
        make_key(name),
        task,
        folder,
        base_dir=base_dir,
        choose_blocks=lambda domain, beacon, count: (),
        holdout_domains=DOMAINS,
        make_meter=lambda task, round_, model: RuleMeter(model, noise_ppm),
        report=lambda *_: None,
    )


def bond(participant: Participant) -> None:
    if isinstance(participant, Voter):
        commitments = [Holdout(domain, sha256(domain.encode() + participant.address), 32) for domain in DOMAINS]
        ensure_bond(participant, "voter", BOND_UFLK, commitments)
    else:
        ensure_bond(participant, "trainer", BOND_UFLK)


def open_task(network: Network, spec: TaskSpec) -> int:
    """Create the task; its id."""
    with network.client() as client:
        client.send(make_key(CREATOR), create_task.KIND, create_task.Body(spec, POOL_UFLK))
        newest = max(client.pages("/tasks"), key=lambda task: int(task["id"]))
        return int(newest["id"])


@dataclass
class Cast:
    """Everyone who takes part in one task, each with a client of its own, stepped side by side by the test."""

    network: Network
    folder: Path
    spec: TaskSpec
    updates: Mapping[str, MakeUpdate] = field(default_factory=dict)
    """By name, in place of an honest one."""
    trainer_names: Sequence[str] = TRAINERS[:4]
    judge_names: Sequence[str] = JUDGES
    members: dict[str, Participant] = field(default_factory=dict)
    task_id: int = 0

    def __enter__(self) -> "Cast":
        self.watcher = self.network.client()
        self.pool = ThreadPoolExecutor(len(self.trainer_names) + len(self.judge_names))
        self.task_id = open_task(self.network, self.spec)
        base_dir = write_base(self.folder / "base")
        for i, name in enumerate((*self.trainer_names, *self.judge_names)):
            client, own = self.network.client(i % 4), self.folder / f"task{self.task_id}" / name
            own.mkdir(parents=True)
            if name in self.judge_names:
                self.members[name] = make_voter(client, name, self.task_id, own, base_dir, 37 * i)
            else:
                make = self.updates.get(name) or make_update(name)
                self.members[name] = make_trainer(client, name, self.task_id, own, base_dir, make)
        list(self.pool.map(bond, self.members.values()))
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()
        self.watcher.close()
        for member in self.members.values():
            member.outbox.close()
            member.client.close()

    def task(self) -> Json:
        return self.watcher.task(self.task_id)

    def round(self, number: int | None = None) -> Json:
        """The current round, or that number."""
        return self.watcher.round(self.task_id, number or int(self.task()["round"]))

    def bond_uflk(self, name: str) -> int:
        items = self.watcher.get("/stakes", owner=self.members[name].me, target=f"task:{self.task_id}")["items"]
        return int(items[0]["amount_uflk"])

    def step(self, *names: str) -> None:
        """One step of each named member at the same time, in the phase that the round is in now."""
        task = self.task()
        self._step(names, _place(task, self.round(int(task["round"]))))

    def _step(self, names: Sequence[str], place: "Place") -> None:
        """As `Participant.run`, but nobody goes ahead of the phase that the test saw."""

        def step_one(name: str) -> None:
            member = self.members[name]
            try:
                task = member.client.task(self.task_id)
                round_ = member.client.round(self.task_id, task["round"])
                if _place(task, round_) == place:
                    member.step(task, round_)
            except Unreachable:
                return

        list(self.pool.map(step_one, names))

    def play(self, until: Callable[[Json, Json], bool], *, silent: Sequence[str] = ()) -> None:
        """Step everyone but the silent until (task, round) is as wanted."""
        active = [name for name in self.members if name not in silent]

        def is_there() -> bool:
            task = self.task()
            round_ = self.round(int(task["round"]))
            if until(task, round_):
                return True
            self._step(active, _place(task, round_))
            return False

        wait_until(is_there, ROUND_TIMEOUT_S)

    def is_over(self) -> bool:
        return bool(self.task()["status"] != "open")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everyone runs by itself, as worker processes do, until the block ends."""
        ends = [self.pool.submit(member.run) for member in self.members.values()]
        try:
            yield
        finally:
            for member in self.members.values():
                member.stop()
            for end in ends:
                end.result(timeout=ROUND_TIMEOUT_S)

    def play_to(self, phase: str, *, silent: Sequence[str] = ()) -> None:
        """Until the round is in this phase, with no draw pending."""
        self.play(lambda _, round_: round_["phase"] == phase and not round_["draw_height"], silent=silent)

    def finish_round(self, *, silent: Sequence[str] = ()) -> Json:
        """Until the current round is settled; the round."""
        number = int(self.task()["round"])
        self.play(lambda task, _: task["round"] > number or task["status"] != "open", silent=silent)
        return self.round(number)


Place = tuple[int, str, bool]


def _place(task: Json, round_: Json) -> Place:
    """(round, phase, whether a draw is pending)."""
    return int(task["round"]), str(round_["phase"]), bool(round_["draw_height"])
