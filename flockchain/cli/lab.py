"""`flockchain lab`: experiments on the network's own learning, judging and settlement. Imports ml inside commands."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flockchain.cli.common import JsonFlag, console, print_json, show_rows
from flockchain.errors import Refused

app = typer.Typer(help="Experiments: attacks, defences and claims, measured.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A shipped experiment, or a .toml file.")]
QuickFlag = Annotated[bool, typer.Option("--quick", help="The small form that the file describes.")]
SeedsOption = Annotated[str, typer.Option("--seeds", metavar="N,N,...", help="Instead of the file's.")]


@app.command()
def run(
    name: NameArgument,
    quick: QuickFlag = False,
    seeds: SeedsOption = "",
    model: Annotated[str, typer.Option(help="The form of the file for this model, such as tiny.")] = "",
    jobs: Annotated[
        int | None, typer.Option(min=0, help="Processes; 0: this one. Default: cores, as far as memory goes.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Go on with kept cells, or measure again.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results and report. Default: bench/results/lab, docs/results.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Run an experiment; write its results and its report. An interrupted run goes on where it stopped.

    Example: flockchain lab run backdoor --quick
    """
    from ml.lab.document import REPORTS, RESULTS, find_commit, make_document, save
    from ml.lab.engine import choose_jobs, find_other_commits, get_cells_folder, run_cells

    settings = _read(name, quick, seeds, model)
    folder = get_cells_folder()
    count = 0 if jobs == 0 else choose_jobs(jobs, int(settings.memory_gib * 2**30))
    module = settings.get_module()
    planned = _refuse_failures(module.plan, settings)
    if hasattr(module, "describe_cost") and not json:
        console().print(module.describe_cost(settings), soft_wrap=True)
    commit = find_commit()
    others = find_other_commits(planned, folder, commit) if resume else {}
    if others and not json:
        console().print(_describe_kept(others), soft_wrap=True)
    with _Board(settings.name) as board:
        _refuse_failures(run_cells, planned, folder, jobs=count, commit=commit, fresh=not resume, watch=board.show)
    document = make_document(settings, folder, jobs=max(1, count))
    files = save(document, *((out, out) if out else (RESULTS, REPORTS)))
    if json:
        print_json(document)
        return
    _print_figures(document)
    for path in files:
        console().print(f"wrote {path}", soft_wrap=True)


@app.command(name="list")
def list_(json: JsonFlag = False) -> None:
    """Experiments that are shipped, with the date of their newest results.

    Example: flockchain lab list
    """
    from ml.lab import LabError
    from ml.lab.document import read_document
    from ml.lab.settings import list_experiments

    rows = []
    for name in list_experiments():
        settings = _read(name, False, "", "")
        try:
            date = read_document(name)["date"]
        except LabError:
            date = ""
        rows.append({"name": name, "title": settings.title, "seeds": len(settings.seeds), "measured": date})
    show_rows(rows, ["name", "title", "seeds", "measured"], json, folding="title")


@app.command()
def report(name: NameArgument, json: JsonFlag = False) -> None:
    """Write an experiment's report again from its kept results; nothing is measured.

    Example: flockchain lab report backdoor
    """
    from ml.lab.document import read_document, write_report

    document = _refuse_failures(read_document, name)
    files = write_report(document)
    if json:
        print_json(document["figures"])
        return
    _print_figures(document)
    for path in files:
        console().print(f"wrote {path}", soft_wrap=True)


def _read(name: str, quick: bool, seeds: str, model: str) -> Any:
    from ml.lab.settings import read_settings

    try:
        chosen = [int(part) for part in seeds.split(",") if part.strip()]
    except ValueError:
        raise Refused("bad-seeds", f"{seeds!r} is no list of whole numbers: write --seeds 0,1,2") from None
    return _refuse_failures(read_settings, name, quick=quick, seeds=chosen, form=model)


def _refuse_failures(call: Any, *args: Any, **options: Any) -> Any:
    """The call's result; the lab's errors become the command line's."""
    from ml.lab import LabError

    try:
        return call(*args, **options)
    except LabError as error:
        raise Refused("lab", str(error)) from None


def _describe_kept(others: dict[str, int]) -> str:
    """Whose results the run goes on with."""
    listed = ", ".join(f"{count} from {commit or 'no checkout'}" for commit, count in sorted(others.items()))
    return f"Kept cells of other commits: {listed}. If what they measure has changed since, run with --fresh."


def _print_figures(document: dict[str, Any]) -> None:
    rows = [
        {"figure": name, "mean": _round(figure["mean"]), "upper 95 %": _round(figure.get("upper")), "n": figure["n"]}
        for name, figure in sorted(document["figures"].items())
    ]
    show_rows(rows, ["figure", "mean", "upper 95 %", "n"], False, folding="figure")


def _round(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


class _Board:
    """Progress on stderr: a bar with an estimate in a terminal, one line per cell elsewhere."""

    def __init__(self, name: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(name, total=None, left="")

    def __enter__(self) -> "_Board":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, step: Any) -> None:
        left = f"about {step.left_s / 60:.0f} min left" if step.left_s >= 90 else f"about {step.left_s:.0f} s left"
        self._bar.update(self._task, completed=step.done, total=step.of, left=left)
        if not self._console.is_terminal:
            line = f"{step.done}/{step.of} {step.name}: {step.seconds:.1f} s, {left}"
            self._console.print(line, soft_wrap=True)
