"""`flockchain keys`: the encrypted keystore."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from nacl.signing import SigningKey

from flockchain.cli.common import (
    HomeOption,
    JsonFlag,
    PassphraseOption,
    find_keystore,
    open_key,
    read_passphrase,
    show,
    show_rows,
)
from flockchain.crypto import format_address
from flockchain.errors import Refused

app = typer.Typer(help="Keys of accounts, encrypted at rest.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the entry.")]


@app.command()
def new(
    name: Name,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    test_key: Annotated[
        bool, typer.Option("--test-key", help="Seal with an empty passphrase: for worthless keys.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Make a new key. Example: flockchain keys new alice"""
    secret = b"" if test_key else read_passphrase(passphrase_file, confirm=True)
    address = find_keystore(home).create(name, secret)
    show({"name": name, "address": format_address(address)}, json)


@app.command("list")
def list_(home: HomeOption = None, json: JsonFlag = False) -> None:
    """Names and addresses of all keys. Example: flockchain keys list"""
    keystore = find_keystore(home)
    rows = [{"name": name, "address": format_address(keystore.address(name))} for name in keystore.names()]
    show_rows(rows, ["name", "address"], json)


@app.command("show")
def show_key(name: Name, home: HomeOption = None, json: JsonFlag = False) -> None:
    """Address of one key. Example: flockchain keys show alice"""
    show({"name": name, "address": format_address(find_keystore(home).address(name))}, json)


@app.command("import")
def import_(
    name: Name, home: HomeOption = None, passphrase_file: PassphraseOption = None, json: JsonFlag = False
) -> None:
    """Read a 64-digit hex seed from stdin. Example: flockchain keys import alice < seed.hex"""
    text = sys.stdin.readline().strip()
    try:
        key = SigningKey(bytes.fromhex(text))
    except (ValueError, TypeError):
        raise Refused("bad-seed", "stdin must hold one line of 64 hexadecimal digits: the Ed25519 seed") from None
    address = find_keystore(home).add(name, key, read_passphrase(passphrase_file, confirm=True))
    show({"name": name, "address": format_address(address)}, json)


@app.command()
def export(
    name: Name,
    to: Annotated[Path, typer.Option("--to", help="File to write (mode 0600); must not exist.")],
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    json: JsonFlag = False,
) -> None:
    """Write the seed to a private file, for a backup. Example: flockchain keys export alice --to alice.seed"""
    key = open_key(home, name, passphrase_file)
    if to.exists():
        raise Refused("file-exists", f"{to} exists: choose another file, nothing was written")
    to.touch(mode=0o600)
    to.write_text(bytes(key).hex() + "\n")
    show({"name": name, "written": str(to)}, json)
