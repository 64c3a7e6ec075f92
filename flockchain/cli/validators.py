"""What a bond is made from: the validator of a home with its keys, a judge's commitments to its holdouts."""

import json
from collections.abc import Sequence

from flockchain.cli.sending import Sender
from flockchain.cli.workers import parse_holdouts
from flockchain.crypto import parse_address
from flockchain.errors import Fault, Refused
from flockchain.execution.staking import make_validator_target
from flockchain.txs import stake
from flockchain.types.task import Holdout


def find_validator(sender: Sender, address: str | None) -> bytes:
    """The named address, or that of the home's validator key (which is not opened)."""
    if address is not None:
        return parse_address(address)
    path = sender.node_home() / "validator_key.json"
    try:
        return parse_address(str(json.loads(path.read_text())["address"]))
    except FileNotFoundError:
        raise Refused("no-validator", f"{path} does not exist: name the validator, or give its --home") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise Fault(f"{path} is damaged: restore it from your copy") from None


def find_delegate(sender: Sender, target: str, address: str) -> tuple[str, bytes]:
    """(target, account) of another's bond: of a validator by its own address, of a participant by its account's."""
    if target == stake.VALIDATOR:
        validator = sender.client.get(f"/validators/{address}")
        return make_validator_target(parse_address(address)), parse_address(validator["owner"])
    return target, parse_address(address)


def make_validator_bond(sender: Sender, amount_uflk: int, name: str) -> stake.Body:
    """A bond in the home's validator, with its proof of possession and the head of its beacon chain."""
    from flockchain.execution.beacon import BeaconChain
    from flockchain.genesis import sign_possession
    from flockchain.node.config import load_config
    from flockchain.node.home import Home
    from flockchain.node.key_file import load_key
    from flockchain.node.opening import read_passphrase
    from flockchain.node.signer import compute_beacon_seed

    home = Home(sender.node_home())
    key = load_key(home.validator_key, read_passphrase(load_config(home.config)))
    return stake.Body(
        stake.VALIDATOR,
        amount_uflk,
        public_key=bytes(key.verify_key),
        possession=sign_possession(key, sender.client.network().chain_id, sender.address),
        beacon_head=BeaconChain(compute_beacon_seed(key)).head,
        name=name,
    )


def make_task_holdouts(sender: Sender, target: str, options: Sequence[str], base: str | None) -> tuple[Holdout, ...]:
    """Commitments to private text, equal to those that `flockchain voter run` makes of the same files."""
    from flockchain.execution.staking import parse_target
    from flockchain.workers.bonding import make_holdout
    from flockchain.workers.learning import find_base, read_holdout

    kind, number = parse_target(target)
    if kind != "task" or not isinstance(number, int):
        raise Refused("bad-target", f"--holdout is for the bond in a task, the target is {target}")
    if base is None:
        raise Refused("bad-holdout", "--holdout needs --base, the base whose tokens the blocks are cut from")
    task = sender.client.task(number)
    files = parse_holdouts(options, task["spec"]["domains"])
    blocks = read_holdout(files, find_base(base, task), task["spec"]["judge"]["block_tokens"])
    return tuple(make_holdout(domain, blocks.leaves(domain)) for domain in blocks.domains)
