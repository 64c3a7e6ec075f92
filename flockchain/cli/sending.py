"""How `flockchain tx` turns a body into a final transaction: sign, keep what must not differ, send, wait, report."""

import inspect
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from nacl.signing import SigningKey

from flockchain.cli.common import (
    HomeOption,
    IndexOption,
    JsonFlag,
    KeyOption,
    NodeOption,
    PassphraseOption,
    connect,
    find_home,
    find_keystore,
    open_key,
    print_json,
    show,
)
from flockchain.client import Client, Json, Unreachable
from flockchain.codec import Canonical, encode
from flockchain.crypto import address_of, sha256
from flockchain.errors import Refused
from flockchain.types.tx import OK
from flockchain.workers.outbox import Outbox

WAIT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Common:
    """Options of every `flockchain tx` command."""

    key: KeyOption
    home: HomeOption = None
    index: IndexOption = None
    node: NodeOption = None
    passphrase_file: PassphraseOption = None
    fee_uflk: Annotated[
        int | None, typer.Option("--fee-uflk", min=0, help="Default: the least that the chain asks, 0 where it is due.")
    ] = None
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is final.")] = True
    json: JsonFlag = False


@dataclass(frozen=True, slots=True)
class Sender:
    """What a body may be made from."""

    client: Client
    signing_key: SigningKey
    options: Common

    @property
    def address(self) -> bytes:
        return address_of(bytes(self.signing_key.verify_key))

    def node_home(self) -> Path:
        """Home of the validator that this is about: `--home`, in a devnet with `--index`."""
        return find_home(self.options.home, self.options.index)

    @contextmanager
    def outbox(self) -> Iterator[Outbox]:
        """What this key signed and must never sign differently; shared with its workers, one process at a time."""
        with Outbox(find_keystore(self.options.home).folder.parent / "workers" / self.options.key / "outbox") as box:
            yield box


@dataclass(frozen=True, slots=True)
class Once:
    """A body of which only one may ever be signed for a training round; `name` is the one its worker uses."""

    name: str
    body: Canonical


MakeBody = Callable[..., Canonical | Once]
"""(sender, own options) -> the transaction's body."""


def add_command(app: typer.Typer, kind: str, make_body: MakeBody, *, free: bool) -> None:
    """Register `flockchain tx <kind>`: the options of `make_body` after its first argument, then the common ones.

    `free`: where the sender is drawn, this transaction is due and costs nothing.
    """

    def command(**values: Any) -> None:
        common = Common(**{name: values.pop(name) for name in Common.__slots__})
        signing_key = open_key(common.home, common.key, common.passphrase_file)
        with connect(common.node, common.home) as client:
            sender = Sender(client, signing_key, common)
            made = make_body(sender, **values)
            if isinstance(made, Once):
                result = _send_once(sender, made, kind, lambda: _build(sender, kind, made.body, free))
            else:
                result = _submit(sender, _build(sender, kind, made, free))
        _report(result, common)

    own = list(inspect.signature(make_body).parameters.values())[1:]
    shared = inspect.signature(Common).parameters.values()
    keyword_only = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
        for parameters, hints in (
            (own, typing.get_type_hints(make_body, include_extras=True)),
            (shared, typing.get_type_hints(Common, include_extras=True)),
        )
        for parameter in parameters
    ]
    command.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword_only}
    command.__doc__ = make_body.__doc__
    app.command(kind)(command)


def _build(sender: Sender, kind: str, body: Canonical, free: bool) -> bytes:
    fee_uflk = sender.options.fee_uflk
    return sender.client.build(sender.signing_key, kind, body, free=free and fee_uflk is None, fee_uflk=fee_uflk)


def _send_once(sender: Sender, made: Once, kind: str, build: Callable[[], bytes]) -> Json:
    """Content first goes to disk; only the envelope around equal content is ever signed again."""
    with sender.outbox() as outbox:
        if outbox.keep(f"{made.name}.body", lambda: encode(made.body)) != encode(made.body):
            raise Refused(
                "signed-before",
                f"this key has signed another {kind} for this training round ({made.name}): nothing was signed, "
                "for a second one would be evidence against it",
            )
        signed = build()
        outbox.replace(f"{made.name}.tx", signed)
    return _submit(sender, signed)


def _submit(sender: Sender, signed: bytes) -> Json:
    """The result so far: code and message null while it waits for a block."""
    result: Json = {"hash": sha256(signed).hex(), "height": None, "code": None, "message": None}
    try:
        sender.client.submit(signed)
        if sender.options.wait:
            found = sender.client.wait(result["hash"], timeout_s=WAIT_TIMEOUT_S)
            result.update({name: found[name] for name in ("height", "code", "message")})
    except Refused as refusal:
        if refusal.code == "not-final":
            raise
        result.update(code=refusal.code, message=refusal.message)
    except Unreachable as error:
        raise Unreachable(
            f"{error}. Transaction {result['hash']} may have been sent: `flockchain query tx` it before you send again"
        ) from None
    return result


def _report(result: Json, common: Common) -> None:
    """Exit code 1 with the chain's sentence where it refused."""
    is_refused = result["code"] not in (None, OK)
    if common.json:
        print_json(result)
    elif not is_refused:
        show(result, False)
    if is_refused:
        raise Refused(result["code"], f"refused ({result['code']}): {result['message']}")
