"""Changes of parameters and protocol version on the command line: to propose, to approve, to read."""

import re
import time
from datetime import datetime
from typing import Annotated, Any

import typer

from flockchain.cli.common import print_json, show, show_rows
from flockchain.cli.fields import read_amount
from flockchain.cli.sending import Sender
from flockchain.cli.validators import find_validator
from flockchain.client import Json
from flockchain.codec import Canonical
from flockchain.errors import Refused
from flockchain.txs import approve_change, propose_change
from flockchain.types.change import Setting, Upgrade

ValidatorOption = Annotated[
    str | None, typer.Option("--validator", metavar="ADDRESS", help="flk1... Default: the one of --home.")
]
DEFAULT_PERIOD = "7d"


def make_propose_change(
    sender: Sender,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="A parameter, such as fees.min_fee_uflk=200; repeatable."),
    ] = None,
    upgrade: Annotated[int | None, typer.Option("--upgrade", min=2, help="The next protocol version.")] = None,
    release: Annotated[str, typer.Option("--release", help="With --upgrade: the software that runs it.")] = "",
    at_height: Annotated[int, typer.Option("--at-height", min=0, help="With --upgrade: its first block.")] = 0,
    at_time: Annotated[
        str | None, typer.Option("--at-time", help="With --upgrade: in milliseconds, or as 2027-01-31T12:00:00+00:00.")
    ] = None,
    cancel: Annotated[int, typer.Option("--cancel", min=0, help="Number of an approved change to withdraw.")] = 0,
    within: Annotated[str, typer.Option("--within", help="Time for approvals, at most 30d.")] = DEFAULT_PERIOD,
    reason: Annotated[str, typer.Option("--reason", help="For the other validators, at most 256 characters.")] = "",
    validator: ValidatorOption = None,
) -> Canonical:
    """Propose other parameters, the next protocol version, or to cancel an approved change; it is approved by you then.

    Amounts may have units: "15m", "2 FLK", "3 %". More than 2/3 of the power must approve it.

    Example: flockchain tx propose-change --key owner --home ~/.flockchain --set fees.min_fee_uflk=200 --within 3d
    """
    if upgrade is None and (release or at_height or at_time is not None):
        raise typer.BadParameter("--release, --at-height and --at-time belong to --upgrade")
    if (upgrade is not None) + bool(set) + bool(cancel) != 1:
        raise typer.BadParameter("give --set, --upgrade or --cancel, one of the three")
    time_ms = 0 if at_time is None else parse_time_ms(at_time)
    if upgrade is not None and bool(at_height) == bool(time_ms):
        raise typer.BadParameter("--upgrade needs --at-height or --at-time, one of the two")
    now_ms = max(time.time_ns() // 1_000_000, sender.client.get("/status")["time_ms"])
    return propose_change.Body(
        validator=find_validator(sender, validator),
        settings=parse_settings(set or []),
        upgrade=None if upgrade is None else Upgrade(upgrade, release, at_height, time_ms),
        cancels=cancel,
        deadline_ms=now_ms + read_amount("--within: period_ms", within),
        reason=reason,
    )


def make_approve_change(
    sender: Sender,
    change: Annotated[int, typer.Option("--change", min=1, help="Its number, from `flockchain query changes`.")],
    validator: ValidatorOption = None,
) -> Canonical:
    """Agree to an open change with your validator's power. It cannot be taken back; look at the change first.

    Example: flockchain tx approve-change --key owner --home ~/.flockchain --change 3
    """
    return approve_change.Body(find_validator(sender, validator), change)


def parse_settings(texts: list[str]) -> tuple[Setting, ...]:
    """Settings as the chain wants them, sorted; raises `Refused` with the one that is wrong."""
    settings = []
    for text in texts:
        path, sign, value = text.partition("=")
        if not sign:
            raise Refused("bad-value", f"--set {text[:80]!r}: give PATH=VALUE, such as fees.min_fee_uflk=200")
        number = int(value) if re.fullmatch(r"\d{1,18}", value.strip()) else read_amount(path.strip(), value)
        settings.append(Setting(path.strip(), number))
    return tuple(sorted(settings, key=lambda setting: setting.path))


def parse_time_ms(text: str) -> int:
    """Milliseconds since 1970, or an ISO 8601 time with its offset; raises `Refused`."""
    if re.fullmatch(r"\d{1,18}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.timestamp() <= 0:
        raise Refused(
            "bad-value", f"{text[:80]!r} is no time: give milliseconds since 1970, or as 2027-01-31T12:00:00+00:00"
        )
    return round(moment.timestamp() * 1_000)


def summarize_change(change: Json) -> dict[str, Any]:
    """One line of the table."""
    total = change["total_power"]
    return {
        "id": change["id"],
        "status": change["status"],
        "agreed": f"{100 * change['approved_power'] // total} %" if total else "-",
        "from_block": change["effective_height"] or "-",
        "what": describe_change(change),
    }


def describe_change(change: Json) -> str:
    """What it asks for, in a few words."""
    upgrade = change["upgrade"]
    if upgrade is not None:
        moment = f"block {upgrade['height']}" if upgrade["height"] else f"{upgrade['time_ms']} ms"
        return f"protocol version {upgrade['version']} from {moment} on"
    if change["cancels"]:
        return f"cancel change {change['cancels']}"
    return ", ".join(f"{setting['path']}={setting['value']}" for setting in change["settings"])


def show_change(change: Json, as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    left_out = {"settings", "upgrade", "cancels", "approvals"}
    rows = {name: value for name, value in change.items() if name not in left_out}
    release = (change["upgrade"] or {}).get("release")
    show({"what": describe_change(change), **({"release": release} if release else {}), **rows}, False)
    if change["approvals"]:
        show_rows(change["approvals"], ["validator", "power", "height"], False)
