"""`flockchain light`: the newest header, and one account, verified from a block that you trust."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flockchain import PROTOCOL_VERSION
from flockchain.cli.common import HomeOption, JsonFlag, NodeOption, connect, console, default_home, show
from flockchain.client import Client
from flockchain.crypto import HASH_BYTES, format_address, parse_address
from flockchain.errors import Refused
from flockchain.light.client import LightClient, Mode
from flockchain.light.predicates import MAX_CLOCK_DRIFT_MS, Options
from flockchain.light.proofs import read_row
from flockchain.light.refusals import NotVerified
from flockchain.light.rules import FlockRules
from flockchain.light.stored import FileStore
from flockchain.params import DAY_MS, ConsensusParams, FeeParams, Params, StakeParams, TaskParams
from flockchain.types.light import LightBlock
from flockchain.types.rows import Account

ATTEMPTS = 4
RETRY_S = 0.5
"""A witness may hear of the newest block a moment after the primary."""


def light(
    trust: Annotated[
        str | None,
        typer.Option("--trust", metavar="HEIGHT:BLOCK_ID", help="Block to begin from; needed the first time only."),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option("--witness", help="REST address of a node of somebody else to compare with; may be repeated."),
    ] = None,
    account: Annotated[str | None, typer.Option("--account", help="flk1...: verify its balance and nonce too.")] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="File that keeps what is trusted. Default: light.json in the home.")
    ] = None,
    trusting_period_ms: Annotated[
        int | None,
        typer.Option("--trusting-period-ms", min=1, help="Default: the chain's own, checked against its header."),
    ] = None,
    sequential: Annotated[bool, typer.Option("--sequential", help="Verify every height, skip none.")] = False,
    node: NodeOption = None,
    home: HomeOption = None,
    json: JsonFlag = False,
) -> None:
    """Verify the newest block without trusting the node that gives it.

    Example: flockchain light --trust 1:5f2c... --witness http://198.51.100.7:26601 --account flk1...
    """
    address = None if account is None else parse_address(account)
    root = None if trust is None else _parse_trust(trust)
    path = store or default_home(home) / "light.json"
    mode: Mode = "sequential" if sequential else "skipping"
    with connect(node, home) as primary:
        witnesses = [Client([url]) for url in witness or []]
        try:
            client = _make_client(primary, witnesses, path, root, trusting_period_ms, mode)
            answer = _verify(client, primary, root, address)
        finally:
            for other in witnesses:
                other.close()
    if not witnesses and not json:
        console(stderr=True).print("no --witness was named: a fork shown to this client alone would not be noticed")
    version = answer["protocol_version"]
    if version > PROTOCOL_VERSION and not json:
        console(stderr=True).print(
            f"the chain follows protocol version {version}, this program knows {PROTOCOL_VERSION}: the signatures are "
            "verified all the same, what a row means may have changed"
        )
    show(answer, json)


def _make_client(
    primary: Client,
    witnesses: Sequence[Client],
    path: Path,
    root: tuple[int, bytes] | None,
    trusting_period_ms: int | None,
    mode: Mode,
) -> LightClient[LightBlock]:
    genesis_hash = primary.network().genesis_hash
    store = FileStore(path, genesis_hash)
    known = store.heights()
    if root is None and not known:
        raise Refused(
            "no-trust",
            f"{path} trusts no block yet: name one with --trust HEIGHT:BLOCK_ID, from a source that you believe",
        )
    if trusting_period_ms is None:
        begin = primary.light_block(root[0]) if root is not None else store.get(known[-1])
        trusting_period_ms = _fetch_trusting_period_ms(primary, begin)
    options = Options(trusting_period_ms, MAX_CLOCK_DRIFT_MS)
    return LightClient(FlockRules(genesis_hash), primary, witnesses, store, options, mode=mode)


def _verify(
    client: LightClient[LightBlock], primary: Client, root: tuple[int, bytes] | None, address: bytes | None
) -> dict[str, Any]:
    chain_id = primary.network().chain_id
    if root is not None:
        height, block_id = root
        client.trust(height, block_id, chain_id, _now_ms())
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _read(client, primary, address)
        except NotVerified as refusal:
            if refusal.code != "no-witness" or attempt == ATTEMPTS:
                raise
            time.sleep(RETRY_S)
    raise AssertionError("the last attempt returns or raises")


def _read(client: LightClient[LightBlock], primary: Client, address: bytes | None) -> dict[str, Any]:
    block = client.update(_now_ms())
    answer: dict[str, Any] = {
        "verified": True,
        "chain_id": block.header.chain_id,
        "height": block.height,
        "block_id": block.block_id().hex(),
        "time_ms": block.header.time_ms,
        "age_ms": max(0, _now_ms() - block.header.time_ms),
        "prev_state_root": block.header.prev_state_root.hex(),
        "protocol_version": block.header.protocol_version,
        "node": primary.node,
    }
    if address is not None:
        answer["account"] = _read_account(client, primary, address)
    answer["witnesses"] = [
        {"node": report.node, "agrees": report.agrees, "message": report.message} for report in client.witness_reports
    ]
    return answer


def _read_account(client: LightClient[LightBlock], primary: Client, address: bytes) -> dict[str, Any]:
    """As proven; `height` is the block after which it is so."""
    row, header = read_row(client, primary, Account, address, now_ms=_now_ms())
    return {
        "address": format_address(address),
        "exists": row is not None,
        "balance_uflk": row.balance_uflk if row else 0,
        "nonce": row.nonce if row else 0,
        "height": header.height - 1,
    }


def _fetch_trusting_period_ms(primary: Client, block: LightBlock) -> int:
    """From the chain's parameters, if they are those that the header of `block` commits to."""
    found = primary.get("/params", height=block.height)
    kinds = {"consensus": ConsensusParams, "stake": StakeParams, "fees": FeeParams, "tasks": TaskParams}
    try:
        parts: dict[str, Any] = {name: kind(**found[name]) for name, kind in kinds.items()}
        params = Params(**parts)
        matches = params.hash() == block.header.params_hash
    except (KeyError, TypeError, OverflowError):
        matches = False
    if not matches:
        raise Refused(
            "unknown-params",
            f"the parameters that {primary.node} gives are not those of block {block.height}: state the trusting "
            f"period yourself with --trusting-period-ms (this program's default chain has {14 * DAY_MS})",
        )
    return params.stake.trusting_period_ms


def _parse_trust(text: str) -> tuple[int, bytes]:
    height, _, block_id = text.partition(":")
    try:
        found = int(height), bytes.fromhex(block_id)
    except ValueError:
        found = 0, b""
    if found[0] < 1 or len(found[1]) != HASH_BYTES:
        raise Refused(
            "bad-trust", f"--trust is HEIGHT:BLOCK_ID such as 1200:5f2c... (64 hex digits), got {text[:90]!r}"
        )
    return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
