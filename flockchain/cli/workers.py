"""`flockchain trainer run` and `flockchain voter run`: take part in a task until it ends."""

import json as json_module
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flockchain.cli.common import (
    HomeOption,
    JsonFlag,
    KeyOption,
    NodeOption,
    PassphraseOption,
    connect,
    find_keystore,
    open_key,
)
from flockchain.client import Client, Json
from flockchain.errors import Refused

if TYPE_CHECKING:
    from flockchain.workers.participant import Report

trainer = typer.Typer(help="Train adapters on private data.", no_args_is_help=True)
voter = typer.Typer(help="Judge adapters on a private holdout.", no_args_is_help=True)

TaskOption = Annotated[int, typer.Option("--task", help="Number of the task.", min=1)]
BaseOption = Annotated[str, typer.Option("--base", help="The base: a folder, owner/name@revision, 'demo' or 'tiny'.")]
BondOption = Annotated[
    int | None, typer.Option("--bond-uflk", help="Bond if not yet bonded. Default: the minimum.", min=1)
]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads for tensor work.", min=1)]
WaitOption = Annotated[
    int, typer.Option("--wait-s", help="How long to wait at the start while no node answers.", min=0, max=86_400)
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto (measured), bf16, fp32 or nf4 (4 bit: QLoRA).")]
DpEpsilonOption = Annotated[
    float | None,
    typer.Option("--dp-epsilon", help="Protect each sample (DP-SGD): most epsilon of all rounds. Default: none."),
]
DpDeltaOption = Annotated[float, typer.Option("--dp-delta", help="Chance that epsilon does not hold.")]
DpClipOption = Annotated[float, typer.Option("--dp-clip", help="Most length of one sample's gradient.")]
DpUnitOption = Annotated[str, typer.Option("--dp-unit", help="What a sample is: document or block.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
DataOption = Annotated[list[Path], typer.Option("--data", help="Text or JSONL file, or a folder of them; repeatable.")]
ProcessesOption = Annotated[
    int, typer.Option("--processes", help="One for each GPU; the base is divided over them.", min=1, max=64)
]
RowsOption = Annotated[
    int, typer.Option("--rows-at-once", help="Rows of a batch in memory together: same result. 0: all.", min=0)
]
CheckpointingOption = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        help="Little memory, a third slower: same result. Default: on a GPU in 4 bit.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the order of your data.")]
AttackOption = Annotated[str | None, typer.Option("--attack", help="Poison on purpose, to see the defence at work.")]


@trainer.command("run")
def run_trainer(
    task: TaskOption,
    key: KeyOption,
    data: DataOption,
    base: BaseOption,
    bond_uflk: BondOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "cpu",
    processes: ProcessesOption = 1,
    rows_at_once: RowsOption = 0,
    gradient_checkpointing: CheckpointingOption = None,
    threads: ThreadsOption = 1,
    seed: SeedOption = 0,
    dp_epsilon: DpEpsilonOption = None,
    dp_delta: DpDeltaOption = 1e-5,
    dp_clip: DpClipOption = 0.1,
    dp_unit: DpUnitOption = "document",
    attack: AttackOption = None,
    node: NodeOption = None,
    wait_s: WaitOption = 60,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    json: JsonFlag = False,
) -> None:
    """Bond, then train in every round in which you are drawn. Your text stays on this machine; what an update says of
    it, --dp-epsilon bounds.

    Example: flockchain trainer run --task 1 --key alice --data notes.jsonl --base demo
    """
    signing_key = open_key(home, key, passphrase_file)
    set_threads(threads, base)
    from flockchain.workers.bonding import ensure_bond
    from flockchain.workers.learning import Machine, choose_training, find_base, read_data, split_for_ever
    from flockchain.workers.patience import wait_for_node
    from flockchain.workers.privacy import Promise, open_budget
    from flockchain.workers.trainer import Trainer

    report = _Reporter(json)
    with connect(node, home) as client:
        found = find_task(client, task, wait_s, report)
        folder = find_base(base, found)
        own = _worker_folder(home, key)
        documents, held_out = split_for_ever(read_data(data), own / "split.json", key)
        machine = Machine(dtype, device, processes, threads, own, rows_at_once, gradient_checkpointing)
        promise = None if dp_epsilon is None else Promise(dp_epsilon, dp_delta, dp_clip, dp_unit)
        budget = open_budget(own, promise, found["spec"]["rounds"], report)
        make = choose_training(attack, documents, machine, report, budget)
        worker = Trainer(client, signing_key, task, own, base_dir=folder, make_update=make, seed=seed, report=report)
        _stop_on_signals(worker)
        report("ready", {"documents": len(documents), "held_out": len(held_out), "address": worker.me})
        amount_uflk = bond_uflk or found["spec"]["min_bond_uflk"]
        wait_for_node(lambda: ensure_bond(worker, "trainer", amount_uflk), wait_s, report, lambda: worker.is_stopping)
        worker.run()


@voter.command("run")
def run_voter(
    task: TaskOption,
    key: KeyOption,
    holdout: Annotated[
        list[str], typer.Option("--holdout", help="DOMAIN=FILE: private text of one domain; repeatable.")
    ],
    base: BaseOption,
    bond_uflk: BondOption = None,
    threads: ThreadsOption = 1,
    device: DeviceOption = "cpu",
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Default: the task's. nf4 where the base would not fit otherwise.")
    ] = None,
    node: NodeOption = None,
    wait_s: WaitOption = 60,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    json: JsonFlag = False,
) -> None:
    """Bond with a commitment to your holdout, then judge in every round in which you are drawn.

    Example: flockchain voter run --task 1 --key bob --holdout code=code.jsonl --holdout law=law.jsonl --base demo
    """
    signing_key = open_key(home, key, passphrase_file)
    set_threads(threads, base)
    from flockchain.workers.bonding import ensure_bond, make_holdout
    from flockchain.workers.learning import find_base, read_holdout
    from flockchain.workers.patience import wait_for_node
    from flockchain.workers.voter import Voter

    report = _Reporter(json)
    with connect(node, home) as client:
        found = find_task(client, task, wait_s, report)
        folder = find_base(base, found)
        files = parse_holdouts(holdout, found["spec"]["domains"])
        blocks = read_holdout(files, folder, found["spec"]["judge"]["block_tokens"])
        worker = Voter(
            client,
            signing_key,
            task,
            _worker_folder(home, key),
            base_dir=folder,
            choose_blocks=blocks.draw,
            holdout_domains=blocks.domains,
            threads=threads,
            device=device,
            dtype=dtype,
            report=report,
        )
        _stop_on_signals(worker)
        report("ready", {**{f"blocks_{d}": len(blocks.blocks(d)) for d in blocks.domains}, "address": worker.me})
        commitments = [make_holdout(domain, blocks.leaves(domain)) for domain in blocks.domains]
        amount_uflk = bond_uflk or found["spec"]["min_bond_uflk"]
        wait_for_node(
            lambda: ensure_bond(worker, "voter", amount_uflk, commitments), wait_s, report, lambda: worker.is_stopping
        )
        worker.run()


def find_task(client: Client, task: int, wait_s: float, report: "Report") -> Json:
    """The task, once a node answers: one that starts beside this command, or comes back, is waited for."""
    from flockchain.workers.patience import wait_for_node

    found = wait_for_node(lambda: client.task(task), wait_s, report, lambda: False)
    assert found is not None, "nothing stopped it"
    return found


class _Reporter:
    """One line per event on stdout: JSON for programs, words for people."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def __call__(self, what: str, figures: dict[str, Any]) -> None:
        if self.as_json:
            print(json_module.dumps({"event": what, **figures}), flush=True)
        else:
            print(what + "".join(f"  {name} {value}" for name, value in figures.items()), flush=True)


def parse_holdouts(options: Sequence[str], domains: Sequence[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for option in options:
        domain, equals, name = option.partition("=")
        if not equals or not name:
            raise Refused(
                "bad-holdout", f"--holdout {option!r}: write DOMAIN=FILE, for example {domains[0]}=file.jsonl"
            )
        if domain not in domains:
            raise Refused("bad-holdout", f"--holdout {option!r}: the task's domains are {', '.join(domains)}")
        found.setdefault(domain, []).append(Path(name))
    return found


def _worker_folder(home: Path | None, key: str) -> Path:
    """Beside the keystore: what a participant signed and made must survive with its key."""
    folder = find_keystore(home).folder.parent / "workers" / key
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def set_threads(threads: int, base: str = "") -> None:
    """Before torch is imported: idle threads sleep instead of spinning, and take the cores they were given.

    The model hub is asked for a base that is named by its hub name, and for nothing else.
    """
    import os

    from ml.base import HUB_NAME

    os.environ.update(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE", TOKENIZERS_PARALLELISM="false")
    os.environ.setdefault("HF_HUB_OFFLINE", "0" if HUB_NAME.fullmatch(base) else "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of the libraries; ours are one line per event


def _stop_on_signals(worker: Any) -> None:
    """SIGTERM and SIGINT end the worker after its current step; what it signed stays on disk."""

    def stop(*_: object) -> None:
        worker.stop()
        sys.stderr.write("stopping after the current step\n")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
