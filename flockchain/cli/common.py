"""What every command shares: options, where keys and nodes are found, and how answers are shown."""

import getpass
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from nacl.signing import SigningKey
from rich.console import Console
from rich.table import Table

from flockchain.client import Client
from flockchain.errors import Refused
from flockchain.keystore import Keystore

MAX_WIDTH = 80

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
NodeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--node", help="REST address of a node; may be repeated. Default: FLOCKCHAIN_NODE, then 127.0.0.1:26601."
    ),
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Home of a node or of a devnet. Default: FLOCKCHAIN_HOME, then ~/.flockchain."),
]
IndexOption = Annotated[int | None, typer.Option("--index", help="Which node of a devnet's home.", min=0)]
KeyOption = Annotated[str, typer.Option("--key", help="Name of an entry of the keystore that signs.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="File that holds the passphrase. Default: FLOCKCHAIN_PASSPHRASE_FILE, then a prompt."
    ),
]


def console(*, stderr: bool = False) -> Console:
    """A console that obeys NO_COLOR and pipes, at most 80 columns wide."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if made.width > MAX_WIDTH or not made.is_terminal:
        made.width = MAX_WIDTH
    return made


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


def show(data: Any, as_json: bool, title: str = "") -> None:
    """A mapping as two columns, or JSON."""
    if as_json:
        print_json(data)
        return
    table = Table(box=None, show_header=False, pad_edge=False, title=title or None, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in data.items():
        table.add_row(name, render_value(value))
    console().print(table)


def show_rows(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool, data: Any = None, *, folding: str = ""
) -> None:
    """A list as a table of the named columns, or JSON (`data` if it differs from the rows).

    Where it is too wide, the column `folding` takes several lines; without one, columns are cut.
    """
    if as_json:
        print_json(rows if data is None else data)
        return
    if not rows:
        console().print("none")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        number = all(isinstance(row.get(column), int) for row in rows)
        justify: Literal["left", "right"] = "right" if number else "left"
        if column == folding:
            table.add_column(column, justify=justify, overflow="fold")
        else:
            table.add_column(column, justify=justify, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*(render_value(row.get(column)) for column in columns))
    console().print(table)


def render_value(value: Any) -> str:
    """One cell: lists joined, nested values as compact JSON."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "-"
    return json.dumps(value, ensure_ascii=False)


def default_home(home: Path | None) -> Path:
    """The option, FLOCKCHAIN_HOME or ~/.flockchain."""
    return home or Path(os.environ.get("FLOCKCHAIN_HOME", str(Path.home() / ".flockchain")))


def find_home(home: Path | None, index: int | None = None) -> Path:
    """A node's home: the option, FLOCKCHAIN_HOME or ~/.flockchain; within a devnet's home, node `index`."""
    folder = default_home(home)
    if index is None and (folder / "node0").is_dir() and not (folder / "genesis.json").exists():
        raise Refused("which-node", f"{folder} is a devnet's home: say which node with --index N")
    return folder / f"node{index}" if index is not None else folder


def find_keystore(home: Path | None) -> Keystore:
    """The keystore of a home (a devnet's lies beside its nodes)."""
    folder = default_home(home)
    return Keystore(folder / "keystore")


def read_passphrase(passphrase_file: Path | None, *, confirm: bool = False) -> bytes:
    """From the file, the environment's file or a prompt; never from the command line."""
    named = passphrase_file or os.environ.get("FLOCKCHAIN_PASSPHRASE_FILE")
    if named:
        try:
            return Path(named).read_text().strip().encode()
        except OSError as error:
            raise Refused("no-passphrase", f"cannot read the passphrase file {named}: {error.strerror}") from None
    if not sys.stdin.isatty():
        raise Refused("no-passphrase", "this key needs a passphrase: give --passphrase-file FILE, or run in a terminal")
    first = getpass.getpass("passphrase: ")
    if confirm and getpass.getpass("once more: ") != first:
        raise Refused("no-passphrase", "the two passphrases differ: nothing was stored")
    return first.encode()


def open_key(home: Path | None, name: str, passphrase_file: Path | None) -> SigningKey:
    """The signing key of that name in the home's keystore."""
    return find_keystore(home).open(name, lambda: read_passphrase(passphrase_file))


def connect(nodes: list[str] | None, home: Path | None = None) -> Client:
    """A client on the named nodes, or on those of the given home."""
    return Client(nodes or nodes_of_home(home))


def nodes_of_home(home: Path | None) -> list[str]:
    """REST addresses written in the config files below a home; empty when there are none."""
    if home is None:
        return []
    import tomllib

    found: list[str] = []
    for path in sorted(home.glob("config.toml")) + sorted(home.glob("node*/config.toml")):
        try:
            listen = tomllib.loads(path.read_text()).get("api", {}).get("listen")
        except (OSError, ValueError) as error:
            raise Refused("bad-config", f"cannot read {path} ({error}): name a node by --node URL") from None
        if listen:
            found.append(f"http://{listen}")
    return found
