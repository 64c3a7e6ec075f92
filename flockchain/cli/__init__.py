"""The command line. Heavy rooms (ml) are imported inside the commands that need them."""

import sys
from typing import Annotated

import typer

from flockchain import __version__
from flockchain.cli import demo, devnet, keys, query, start, verify, workers
from flockchain.errors import FlockchainError

app = typer.Typer(
    help="Fine-tune one language model together, without a server that anyone must trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(keys.app, name="keys")
app.add_typer(query.app, name="query")
app.add_typer(devnet.app, name="devnet")
app.add_typer(workers.trainer, name="trainer")
app.add_typer(workers.voter, name="voter")
app.command()(demo.demo)
app.command()(query.status)
app.command()(start.start)
app.command()(verify.verify)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"flockchain {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune one language model together, without a server that anyone must trust."""


def main() -> None:
    """Exit codes: 0 done, 1 refused or failed, 2 wrong usage."""
    try:
        app()
    except FlockchainError as error:
        print(f"flockchain: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("flockchain: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
