"""`flockchain tx commit-final`, `reveal-final`, `judge-final`: the hidden final set of a task."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flockchain.chunks import compute_file_root
from flockchain.cli.sending import Once, Sender
from flockchain.cli.structs import read_struct
from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.txs import commit_final, judge_final, reveal_final
from flockchain.types.final import MAX_VESTED_PPM, FinalTerms

TaskOption = Annotated[int, typer.Option("--task", min=1, help="Number of the task.")]


def make_commit_final(
    sender: Sender,
    file: Annotated[Path, typer.Option("--file", help="The final set: keep it, and keep it secret.")],
    vested_ppm: Annotated[
        int, typer.Option("--vested-ppm", min=1, max=MAX_VESTED_PPM, help="Part of each trainer's pay that waits.")
    ],
    reveal_ms: Annotated[int, typer.Option("--reveal-ms", min=1, help="Your time to reveal, after the last round.")],
    judge_ms: Annotated[int, typer.Option("--judge-ms", min=1, help="The judges' time.")],
    judge_pay_uflk: Annotated[int, typer.Option("--judge-pay-uflk", min=0, help="For its judges; locked.")],
    holdout: Annotated[
        list[str] | None,
        typer.Option("--holdout", metavar="DOMAIN=FILE", help="Text of one domain, to write --file of; repeatable."),
    ] = None,
) -> Canonical:
    """Commit to a hidden final set for your next task: write the file, send its root. Then `create-task`.

    Without --holdout the file is there already.

    Example: flockchain tx commit-final --key alice --holdout code=code.jsonl --file final.jsonl --vested-ppm 300000
    --reveal-ms 86400000 --judge-ms 3600000 --judge-pay-uflk 100000000
    """
    if holdout:
        _write_file(holdout, file)
    elif not file.is_file():
        raise Refused("bad-file", f"{file} does not exist: give --holdout DOMAIN=FILE to write it")
    root, size_bytes = compute_file_root(file)
    return commit_final.Body(FinalTerms(root, size_bytes, vested_ppm, reveal_ms, judge_ms, judge_pay_uflk))


def make_reveal_final(sender: Sender, task: TaskOption) -> Canonical:
    """Reveal a task's final set after its last round, then upload the file: `flockchain adapter upload`.

    Who does not loses the task's deposit, and the trainers' vested pay is released.

    Example: flockchain tx reveal-final --key alice --task 1
    """
    return reveal_final.Body(task)


def make_judge_final(
    sender: Sender,
    file: Annotated[Path, typer.Option("--file", help="What you measured, as JSON or TOML.")],
) -> Once:
    """As a drawn judge: what the task's last global adapter does on the revealed final set.

    Example: flockchain tx judge-final --key bob --file entry.json
    """
    body = read_struct(file, judge_final.Body)
    return Once(f"task{body.task}-final", body)


def _write_file(options: Sequence[str], file: Path) -> None:
    """The final set behind a fresh salt; one that is there already is left alone, for its root may be on the chain."""
    if file.exists():
        raise Refused("file-exists", f"{file} exists: leave --holdout out to use it, or name another file")
    from flockchain.workers.learning import read_data
    from ml.final_set import write_final_set

    paths: dict[str, list[Path]] = {}
    for option in options:
        domain, _, name = option.partition("=")
        if not domain or not name:
            raise typer.BadParameter(f"--holdout {option}: give DOMAIN=FILE")
        paths.setdefault(domain, []).append(Path(name))
    documents = {domain: read_data(found) for domain, found in paths.items()}
    file.touch(mode=0o600)
    write_final_set(file, documents, secrets.token_bytes(32))
