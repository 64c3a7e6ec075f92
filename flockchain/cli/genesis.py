"""`flockchain genesis`: the document from which a network begins."""

import json as json_module
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from flockchain.cli.common import HomeOption, IndexOption, JsonFlag, find_home, show
from flockchain.cli.fields import read_address, read_amount, read_document
from flockchain.crypto import format_address, parse_address
from flockchain.errors import Refused
from flockchain.genesis import Genesis, format_genesis, load_genesis, parse_genesis

app = typer.Typer(help="Build and check genesis documents.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="A genesis document.")]


def read_genesis(path: Path) -> Genesis:
    """The checked document of a file; raises `Refused` with the reason."""
    try:
        return load_genesis(path)
    except (OSError, UnicodeDecodeError) as error:
        raise Refused("bad-genesis", f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    except Refused as refusal:
        raise Refused(refusal.code, f"{path}: {refusal.message}") from None


@app.command()
def validator(
    chain_id: Annotated[str, typer.Option("--chain-id", help="Of the network to be.")],
    owner: Annotated[bytes, typer.Option("--owner", parser=read_address, metavar="ADDRESS", help="Owns the bond.")],
    bond: Annotated[str, typer.Option("--bond", help="In uflk, or such as '10000 FLK'.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: public, for whoever builds the document.")],
    name: Annotated[str, typer.Option("--name", help="For people.")] = "",
    home: HomeOption = None,
    index: IndexOption = None,
    json: JsonFlag = False,
) -> None:
    """Write this home's validator as an entry for a genesis document, with its proof of possession.

    Example: flockchain genesis validator --chain-id flock-1 --owner flk1... --bond "10000 FLK" --out north.json
    """
    from flockchain.execution.beacon import BeaconChain
    from flockchain.genesis import sign_possession
    from flockchain.node.config import load_config
    from flockchain.node.home import Home
    from flockchain.node.key_file import load_key
    from flockchain.node.opening import read_passphrase
    from flockchain.node.signer import compute_beacon_seed

    node = Home(find_home(home, index))
    key = load_key(node.validator_key, read_passphrase(load_config(node.config)))
    entry = {
        "owner": format_address(owner),
        "public_key": bytes(key.verify_key).hex(),
        "possession": sign_possession(key, chain_id, owner).hex(),
        "bond_uflk": _read_amount("bond_uflk", bond),
        "beacon_head": BeaconChain(compute_beacon_seed(key)).head.hex(),
        "name": name,
    }
    _write_new(out, json_module.dumps(entry, indent=2) + "\n")
    show({"written": str(out), **entry}, json)


@app.command()
def build(
    chain_id: Annotated[str, typer.Option("--chain-id", help="1 to 50 of a-z, 0-9 and '-'.")],
    validator: Annotated[
        list[Path], typer.Option("--validator", help="File made by `flockchain genesis validator`; repeatable.")
    ],
    out: Annotated[Path, typer.Option("--out", help="File to write; must not exist.")],
    account: Annotated[
        list[str] | None,
        typer.Option("--account", metavar="ADDRESS=AMOUNT", help="In uflk, or such as '5 FLK'; repeatable."),
    ] = None,
    params: Annotated[
        Path | None, typer.Option("--params", help="JSON or TOML of chain parameters that differ from the defaults.")
    ] = None,
    time_ms: Annotated[int | None, typer.Option("--time-ms", min=1, help="Genesis time. Default: now.")] = None,
    json: JsonFlag = False,
) -> None:
    """Build a genesis document.

    Example: flockchain genesis build --chain-id flock-1 --validator north.json --account flk1...=5000000 --out g.json
    """
    document = {
        "chain_id": chain_id,
        "time_ms": time_ms or time.time_ns() // 1_000_000,
        "params": read_document(params)[0] if params else {},
        "accounts": [_parse_account(text) for text in account or []],
        "validators": [read_document(path)[0] for path in validator],
    }
    genesis = parse_genesis(json_module.dumps(document))
    _write_new(out, format_genesis(genesis))
    show(_describe(genesis), json)


@app.command()
def validate(file: FileArgument, json: JsonFlag = False) -> None:
    """Check a genesis document. Example: flockchain genesis validate genesis.json"""
    show(_describe(read_genesis(file)), json)


@app.command("hash")
def hash_(file: FileArgument, json: JsonFlag = False) -> None:
    """Print the hash that names the network: every node must have the same. Example: flockchain genesis hash g.json"""
    found = read_genesis(file).hash().hex()
    if json:
        show({"genesis_hash": found}, True)
    else:
        print(found)


def _describe(genesis: Genesis) -> dict[str, Any]:
    return {
        "chain_id": genesis.chain_id,
        "genesis_hash": genesis.hash().hex(),
        "time_ms": genesis.time_ms,
        "accounts": len(genesis.accounts),
        "validators": len(genesis.validators),
        "supply_uflk": genesis.supply_uflk,
    }


def _parse_account(text: str) -> dict[str, Any]:
    address, equals, amount = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--account {text!r}: write ADDRESS=AMOUNT, for example flk1...=5000000")
    return {"address": format_address(parse_address(address)), "balance_uflk": _read_amount("balance_uflk", amount)}


def _read_amount(name: str, text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else read_amount(name, text)


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Refused("bad-file", f"cannot write {path}: {error.strerror}: nothing was written") from None
