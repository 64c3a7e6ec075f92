"""`flockchain devnet`: a local network of real processes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flockchain.cli.common import HomeOption, JsonFlag, console, print_json, show_rows
from flockchain.devnet import (
    DEFAULT_BASE_PORT,
    DEFAULT_VALIDATORS,
    Devnet,
    check_same_devnet,
    create_devnet,
    describe_devnet,
    purge_devnet,
    start_devnet,
    stop_devnet,
)

app = typer.Typer(help="A multi-process local network with deterministic test keys.", no_args_is_help=True)
DEFAULT_HOME = Path.home() / ".flockchain" / "devnet"


@app.command()
def up(
    validators: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Number of validator processes.", show_default=str(DEFAULT_VALIDATORS)),
    ] = None,
    home: HomeOption = None,
    base_port: Annotated[
        int | None,
        typer.Option(
            help="Node i listens on base-port + 10*i (peers) and the port after it (REST).",
            show_default=str(DEFAULT_BASE_PORT),
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Make or resume a network and leave it running. Example: flockchain devnet up --validators 4"""
    devnet = Devnet(home or DEFAULT_HOME)
    if devnet.record_path.exists():
        check_same_devnet(devnet, validators=validators, base_port=base_port)
    else:
        create_devnet(
            devnet.home,
            validators=DEFAULT_VALIDATORS if validators is None else validators,
            base_port=DEFAULT_BASE_PORT if base_port is None else base_port,
        )
    start_devnet(devnet)
    _show(describe_devnet(devnet), json)


@app.command()
def status(home: HomeOption = None, json: JsonFlag = False) -> None:
    """Processes, heights and state roots. Example: flockchain devnet status"""
    _show(describe_devnet(Devnet(home or DEFAULT_HOME)), json)


@app.command()
def down(
    home: HomeOption = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete the network's home as well.")] = False,
    json: JsonFlag = False,
) -> None:
    """Stop the network; `up` resumes it. Example: flockchain devnet down"""
    devnet = Devnet(home or DEFAULT_HOME)
    late = [] if purge else stop_devnet(devnet)
    if purge:
        purge_devnet(devnet)
    if json:
        print_json({"home": str(devnet.home), "purged": purge, "killed": late})
    else:
        console().print(f"stopped{' and deleted' if purge else ''} {devnet.home}", soft_wrap=True)


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    nodes = [{**node, "state_root": (node["state_root"] or "-")[:12]} for node in found["nodes"]]
    show_rows(nodes, ["index", "pid", "api", "height", "state_root"], False)
    console().print(f"chain {found['chain_id']}, {len(found['accounts'])} funded accounts in the keystore")
