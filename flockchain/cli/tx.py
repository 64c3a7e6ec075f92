"""`flockchain tx`: one function per transaction type that makes its body; `sending.py` does the rest."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from msgspec.structs import replace

from flockchain.chunks import compute_file_root
from flockchain.cli.changes import make_approve_change, make_propose_change
from flockchain.cli.fields import read_address, read_hash
from flockchain.cli.finals import make_commit_final, make_judge_final, make_reveal_final
from flockchain.cli.sending import MakeBody, Once, Sender, add_command
from flockchain.cli.structs import read_struct
from flockchain.cli.validators import find_delegate, find_validator, make_task_holdouts, make_validator_bond
from flockchain.client import Json
from flockchain.codec import Canonical, decode, encode
from flockchain.crypto import parse_address
from flockchain.errors import Refused
from flockchain.execution.staking import make_validator_target
from flockchain.params import PPM
from flockchain.txs import (
    approve_change,
    attest_aggregate,
    claim_rewards,
    confirm_fetched,
    create_task,
    edit_validator,
    fund_task,
    leave_task,
    propose_change,
    slash,
    stake,
    submit_adapter,
    transfer,
    unjail,
    unstake,
    vote,
)
from flockchain.types.task import Ballot, TaskSpec
from flockchain.workers.sealing import compute_salt

app = typer.Typer(help="Build, sign and send transactions.", no_args_is_help=True)

AmountOption = Annotated[int, typer.Option("--amount-uflk", min=1, help="Millionths of one FLK.")]
TaskOption = Annotated[int, typer.Option("--task", min=1, help="Number of the task.")]
RoundOption = Annotated[int | None, typer.Option("--round", min=1, help="Default: the task's current round.")]
TargetOption = Annotated[str, typer.Option("--target", help="task:NUMBER, or validator for the one of --home.")]
ValidatorOption = Annotated[
    str | None, typer.Option("--validator", metavar="ADDRESS", help="flk1... Default: the one of --home.")
]
ForOption = Annotated[
    str | None,
    typer.Option("--for", metavar="ADDRESS", help="On another's bond: a validator's address, or a participant's."),
]
ShareOption = Annotated[
    int | None,
    typer.Option("--share-ppm", min=0, max=PPM, help="Part of what delegations earn that the delegators get."),
]
BaseOption = Annotated[
    str | None, typer.Option("--base", help="The base: a folder, owner/name@revision, 'demo' or 'tiny'.")
]


def make_transfer(
    sender: Sender,
    to: Annotated[bytes, typer.Option("--to", parser=read_address, metavar="ADDRESS", help="flk1...")],
    amount_uflk: AmountOption,
    memo: Annotated[str, typer.Option(help="Public text, at most 256 characters.")] = "",
) -> Canonical:
    """Move money to another account.

    Example: flockchain tx transfer --key alice --to flk1... --amount-uflk 5000000
    """
    return transfer.Body(to, amount_uflk, memo)


def make_stake(
    sender: Sender,
    target: TargetOption,
    amount_uflk: Annotated[int, typer.Option("--amount-uflk", min=0, help="0 only to change --share-ppm.")],
    role: Annotated[
        Literal["trainer", "voter"] | None, typer.Option("--role", help="Of a first bond in a task.")
    ] = None,
    holdout: Annotated[
        list[str] | None,
        typer.Option("--holdout", metavar="DOMAIN=FILE", help="A voter's private text of one domain; repeatable."),
    ] = None,
    base: BaseOption = None,
    name: Annotated[str, typer.Option("--name", help="Of a new validator, for people.")] = "",
    delegate: ForOption = None,
    share_ppm: ShareOption = None,
) -> Canonical:
    """Bond money in a task, or in the validator whose home is --home; add to a bond; or, with --for, to another's.

    A first bond as a voter commits to its holdouts, which needs --base for their tokens; the text stays here. With
    --share-ppm others may stake on this bond, and get that part of what their stake earns.

    Example: flockchain tx stake --key alice --target task:1 --amount-uflk 500000000 --role trainer
    """
    if delegate is not None:
        if role or holdout or name or share_ppm is not None:
            raise typer.BadParameter("--role, --holdout, --name and --share-ppm are for one's own bond")
        target, owner = find_delegate(sender, target, delegate)
        return stake.Body(target, amount_uflk, delegate=owner)
    if target == stake.VALIDATOR:
        if role or holdout:
            raise typer.BadParameter("--role and --holdout are for the bond in a task")
        return replace(make_validator_bond(sender, amount_uflk, name), share_ppm=share_ppm)
    holdouts = make_task_holdouts(sender, target, holdout, base) if holdout else ()
    return stake.Body(target, amount_uflk, role=role or "", holdouts=holdouts, share_ppm=share_ppm)


def make_unstake(
    sender: Sender, target: TargetOption, amount_uflk: AmountOption, delegate: ForOption = None
) -> Canonical:
    """Take a bond, or with --for a delegation, out through the unbonding queue, in which it stays slashable.

    Example: flockchain tx unstake --key alice --target task:1 --amount-uflk 500000000
    """
    if delegate is not None:
        target, owner = find_delegate(sender, target, delegate)
        return unstake.Body(target, amount_uflk, owner)
    if target == stake.VALIDATOR:
        target = make_validator_target(find_validator(sender, None))
    elif target.startswith("validator:flk1"):
        target = make_validator_target(parse_address(target.partition(":")[2]))
    return unstake.Body(target, amount_uflk)


def make_unjail(sender: Sender, validator: ValidatorOption = None) -> Canonical:
    """Bring a validator back that was jailed for downtime.

    Example: flockchain tx unjail --key owner --home ~/.flockchain
    """
    return unjail.Body(find_validator(sender, validator))


def make_claim_rewards(
    sender: Sender,
    validator: ValidatorOption = None,
    delegate: ForOption = None,
    target: Annotated[str, typer.Option("--target", help="With --for: task:NUMBER, or validator.")] = stake.VALIDATOR,
) -> Canonical:
    """Move a validator's income to its owner's balance; with --for what a delegation earned to the delegator's.

    Example: flockchain tx claim-rewards --key owner --home ~/.flockchain
    """
    if delegate is not None:
        target, owner = find_delegate(sender, target, delegate)
        return claim_rewards.Body(delegate=owner, target=target)
    return claim_rewards.Body(find_validator(sender, validator))


def make_edit_validator(
    sender: Sender,
    validator: ValidatorOption = None,
    name: Annotated[str, typer.Option("--name", help="New name.")] = "",
    beacon_head: Annotated[
        bytes | None, typer.Option("--beacon-head", parser=read_hash, metavar="HEX", help="Head of a new beacon chain.")
    ] = None,
    share_ppm: ShareOption = None,
) -> Canonical:
    """Give a validator another name, beacon chain, or share of the income for its delegators.

    Example: flockchain tx edit-validator --key owner --home ~/.flockchain --name north
    """
    return edit_validator.Body(find_validator(sender, validator), name, beacon_head or b"", share_ppm)


def make_create_task(
    sender: Sender,
    spec: Annotated[Path, typer.Option("--spec", help="JSON or TOML with the fields of a task (docs/protocol.md).")],
    pool_uflk: Annotated[int, typer.Option("--pool-uflk", min=0, help="Reward pool; what is left is refunded.")],
    base: BaseOption = None,
) -> Canonical:
    """Open a task. Amounts in the file may have units: "15m", "500 FLK", "2 %", "8 MiB".

    --base fills model.base_hash and model.tokenizer_hash.

    Example: flockchain tx create-task --key alice --spec task.toml --pool-uflk 9000000000 --base demo
    """
    return create_task.Body(read_struct(spec, TaskSpec, _hash_base(base) if base else None), pool_uflk)


def make_fund_task(sender: Sender, task: TaskOption, amount_uflk: AmountOption) -> Canonical:
    """Add to the reward pool of an open task.

    Example: flockchain tx fund-task --key alice --task 1 --amount-uflk 1000000000
    """
    return fund_task.Body(task, amount_uflk)


def make_leave_task(sender: Sender, task: TaskOption) -> Canonical:
    """Not to be drawn again in a task; the bond stays until `unstake`.

    Example: flockchain tx leave-task --key alice --task 1
    """
    return leave_task.Body(task)


def make_submit_adapter(
    sender: Sender,
    file: Annotated[Path, typer.Option("--file", exists=True, dir_okay=False, help="The update.")],
    task: TaskOption,
    round: RoundOption = None,
    base_root: Annotated[
        bytes | None,
        typer.Option("--base-root", parser=read_hash, metavar="HEX", help="Trained from; default: the round's."),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Examples trained on, as you report it.")] = 0,
    versions: Annotated[str, typer.Option(help="Of the software that trained it.")] = "",
) -> Once:
    """Record the root of your update. The bytes stay here until PUBLISH: then `flockchain adapter upload`.

    Example: flockchain tx submit-adapter --key alice --task 1 --file round1.safetensors
    """
    found = _find_round(sender, task, round)
    root, size_bytes = compute_file_root(file)
    base = bytes.fromhex(found["base_root"] or "") if base_root is None else base_root
    body = submit_adapter.Body(task, found["number"], root, size_bytes, base, examples, versions)
    return Once(f"task{task}-round{found['number']}-submit", body)


def make_confirm_fetched(
    sender: Sender,
    task: TaskOption,
    round: RoundOption = None,
    unavailable: Annotated[
        list[bytes] | None,
        typer.Option("--unavailable", parser=read_hash, metavar="ROOT", help="Not to be had; repeatable."),
    ] = None,
) -> Canonical:
    """Say in PUBLISH that you have the round's adapters, or which ones you could not get.

    Example: flockchain tx confirm-fetched --key bob --task 1
    """
    number = _find_round(sender, task, round)["number"]
    return confirm_fetched.Body(task, number, tuple(sorted(set(unavailable or []))))


def make_vote(
    sender: Sender,
    seal: Annotated[Path | None, typer.Option("--seal", help="Ballot as JSON or TOML: seal it (COMMIT).")] = None,
    open: Annotated[bool, typer.Option("--open", help="Open the vote that this key sealed (REVEAL).")] = False,
    task: Annotated[int | None, typer.Option("--task", min=1, help="With --open: number of the task.")] = None,
    round: RoundOption = None,
) -> Once:
    """Judge a round's adapters: sealed in COMMIT, opened in REVEAL. The ballot is kept beside the keystore meanwhile.

    Example: flockchain tx vote --key bob --seal ballot.json
    """
    if (seal is None) == (not open):
        raise typer.BadParameter("give either --seal FILE or --open")
    if seal is not None:
        return _seal(sender, read_struct(seal, Ballot))
    if task is None:
        raise typer.BadParameter("--open needs --task")
    number = _find_round(sender, task, round)["number"]
    with sender.outbox() as outbox:
        kept = outbox.find(f"task{task}-round{number}-ballot.body")
    if kept is None:
        raise Refused("not-sealed", f"this key keeps no ballot for round {number} of task {task}: nothing to open")
    salt = compute_salt(sender.signing_key, task, number)
    return Once(f"task{task}-round{number}-open", vote.Body(task, number, ballot=decode(Ballot, kept), salt=salt))


def make_attest_aggregate(
    sender: Sender,
    file: Annotated[Path, typer.Option("--file", help="The attestation as JSON or TOML.")],
) -> Once:
    """Name the candidate for the next global adapter and what it measures.

    Example: flockchain tx attest-aggregate --key bob --file attestation.json
    """
    body = read_struct(file, attest_aggregate.Body)
    return Once(f"task{body.task}-round{body.round}-attest", body)


def make_slash(
    sender: Sender,
    evidence: Annotated[
        Path, typer.Option("--evidence", help="JSON or TOML: evidence_kind, and evidence in hex (canonical bytes).")
    ],
) -> Canonical:
    """Report an offence; a tenth of what is taken is yours. Free where the evidence holds.

    Example: flockchain tx slash --key carol --evidence double-vote.json
    """
    return read_struct(evidence, slash.Body)


_PAID: dict[str, MakeBody] = {
    transfer.KIND: make_transfer,
    stake.KIND: make_stake,
    unstake.KIND: make_unstake,
    unjail.KIND: make_unjail,
    claim_rewards.KIND: make_claim_rewards,
    edit_validator.KIND: make_edit_validator,
    "commit-final": make_commit_final,
    create_task.KIND: make_create_task,
    "reveal-final": make_reveal_final,
    fund_task.KIND: make_fund_task,
    leave_task.KIND: make_leave_task,
    propose_change.KIND: make_propose_change,
    approve_change.KIND: make_approve_change,
}
_FREE_WHERE_DUE: dict[str, MakeBody] = {
    submit_adapter.KIND: make_submit_adapter,
    confirm_fetched.KIND: make_confirm_fetched,
    vote.KIND: make_vote,
    attest_aggregate.KIND: make_attest_aggregate,
    "judge-final": make_judge_final,
    slash.KIND: make_slash,
}
for _kind, _make in (*_PAID.items(), *_FREE_WHERE_DUE.items()):
    add_command(app, _kind, _make, free=_kind in _FREE_WHERE_DUE)


def _seal(sender: Sender, ballot: Ballot) -> Once:
    """The ballot is on disk before its seal is signed: what cannot be opened is an offence."""
    name = f"task{ballot.task}-round{ballot.round}"
    with sender.outbox() as outbox:
        if outbox.keep(f"{name}-ballot.body", lambda: encode(ballot)) != encode(ballot):
            raise Refused("signed-before", f"this key keeps another ballot for {name}: two sealed votes are evidence")
    salt = compute_salt(sender.signing_key, ballot.task, ballot.round)
    seal = vote.compute_seal(sender.client.network().genesis_hash, ballot, sender.address, salt)
    return Once(f"{name}-seal", vote.Body(ballot.task, ballot.round, seal=seal))


def _find_round(sender: Sender, task: int, number: int | None) -> Json:
    return sender.client.round(task, number if number is not None else sender.client.task(task)["round"])


def _hash_base(ref: str) -> dict[str, str]:
    """What a task says of its base."""
    from hashlib import file_digest

    from ml.base import BaseError, base_hash, prepare_base

    try:
        folder = prepare_base(ref)
        with (folder / "tokenizer.json").open("rb") as file:
            tokenizer_hash = file_digest(file, "sha256").hexdigest()
        return {"model.base_hash": base_hash(folder), "model.tokenizer_hash": tokenizer_hash}
    except (BaseError, OSError) as error:
        raise Refused("bad-base", str(error)) from None
