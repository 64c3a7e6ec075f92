"""From a person's files to what the workers need: the checked base, blocks of private data, a way to make updates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flockchain.client import Json
from flockchain.errors import Refused
from flockchain.workers.participant import Report
from flockchain.workers.privacy import PrivacyBudget
from flockchain.workers.trainer import MakeUpdate
from flockchain.workers.view import Model
from ml.adapter import GlobalAdapter, Update
from ml.base import BaseError, base_hash, prepare_base
from ml.data import HOLDOUT, TRAIN, Block, DataError, Document, Holdout, make_blocks, read_documents, split_documents
from ml.spec import TrainSpec
from ml.tokens import BaseTokenizer

OWN_HOLDOUT_PPM = 100_000
"""Part of a trainer's own clusters that it never trains on, to see for itself what an update does."""


def find_base(ref: str, task: Json) -> Path:
    """The folder of the base, refused unless it is the very one that the task names."""
    try:
        folder: Path = prepare_base(ref)
        found = base_hash(folder)
    except BaseError as error:
        raise Refused("bad-base", str(error)) from None
    wanted = task["spec"]["model"]["base_hash"]
    if found != wanted:
        raise Refused(
            "wrong-base", f"{folder} has hash {found}, task {task['id']} is about base {wanted}: get that one"
        )
    return folder


def read_data(paths: Sequence[Path]) -> list[Document]:
    """Documents of all files, exact duplicates dropped; refused with file and line where something is wrong."""
    documents: dict[str, Document] = {}
    try:
        for path in paths:
            for document in read_documents(path):
                documents.setdefault(document.id, document)
    except DataError as error:
        raise Refused("bad-data", str(error)) from None
    return list(documents.values())


def read_holdout(paths: Mapping[str, Sequence[Path]], folder: Path, block_tokens: int) -> Holdout:
    """A judge's blocks by domain."""
    documents = {domain: read_data(found) for domain, found in paths.items()}
    return Holdout.from_documents(documents, BaseTokenizer(folder), block_tokens)


def split_for_ever(documents: Sequence[Document], record: Path, seed: str) -> tuple[list[Document], list[Document]]:
    """(train, holdout) of one's own documents by a split that is written down at the first use and only extended.

    Whole near-duplicate clusters go to one part. Restarts, later rounds and added documents never move a document from
    one part to the other; one that resembles documents of both parts is used in neither.
    """
    previous: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    parts = split_documents(documents, seed, OWN_HOLDOUT_PPM, previous)
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps({**previous, **parts}, indent=0, sort_keys=True))
    partial.replace(record)
    train = [document for document in documents if parts.get(document.id) == TRAIN]
    return train, [document for document in documents if parts.get(document.id) == HOLDOUT]


@dataclass(frozen=True)
class Machine:
    """What a trainer works with."""

    dtype: str = "auto"
    """auto: bf16 or fp32, whichever is faster on this CPU; on a GPU bf16, or nf4 in a task that is judged in nf4."""
    device: str = "cpu"
    processes: int = 1
    """More than one: a process for each GPU, the base divided over them."""
    threads: int = 1
    folder: Path | None = None
    """Where a killed training left its checkpoint; None: none is kept."""
    rows_at_once: int = 0
    """Rows of a batch in memory together; 0: all."""
    gradient_checkpointing: bool | None = None
    """None: as is usual for the base."""

    def choose_setup(self) -> dict[str, Any]:
        """What differs from the setup that ml.train_setup chooses."""
        chosen: dict[str, Any] = {"rows_at_once": self.rows_at_once}
        if self.gradient_checkpointing is not None:
            chosen["gradient_checkpointing"] = self.gradient_checkpointing
        return chosen


class FileTrainer:
    """Makes honest updates (`MakeUpdate`) from documents; the base is loaded at the first one and stays."""

    def __init__(
        self, documents: Sequence[Document], machine: Machine, report: Report, budget: PrivacyBudget | None = None
    ) -> None:
        self.documents = documents
        self.machine = machine
        self.report = report
        self.budget = budget
        self._base: Any = None

    def __call__(self, model: Model, train_spec: TrainSpec, start: GlobalAdapter | None) -> tuple[Update, int]:
        """Refused when training fails, out of memory for instance: there is no half update."""
        from ml.memory import return_freed_memory
        from ml.trainer import TrainingFailed

        try:
            result = self._train(model, train_spec, start)
        except TrainingFailed as error:
            raise Refused("training-failed", str(error)) from None
        return_freed_memory()
        if result.resumed_at:
            self.report("went on from a checkpoint", {"step": result.resumed_at})
        self.report(
            "own loss",
            {"before_nats": round(result.loss_before, 4), "after_nats": round(result.loss_after, 4)},
        )
        if self.budget is not None:
            self.budget.tell()
        return result.update, train_spec.local_steps * train_spec.batch_size

    def _train(self, model: Model, train_spec: TrainSpec, start: GlobalAdapter | None) -> Any:
        from ml.train import train_update
        from ml.train_process import Job, train_in_processes
        from ml.train_setup import choose_setup

        machine, blocks = self.machine, self.blocks(model, train_spec)
        if machine.processes > 1:
            assert machine.folder is not None
            job = Job(
                model.base_dir,
                self._dtype(model),
                model.spec,
                train_spec,
                blocks,
                device=machine.device,
                processes=machine.processes,
                threads=machine.threads,
                setup=machine.choose_setup(),
            )
            return train_in_processes(job, machine.folder / "training", start, progress=self._progress)
        checkpoint = machine.folder / "training.safetensors" if machine.folder else None
        base = self.base(model)
        return train_update(
            base,
            model.spec,
            train_spec,
            blocks,
            start,
            progress=self._progress,
            setup=choose_setup(base, **machine.choose_setup()),
            checkpoint=checkpoint,
            privacy=self.budget.plan(blocks, train_spec) if self.budget else None,
        )

    def blocks(self, model: Model, train_spec: TrainSpec) -> list[Block]:
        """The trainer's own text, cut for its steps."""
        blocks: list[Block] = make_blocks(self.documents, BaseTokenizer(model.base_dir), train_spec.sequence_length)
        return blocks

    def base(self, model: Model) -> Any:
        """The base, loaded once."""
        if self._base is None:
            from ml.base import load_base

            self._base = load_base(str(model.base_dir), dtype=self._dtype(model), device=self.machine.device)
        return self._base

    def _dtype(self, model: Model) -> str:
        from ml.precision import choose_cpu_dtype

        if self.machine.dtype != "auto":
            return self.machine.dtype
        if self.machine.device == "cpu":
            fastest: str = choose_cpu_dtype()
            return fastest
        # A base that judges load in 4 bit may not fit otherwise, and is what the update is for.
        return "nf4" if model.precision == "nf4" else "bf16"

    def _progress(self, step: int, steps: int, loss: float) -> None:
        self.report("step", {"step": step, "of": steps, "loss_nats": round(loss, 4)})


def make_honest(
    documents: Sequence[Document], machine: Machine, report: Report, budget: PrivacyBudget | None = None
) -> MakeUpdate:
    """The trainer that a team runs on its own data."""
    if budget is not None and machine.processes > 1:
        raise Refused("bad-privacy", f"--dp-epsilon with --processes {machine.processes}: samples are clipped in one")
    return FileTrainer(documents, machine, report, budget)


class Poisoner(FileTrainer):
    """Makes the updates of one of `ml/attacks/`, as large as the task's norm cap lets them be."""

    def __init__(self, attack: str, documents: Sequence[Document], machine: Machine, report: Report) -> None:
        super().__init__(documents, machine, report)
        self.attack = attack

    def __call__(self, model: Model, train_spec: TrainSpec, start: GlobalAdapter | None) -> tuple[Update, int]:
        from ml.attacks import AttackContext, craft_attack, make_goal
        from ml.memory import return_freed_memory

        context = AttackContext(
            base=self.base(model),
            spec=model.spec,
            train_spec=train_spec,
            blocks={"own": self.blocks(model, train_spec)},
            global_adapter=start,
            norm_cap=model.norm_cap,
            progress=self._progress,
            goal=make_goal(self.attack, BaseTokenizer(model.base_dir)),
        )
        update = craft_attack(self.attack, context)
        return_freed_memory()
        return update, train_spec.local_steps * train_spec.batch_size


def make_attacker(attack: str, documents: Sequence[Document], machine: Machine, report: Report) -> MakeUpdate:
    """A trainer that poisons on purpose."""
    from ml.attacks import list_lone_attacks

    if attack not in list_lone_attacks():
        raise Refused("unknown-attack", f"no attack {attack!r}; there are: {', '.join(list_lone_attacks())}")
    return Poisoner(attack, documents, machine, report)


def choose_training(
    attack: str | None, documents: Sequence[Document], machine: Machine, report: Report, budget: PrivacyBudget | None
) -> MakeUpdate:
    """Honest, or the named attack. Refused for both a promise and an attack."""
    if attack is None:
        return make_honest(documents, machine, report, budget)
    if budget is not None:
        raise Refused("bad-privacy", "--attack with --dp-epsilon: attacks keep to no promise, leave one out")
    return make_attacker(attack, documents, machine, report)
