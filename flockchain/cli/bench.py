"""`flockchain bench`: the project's own figures."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from flockchain.cli.common import JsonFlag
from flockchain.errors import Refused


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Which benchmarks; all by default.")] = None,
    json: JsonFlag = False,
) -> None:
    """Measure this machine. Example: flockchain bench finality throughput"""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / "bench" / "__main__.py").is_file():
        raise Refused("no-bench", "the benchmarks are part of the source tree: clone the project and run `make bench`")
    command = [sys.executable, "-m", "bench", *(names or []), *(["--json"] if json else [])]
    raise typer.Exit(subprocess.run(command, cwd=root, check=False).returncode)  # noqa: S603 - our own module
