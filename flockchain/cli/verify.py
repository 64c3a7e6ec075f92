"""`flockchain verify`: recompute a stored chain from genesis."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flockchain.cli.common import HomeOption, IndexOption, JsonFlag, console, default_home, find_home, print_json
from flockchain.cli.progress import ProgressBar
from flockchain.errors import Refused
from flockchain.verify.report import Report


def verify(
    home: HomeOption = None,
    index: IndexOption = None,
    node: Annotated[
        list[str] | None, typer.Option("--node", help="REST address that has adapters which this home lacks.")
    ] = None,
    base: Annotated[
        list[Path] | None,
        typer.Option("--base", help="Folder of a base model; repeatable. Default: those prepared on this machine."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail also when something could not be checked.")] = False,
    json: JsonFlag = False,
) -> None:
    """Recompute every block, draw, verdict, payment and global adapter from genesis. Exit code 1: something differs.

    Reads only; the node may be running. Judges' holdouts are private, so their losses are evidence: they are named,
    and --strict does not ask for them.

    Example: flockchain verify --home ~/.flockchain/devnet --index 0
    """
    from flockchain.client import Client
    from flockchain.verify.audit import verify_home

    for folder in base or []:
        if not (folder / "config.json").is_file():
            raise Refused("bad-base", f"--base {folder} is no model folder: it has no config.json")
    chain_home = find_chain_home(home, index)
    client = Client(node) if node else None
    try:
        with ProgressBar() as progress:
            report = verify_home(chain_home, client=client, bases=base or [], progress=progress)
    finally:
        if client is not None:
            client.close()
    if json:
        print_json({"home": str(chain_home), **report.to_json()})
    else:
        print_report(chain_home, report)
    if not report.ok or (strict and not report.is_complete):
        raise typer.Exit(1)


def find_chain_home(home: Path | None, index: int | None) -> Path:
    """A node's home; of a devnet's, or of the demo's with its `network`, the first node unless `index` says another."""
    folder = default_home(home)
    if (folder / "network" / "devnet.json").exists():
        folder = folder / "network"
    if index is None and (folder / "devnet.json").exists():
        index = 0
    return find_home(folder, index)


def print_report(home: Path, report: Report) -> None:
    out = console()
    out.print(f"home {escape(str(home))}", soft_wrap=True)
    out.print(f"chain {report.chain_id}, genesis {report.genesis_hash.hex()[:16]}")
    out.print(
        f"recomputed blocks {report.from_height} to {report.height}, {report.rounds} training rounds, "
        f"{report.adapters} global adapters"
    )
    for item in report.unchecked:
        out.print(f"[yellow]not checked[/] height {item.height}: {escape(item.what)}")
    for problem in report.problems:
        out.print(f"[red]problem[/] height {problem.height}: {escape(problem.what)}")
    verdict = "[green]nothing differs[/]" if report.ok else f"[red]{len(report.problems)} problems[/]"
    out.print(verdict)
