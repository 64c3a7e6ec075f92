"""`flockchain score` and `flockchain adapter`: adapters without, and from, a chain. Rooms of ml are imported late."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flockchain.cli.common import HomeOption, JsonFlag, NodeOption, connect, print_json, show, show_rows
from flockchain.cli.fields import read_document, read_hash
from flockchain.client import Client, Json
from flockchain.errors import Refused

adapter = typer.Typer(help="Adapters of a task.", no_args_is_help=True)

TASK_FILE = "flockchain.json"
"""In an exported folder: the task as REST shows it, so that `flockchain score` needs nothing else."""
DEFAULT_SAMPLE = (
    "A federated model is trained by many, and each of them keeps the data that it trained on.",
    "Whoever checks a result should need neither the trust nor the machine of the one who made it.",
)
BaseOption = Annotated[
    str | None,
    typer.Option("--base", help="The base: a folder, owner/name@revision, 'demo' or 'tiny'. Default: found by hash."),
]
DtypeOption = Annotated[str | None, typer.Option("--dtype", help="bf16, fp32 or nf4. Default: the task's.")]


def score(
    adapter: Annotated[Path, typer.Argument(help="An update, a global adapter, or an exported PEFT folder.")],
    data: Annotated[
        list[str], typer.Option("--data", metavar="[DOMAIN=]FILE", help="Text or JSONL, or a folder; repeatable.")
    ],
    task: Annotated[int | None, typer.Option("--task", min=1, help="Number of its task, asked of --node.")] = None,
    task_file: Annotated[
        Path | None, typer.Option("--task-file", help="The task from `flockchain query tasks N --json`.")
    ] = None,
    base: BaseOption = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="Global adapter that an update was trained from. Default: the base.")
    ] = None,
    parts: Annotated[
        int, typer.Option("--parts", min=1, max=8, help="An update counts 1/parts: valid submissions, at most 8.")
    ] = 1,
    coefficient_ppm: Annotated[
        int, typer.Option("--coefficient-ppm", min=0, max=1_000_000, help="Norm-clip coefficient of an update.")
    ] = 1_000_000,
    beacon: Annotated[
        bytes | None,
        typer.Option("--beacon", parser=read_hash, metavar="HEX", help="Of a round: score the blocks that it chose."),
    ] = None,
    dtype: DtypeOption = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads for tensor work.")] = 1,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure an adapter as a committee does, without a chain: bits per byte before and after, change, error.

    A change needs at least the task's least blocks and documents. An exported folder knows its task; for a bare file
    give --task or --task-file.

    Example: flockchain score adapter/ --data law=law.jsonl
    """
    from flockchain.cli.workers import set_threads

    set_threads(threads)
    from flockchain.cli.measuring import measure

    found = _find_task(adapter, task, task_file, node, home)
    figures = measure(
        adapter,
        found,
        data,
        base=base,
        start=start,
        parts=parts,
        coefficient_ppm=coefficient_ppm,
        beacon=beacon,
        dtype=dtype,
        threads=threads,
    )
    if json:
        print_json({"adapter": str(adapter), "domains": figures})
        return
    columns = ["domain", "before_bpb", "after_bpb", "change_%", "error_%", "blocks", "documents"]
    show_rows([_render_figure(figure) for figure in figures], columns, False)


def _render_figure(figure: dict[str, Any]) -> dict[str, Any]:
    """Losses with four decimals, changes in percent; '-' where there are too few blocks to say."""

    def percent(name: str) -> str | None:
        value = figure[name]
        return None if value is None else f"{value / 10_000:+.2f}"

    return {
        "domain": figure["domain"],
        "before_bpb": f"{figure['before_ubpb'] / 1e6:.4f}",
        "after_bpb": f"{figure['after_ubpb'] / 1e6:.4f}",
        "change_%": percent("change_ppm"),
        "error_%": percent("se_ppm"),
        "blocks": figure["blocks"],
        "documents": figure["documents"],
    }


def _find_task(
    path: Path, task: int | None, task_file: Path | None, nodes: list[str] | None, home: Path | None
) -> Json:
    """The task as REST shows it: from a node, a file, or the exported folder itself."""
    if not path.exists():
        raise Refused("no-adapter", f"{path} does not exist: give an adapter's file or an exported folder")
    if task is not None:
        with connect(nodes, home) as client:
            return client.task(task)
    file = task_file or path / TASK_FILE
    if task_file is None and not file.exists():
        raise Refused("no-task", f"{path} does not say what task it is of: give --task N or --task-file FILE")
    found: Any = read_document(file)[0]
    if not isinstance(found, dict) or not {"id", "seed", "spec"} <= found.keys():
        raise Refused("bad-file", f"{file} is not a task: write it with `flockchain query tasks N --json`")
    return found


@adapter.command()
def export(
    task: Annotated[int, typer.Argument(min=1, help="Number of the task.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    round: Annotated[int | None, typer.Option("--round", min=1, help="After this round. Default: the newest.")] = None,
    base: BaseOption = None,
    sample: Annotated[
        Path | None, typer.Option("--sample", help="Public texts that travel with the folder, for its check script.")
    ] = None,
    license: Annotated[str, typer.Option("--license", help="Of the base, for the card, such as apache-2.0.")] = "other",
    dtype: Annotated[
        Literal["bf16", "fp32"], typer.Option("--dtype", help="In which the loss of the sample is recorded.")
    ] = "fp32",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads for tensor work.")] = 1,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Write a settled global adapter as a standard PEFT folder, with a script that checks it.

    Example: flockchain adapter export 1 adapter/
    """
    from flockchain.cli.workers import set_threads

    set_threads(threads)
    from flockchain.cli.measuring import export_global, read_sample

    if folder.exists() and any(folder.iterdir()):
        raise Refused("folder-exists", f"{folder} is not empty: choose another folder, nothing was written")
    texts = read_sample(sample) if sample else list(DEFAULT_SAMPLE)
    with connect(node, home) as client:
        found = client.task(task)
        root = _find_global_root(client, found, round)
        loss = export_global(client, found, root, folder, base=base, texts=texts, license=license, dtype=dtype)
    (folder / TASK_FILE).write_text(json_module.dumps(found, indent=2) + "\n", encoding="utf-8")
    show({"task": task, "root": root, "folder": str(folder), "sample_ubpb": int(loss * 1_000_000 + 0.5)}, json)


def _find_global_root(client: Client, task: Json, number: int | None) -> str:
    root = client.round(task["id"], number)["result_root"] if number is not None else task["global_root"]
    if not root:
        when = "yet" if number is None else f"after round {number}"
        raise Refused("no-adapter", f"task {task['id']} has no global adapter {when}: no round has settled one")
    return str(root)


@adapter.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The adapter's bytes.")],
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Hand the bytes of a recorded adapter to a node, from PUBLISH on; continues where an upload stopped.

    Example: flockchain adapter upload round1.safetensors
    """
    from flockchain.chunks import compute_file_root

    root, size_bytes = compute_file_root(file)
    with connect(node, home) as client:
        client.put_blob(root, file)
    show({"root": root.hex(), "size_bytes": size_bytes}, json)
