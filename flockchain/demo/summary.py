"""What the demo came to: as JSON for programs, and in 80 columns for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from flockchain.demo.plan import HONEST, PARTICIPANTS, POISONER
from flockchain.demo.run import Outcome
from flockchain.params import UFLK_PER_FLK


def make_document(outcome: Outcome) -> dict[str, Any]:
    """The document of `flockchain demo --json`."""
    return {
        "home": str(outcome.options.home),
        "api": outcome.devnet.api_urls()[0],
        "seconds": round(outcome.seconds, 1),
        "model": outcome.size.name,
        "validators": len(outcome.state_roots),
        "rounds": [_describe_round(outcome, round_) for round_ in outcome.rounds],
        "loss_ubpb": {d: {"before": b, "after": a} for d, (b, a) in sorted(outcome.losses_ubpb.items())},
        "bonds_uflk": {n: {"before": b, "after": a} for n, (b, a) in sorted(outcome.bonds_uflk.items())},
        "adapter_dir": str(outcome.adapter_dir),
        "height": outcome.height,
        "state_roots": outcome.state_roots,
        "peak_rss_bytes": outcome.peak_rss_bytes,
        "kept_running": outcome.options.keep,
    }


def _describe_round(outcome: Outcome, round_: dict[str, Any]) -> dict[str, Any]:
    name = outcome.names.get
    verdicts = round_["verdicts"]
    return {
        "round": round_["number"],
        "accepted": [name(v["trainer"], v["trainer"]) for v in verdicts if v["outcome"] == "accept"],
        "rejected": [
            {"trainer": name(v["trainer"], v["trainer"]), "reasons": [v["reason"]], "slashed_uflk": v["slashed_uflk"]}
            for v in verdicts
            if v["outcome"] == "reject"
        ],
        "others": [
            {"trainer": name(v["trainer"], v["trainer"]), "outcome": v["outcome"], "reason": v["reason"]}
            for v in verdicts
            if v["outcome"] not in ("accept", "reject")
        ],
        "outcome": round_["outcome"],
        "aggregate_root": round_["result_root"],
    }


def print_summary(outcome: Outcome, console: Console) -> None:
    """Tables of at most 80 columns."""
    console.print()
    _print_losses(outcome, console)
    _print_verdicts(outcome, console)
    _print_bonds(outcome, console)
    agreed = len(set(outcome.state_roots)) == 1
    console.print(
        f"state root after block {outcome.height}, {'equal on' if agreed else 'DIFFERENT AMONG'} all "
        f"{len(outcome.state_roots)} nodes:\n  {' '.join(sorted(set(outcome.state_roots)))}"
    )
    console.print(f"global adapter (PEFT): {outcome.adapter_dir}", soft_wrap=True)
    console.print(f"  check it without this project: python {outcome.adapter_dir}/check.py", soft_wrap=True)
    console.print(f"audit everything: flockchain verify --home {outcome.devnet.home} --index 0", soft_wrap=True)
    url = outcome.devnet.api_urls()[0]
    state = "running" if outcome.options.keep else f"stopped; resume: flockchain devnet up --home {outcome.devnet.home}"
    console.print(f"REST and explorer: {url} ({state})", soft_wrap=True)
    console.print(
        f"{outcome.seconds:.0f} s, at most {outcome.peak_rss_bytes / 2**30:.1f} GiB resident in all processes"
    )


def _print_losses(outcome: Outcome, console: Console) -> None:
    table = Table(title="Loss on unseen text, bits per byte", title_justify="left", box=None)
    table.add_column("domain")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for domain, (before, after) in sorted(outcome.losses_ubpb.items()):
        change = 100 * (after - before) / before
        table.add_row(domain, f"{before / 1e6:.4f}", f"{after / 1e6:.4f}", f"{change:+.1f} %")
    console.print(table)


def _print_verdicts(outcome: Outcome, console: Console) -> None:
    table = Table(title="\nVerdicts", title_justify="left", box=None)
    table.add_column("round", justify="right")
    table.add_column("trainer", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("reason", overflow="fold")
    order = {name: i for i, name in enumerate((*HONEST, POISONER))}
    for round_ in outcome.rounds:
        for verdict in sorted(round_["verdicts"], key=lambda v: order.get(outcome.names.get(v["trainer"], ""), 99)):
            name = outcome.names.get(verdict["trainer"], verdict["trainer"])
            table.add_row(str(round_["number"]), name, verdict["outcome"], verdict["reason"])
    console.print(table)


def _print_bonds(outcome: Outcome, console: Console) -> None:
    table = Table(title="\nBonds in FLK", title_justify="left", box=None)
    table.add_column("participant")
    for column in ("before", "after", "slashed", "earned"):
        table.add_column(column, justify="right")
    for name in PARTICIPANTS:
        before, after = outcome.bonds_uflk[name]
        earned = sum(
            int(reward["amount_uflk"])
            for round_ in outcome.rounds
            for reward in round_["rewards"]
            if outcome.names.get(reward["account"]) == name
        )
        table.add_row(name, _flk(before), _flk(after), _flk(before - after), _flk(earned))
    console.print(table)
    console.print()


def _flk(amount_uflk: int) -> str:
    return f"{amount_uflk / UFLK_PER_FLK:,.2f}"
