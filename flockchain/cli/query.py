"""`flockchain status` and `flockchain query`: read the chain; --json equals REST."""

from typing import Annotated, Any

import typer

from flockchain.cli.changes import show_change, summarize_change
from flockchain.cli.common import HomeOption, JsonFlag, NodeOption, connect, print_json, show, show_rows
from flockchain.client import Client

app = typer.Typer(help="Read accounts, validators, stakes, tasks, rounds, blocks and more.", no_args_is_help=True)


def _list(client: Client, path: str, columns: list[str], as_json: bool, **query: str | int | None) -> None:
    """One page in JSON (as REST gives it), all pages in a table."""
    if as_json:
        print_json(client.get(path, limit=200, **query))
    else:
        show_rows(list(client.pages(path, **query)), columns, False)


def status(node: NodeOption = None, home: HomeOption = None, json: JsonFlag = False) -> None:
    """Height, state root and peers of a node. Example: flockchain status"""
    with connect(node, home) as client:
        show(client.status(), json)


@app.command()
def account(
    address: Annotated[str, typer.Argument(help="flk1...")],
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Balance and nonce. Example: flockchain query account flk1..."""
    with connect(node, home) as client:
        show(client.get(f"/accounts/{address}"), json)


@app.command()
def validators(node: NodeOption = None, home: HomeOption = None, json: JsonFlag = False) -> None:
    """The validator set with powers, bonds and jails. Example: flockchain query validators"""
    with connect(node, home) as client:
        _list(
            client,
            "/validators",
            ["address", "bond_uflk", "delegated_uflk", "share_ppm", "active", "jailed_until_ms", "tombstoned"],
            json,
        )


@app.command()
def stakes(
    owner: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    target: Annotated[str | None, typer.Option(help="Only those in this target, such as task:1.")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Bonds in validators and tasks. Example: flockchain query stakes --target task:1"""
    with connect(node, home) as client:
        _list(client, "/stakes", ["owner", "target", "role", "amount_uflk"], json, owner=owner, target=target)


@app.command()
def delegations(
    delegator: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    delegate: Annotated[str | None, typer.Option(help="Only those to this validator's owner or participant.")] = None,
    target: Annotated[str | None, typer.Option(help="With --delegate: only those in this target.")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """What was staked for others, what it is worth and has earned. Example: flockchain query delegations"""
    with connect(node, home) as client:
        columns = ["delegator", "delegate", "target", "amount_uflk", "earned_uflk"]
        asked = {"delegator": delegator, "delegate": delegate, "target": target}
        _list(client, "/stakes/delegations", columns, json, **asked)


@app.command()
def pools(
    delegate: Annotated[str | None, typer.Option(help="Only those of this validator's owner or participant.")] = None,
    target: Annotated[str | None, typer.Option(help="With --delegate: only the one in this target.")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Who takes delegations, and which share of the income it offers. Example: flockchain query pools"""
    with connect(node, home) as client:
        columns = ["delegate", "target", "share_ppm", "amount_uflk", "delegators", "rewards_uflk"]
        _list(client, "/stakes/pools", columns, json, delegate=delegate, target=target)


@app.command()
def unbonding(
    owner: Annotated[str | None, typer.Option(help="Only what this account gets back.")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Stake on its way out, and when it is free. Example: flockchain query unbonding --owner flk1..."""
    with connect(node, home) as client:
        _list(client, "/stakes/unbonding", ["owner", "target", "amount_uflk", "release_ms"], json, owner=owner)


@app.command()
def tasks(
    task: Annotated[int | None, typer.Argument(help="One task's number.")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """All tasks, or one. Example: flockchain query tasks 1"""
    with connect(node, home) as client:
        if task is not None:
            show(client.task(task), json)
        else:
            _list(client, "/tasks", ["id", "status", "round", "pool_uflk", "global_root"], json)


@app.command()
def rounds(
    task: Annotated[int, typer.Argument(help="Task number.")],
    number: Annotated[int | None, typer.Argument(help="One round's number.")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Training rounds of a task, or one with its votes, verdicts and payments. Example: flockchain query rounds 1 2"""
    with connect(node, home) as client:
        if number is None:
            _list(client, f"/tasks/{task}/rounds", ["number", "phase", "deadline_ms", "outcome"], json)
            return
        found = client.round(task, number)
        if json:
            print_json(found)
            return
        show({name: value for name, value in found.items() if not isinstance(value, list)}, False)
        verdicts: list[dict[str, Any]] = found.get("verdicts", [])
        if verdicts:
            show_rows(verdicts, ["trainer", "outcome", "reason", "slashed_uflk", "reward_uflk"], False)


def _one(path: str, help_text: str, name: str, argument_help: str) -> None:
    """Register a command that shows one thing by its id."""

    def command(
        id: Annotated[str, typer.Argument(help=argument_help)],
        node: NodeOption = None,
        home: HomeOption = None,
        json: JsonFlag = False,
    ) -> None:
        with connect(node, home) as client:
            show(client.get(f"{path}/{id}"), json)

    command.__doc__ = help_text
    app.command(name)(command)


_one(
    "/adapters", "One adapter by its root. Example: flockchain query adapter 9f3c...", "adapter", "Root, 64 hex digits."
)
_one("/blocks", "One block. Example: flockchain query block latest", "block", "Height, or latest.")
_one("/txs", "One transaction with its result. Example: flockchain query tx 5a0b...", "tx", "Hash, 64 hex digits.")


@app.command()
def params(
    height: Annotated[int | None, typer.Option("--height", min=1, help="Of this block; default: of the next.")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """The chain's parameters. Example: flockchain query params"""
    with connect(node, home) as client:
        found = client.get("/params", height=height)
        if json:
            print_json(found)
            return
        groups = {group: values for group, values in found.items() if isinstance(values, dict)}
        rows = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
        show({**rows, **{name: value for name, value in found.items() if name not in groups}}, False)


@app.command()
def changes(
    number: Annotated[int | None, typer.Argument(help="One change's number.")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Changes of parameters and protocol version, open and decided; or one. Example: flockchain query changes 3"""
    with connect(node, home) as client:
        if number is None and json:
            print_json(client.get("/changes", limit=200))
        elif number is None:
            rows = [summarize_change(change) for change in client.pages("/changes")]
            show_rows(rows, ["id", "status", "agreed", "from_block", "what"], False)
        else:
            show_change(client.get(f"/changes/{number}"), json)


@app.command()
def receipt(
    account: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    kind: Annotated[str | None, typer.Option(help="reward, slash, refund, verdict ...")] = None,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Why money was paid or taken. Example: flockchain query receipt --kind slash"""
    with connect(node, home) as client:
        columns = ["height", "kind", "account", "amount_uflk", "task", "round", "reason"]
        _list(client, "/receipts", columns, json, account=account, kind=kind)
