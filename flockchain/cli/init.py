"""`flockchain init`: a node's home."""

from pathlib import Path
from typing import Annotated

import typer

from flockchain.cli.common import HomeOption, JsonFlag, PassphraseOption, console, default_home, print_json, show
from flockchain.cli.genesis import read_genesis
from flockchain.errors import Refused


def init(
    home: HomeOption = None,
    genesis: Annotated[Path | None, typer.Option("--genesis", help="Genesis document of the network to join.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option("--peer", metavar="HOST:PORT", help="A node to stay connected with; repeatable.")
    ] = None,
    p2p_listen: Annotated[str, typer.Option(help="Where other nodes reach this one.")] = "0.0.0.0:26600",
    api_listen: Annotated[str, typer.Option(help="Where REST answers.")] = "127.0.0.1:26601",
    trust: Annotated[
        str,
        typer.Option(
            metavar="HEIGHT:BLOCK_ID", help="A recent block that you believe, to verify a peer's snapshot from."
        ),
    ] = "",
    full_node: Annotated[bool, typer.Option("--full-node", help="Follow only: never sign a block.")] = False,
    passphrase_file: PassphraseOption = None,
    json: JsonFlag = False,
) -> None:
    """Make a node's home: fresh keys, an explained config.toml, and the genesis document if you have it.

    With --passphrase-file the keys are sealed, and the node reads that file when it starts.

    Example: flockchain init --home ~/.flockchain --genesis genesis.json --peer 192.0.2.7:26600
    """
    from flockchain.crypto import address_of, format_address
    from flockchain.genesis import save_genesis
    from flockchain.node.config import (
        ApiConfig,
        Config,
        P2pConfig,
        SyncConfig,
        ValidatorConfig,
        parse_host_port,
        parse_trust,
    )
    from flockchain.node.home import create_home
    from flockchain.node.key_file import load_key

    folder = default_home(home)
    for address in (p2p_listen, api_listen, *(peer or [])):
        parse_host_port(address.rpartition("@")[2])
    parse_trust(trust)
    document = read_genesis(genesis) if genesis else None
    secret = _read_secret(passphrase_file) if passphrase_file else b""
    config = Config(
        p2p=P2pConfig(listen=p2p_listen, persistent_peers=tuple(peer or ())),
        api=ApiConfig(listen=api_listen),
        sync=SyncConfig(trust=trust),
        validator=ValidatorConfig(
            enabled=not full_node, passphrase_file=str(passphrase_file.absolute()) if passphrase_file else ""
        ),
    )
    made = create_home(folder, config=config, passphrase=secret)
    if document is not None:
        save_genesis(document, made.genesis)
    addresses = {
        "home": str(folder),
        "validator": format_address(address_of(bytes(load_key(made.validator_key, secret).verify_key))),
        "node": format_address(address_of(bytes(load_key(made.node_key, secret).verify_key))),
        "chain_id": document.chain_id if document else None,
    }
    if json:
        print_json(addresses)
        return
    show(addresses, False)
    step = f"flockchain start --home {folder}" if document else f"put the network's genesis.json into {folder}"
    console().print(f"next: {step}", soft_wrap=True)


def _read_secret(path: Path) -> bytes:
    """As the node reads it when it starts."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise Refused("no-passphrase", f"cannot read the passphrase file {path}: {error.strerror}") from None
    if not secret:
        raise Refused("no-passphrase", f"the passphrase file {path} is empty: nothing was made")
    return secret
