"""The command line. Heavy rooms (ml) are imported inside the commands that need them."""

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from flockchain import __version__
from flockchain.cli import (
    bench,
    demo,
    devnet,
    genesis,
    init,
    keys,
    lab,
    learn,
    light,
    plan,
    query,
    replay,
    snapshot,
    start,
    tx,
    verify,
    workers,
)
from flockchain.errors import FlockchainError
from flockchain.files import explain

UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])
"""click's, which typer carries under a name that differs between its versions."""

app = typer.Typer(
    help="Fine-tune one language model together, without a server that anyone must trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(keys.app, name="keys")
app.add_typer(query.app, name="query")
app.add_typer(tx.app, name="tx")
app.add_typer(devnet.app, name="devnet")
app.add_typer(genesis.app, name="genesis")
app.add_typer(learn.adapter, name="adapter")
app.add_typer(workers.trainer, name="trainer")
app.add_typer(workers.voter, name="voter")
app.add_typer(snapshot.app, name="snapshot")
app.add_typer(lab.app, name="lab")
app.command()(demo.demo)
app.command()(query.status)
app.command()(init.init)
app.command()(start.start)
app.command()(learn.score)
app.command()(verify.verify)
app.command()(replay.replay)
app.command()(replay.export)
app.command()(replay.rollback)
app.command()(bench.bench)
app.command()(light.light)
app.command()(plan.plan)


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


def _explain_usage(error: Any) -> None:
    """One line; the whole help where a command group was named without a command."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    command = error.ctx.command_path if error.ctx is not None else "flockchain"
    message = " ".join(error.format_message().split())
    print(f"{command}: {message} (see `{command} --help`)", file=sys.stderr)


def main() -> None:
    """Exit codes: 0 done, 1 refused or failed, 2 wrong usage; errors are one line on stderr."""
    try:
        sys.exit(app(prog_name="flockchain", standalone_mode=False))
    except UsageError as error:
        _explain_usage(error)
        sys.exit(2)
    except FlockchainError as error:
        print(f"flockchain: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("flockchain: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        print(f"flockchain: {explain(Path(error.filename or 'this machine'), error)}", file=sys.stderr)
        sys.exit(1)
