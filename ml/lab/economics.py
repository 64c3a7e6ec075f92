"""`economics`: whom the rules make richer. Thousands of rounds of the real ledger on measured verdict statistics.

Each cell is one task (`ml/lab/game.py`): its trainers submit real adapters of the bank, its judges hold documents of
the bank, and all that follows (draws, verdicts, penalties, rewards) is execution's.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flockchain.params import UFLK_PER_FLK
from ml.lab import Json
from ml.lab.bank import plan_bank, read_bank
from ml.lab.cells import Cell, Work
from ml.lab.game import MIN_BOND_UFLK, TRUTHFUL, Game
from ml.lab.settings import Settings
from ml.lab.statistics import compute_mean, compute_rate_bound, compute_upper_bound

GROUPS = ("honest trainers", "bad trainers", "honest judges", "bad judges")
ONE = "one"


def plan(settings: Settings) -> list[Cell]:
    """Liars and poisoners by share; then each attack on votes, by one judge and by the usual share; then sybils."""
    usual, bank = settings["usual_share"], tuple(plan_bank(settings))
    grid = [
        (t, j, "lying_judge" if j else TRUTHFUL) for t in settings["trainer_shares"] for j in settings["judge_shares"]
    ]
    attacks = [(usual, judges, vote) for vote in (TRUTHFUL, *settings["votes"]) for judges in (ONE, usual)]
    games = [
        {"rule": rule, "trainers": trainers, "judges": judges, "vote": vote, "split": 1}
        for rule in settings["rules"]
        for trainers, judges, vote in dict.fromkeys([*grid, *attacks])
    ]
    games += [
        {"rule": rule, "trainers": usual, "judges": usual, "vote": TRUTHFUL, "split": settings["task"]["bond_tickets"]}
        for rule in settings["rules"]
    ]
    shared = {"task": settings["task"], "domains": sorted(settings["bank"]["domains"])}
    return [
        Cell(f"{_name(game)}/seed-{seed}", "ml.lab.economics:play", {**shared, **game, "seed": seed}, bank)
        for game in games
        for seed in settings.seeds
    ]


def _name(game: Mapping[str, Any]) -> str:
    split = f"/split-{game['split']}" if game["split"] > 1 else ""
    return f"{game['rule']}/trainers-{game['trainers']}/judges-{game['judges']}/{game['vote']}{split}"


def play(work: Work) -> Json:
    """One task of so many rounds; what everybody had and has, and what was decided."""
    game = Game(read_bank(work.cell.needs, work), work.settings)
    for _ in range(work.settings["task"]["rounds"]):
        if not game.play_round():
            break
    game.ledger.check()
    return game.describe()


def summarize(settings: Settings, results: Mapping[str, Json]) -> Json:
    """By game and quantity: mean over seeds, upper 95 % bound, every seed."""
    figures: Json = {}
    for name in dict.fromkeys(name.rpartition("/seed-")[0] for name in results):
        found = [results[f"{name}/seed-{seed}"] for seed in settings.seeds]
        described = [_describe(one) for one in found]
        for what in described[0]:
            values = [one[what] for one in described]
            known = [value for value in values if value is not None]
            mean = compute_mean(known) if known else None
            upper = compute_upper_bound(known) if known else None
            figures[f"{name}/{what}"] = {"mean": mean, "upper": upper, "n": len(known), "by_seed": values}
    return figures


def _describe(result: Json) -> dict[str, float | None]:
    """One game in figures. Money is in percent of what the group had staked."""
    counts, groups = result["counts"], result["groups"]

    def share(part: str, *whole: str) -> float | None:
        total = sum(counts.get(name, 0) for name in whole)
        return counts.get(part, 0) / total if total else None

    paid = ("honest trainers' reward", "bad trainers' reward")
    found: dict[str, float | None] = {
        "rounds": counts["rounds"],
        "stolen reward": share(paid[1], *paid),
        "honest left out": None,
        "honest slashed": share("honest slashed", "honest submitted"),
        "bad accepted": share("bad accept", "bad submitted"),
        "settled": share("settled", "rounds"),
        "batch: honest slashed": share("batch honest slashed", "honest submitted"),
        "batch: bad adapter accepted": share("batch accepted with a bad adapter", "rounds"),
    }
    accepted = share("honest accept", "honest submitted")
    found["honest left out"] = None if accepted is None else 1 - accepted
    for what in GROUPS:
        if what in groups:
            group = groups[what]
            found[f"{what}: net"] = group["net_uflk"] / group["staked_uflk"]
            found[f"{what}: mean bond FLK"] = group["bond_uflk"] / group["accounts"] / UFLK_PER_FLK
            found[f"{what}: below minimum"] = group["below_minimum"] / group["accounts"]
    return found


def report(document: Json) -> str:
    """The tables, from the document alone."""
    settings = document["settings"]
    task, rules = settings["task"], settings["rules"]
    rounds = sum(cell["counts"]["rounds"] for cell in document["cells"].values())
    bad, honest = len(settings["bank"]["attacks"]) * settings["bank"]["malicious"], settings["bank"]["honest"]
    adapters = bad + honest * len(settings["bank"]["domains"])
    submitted = sum(cell["counts"].get("honest submitted", 0) for cell in document["cells"].values())
    slashed = sum(cell["counts"].get("honest slashed", 0) for cell in document["cells"].values())
    parts = [
        f"{rounds:,} rounds of the real ledger. {adapters} real adapters of the {settings['bank']['base']} model, "
        f"measured on {settings['bank']['pool_documents']} documents of each domain; every judge holds "
        f"{task['documents']} of these. {task['trainers']} trainers and {task['judges']} judges, "
        f"{task['trainers_drawn']} and {task['seats']} seats drawn a round, {task['rounds']} rounds a task, bonds of "
        f"{task['bond_tickets']} minimum bonds of {MIN_BOND_UFLK // UFLK_PER_FLK} FLK. Bad trainers send "
        f"{', '.join(settings['bank']['attacks'])}. Net is what a group won or lost, in percent of what it staked; "
        "stolen is the part of the trainers' reward that bad trainers got. Effects of several adapters together are "
        "taken to the first order, here and for the batch.",
        f"Honest proposals slashed over all games: {slashed} of {submitted:,} "
        f"(95 % upper bound {compute_rate_bound(slashed, submitted):.2e} as if independent; adapters repeat).",
    ]
    for rule in rules:
        parts += [f"## Rule `{rule}`: poisoners and liars", _make_grid(document, rule)]
    parts += ["## Attacks on votes", _make_attacks(document), *_make_answers(document)]
    return "\n\n".join(parts)


def _make_grid(document: Json, rule: str) -> str:
    columns = ("stolen reward", "honest left out", "honest slashed", "settled", *(f"{g}: net" for g in GROUPS))
    more = ("bad trainers: mean bond FLK", "batch: honest slashed")
    head = [
        "| bad trainers | lying judges | stolen | honest left out | honest slashed | settled "
        "| net: honest trainers | bad trainers | honest judges | lying judges "
        "| bad trainers' mean bond, FLK | batch verdict: honest slashed |",
        "|" + "---|" * 12,
    ]
    settings = document["settings"]
    for trainers in settings["trainer_shares"]:
        for judges in settings["judge_shares"]:
            vote = "lying_judge" if judges else TRUTHFUL
            name = f"{rule}/trainers-{trainers}/judges-{judges}/{vote}"
            cells = [_format(document, f"{name}/{what}") for what in columns]
            bond, batch = (_format(document, f"{name}/{what}", percent=not what.endswith("FLK")) for what in more)
            head.append(f"| {trainers:.0%} | {judges:.0%} | " + " | ".join([*cells, bond, batch]) + " |")
    return "\n".join(head)


def _make_attacks(document: Json) -> str:
    """What each attack brings its judges, beside what honest judges of the same game have."""
    settings = document["settings"]
    lines = [
        "One judge alone, then the usual share together; net of the attackers, of the honest judges of the same game, "
        "and the reward that bad trainers stole.\n",
        "| rule | attack | by | attackers' net | honest judges' net | stolen |",
        "|---|---|---|---|---|---|",
    ]
    games = [(vote, by, "") for vote in (TRUTHFUL, *settings["votes"]) for by in (ONE, settings["usual_share"])]
    games.append((TRUTHFUL, settings["usual_share"], f"/split-{settings['task']['bond_tickets']}"))
    for rule in settings["rules"]:
        for vote, by, split in games:
            name = f"{rule}/trainers-{settings['usual_share']}/judges-{by}/{vote}{split}"
            cells = [
                _format(document, f"{name}/{what}")
                for what in ("bad judges: net", "honest judges: net", "stolen reward")
            ]
            what = f"{vote}, stake split over {settings['task']['bond_tickets']} accounts" if split else vote
            lines.append(f"| {rule} | {what} | {by if by == ONE else f'{by:.0%}'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _make_answers(document: Json) -> Iterable[str]:
    """Is honesty the best response, by rule: attacks by one judge that brought it more than honesty brought it."""
    settings, figures = document["settings"], document["figures"]
    yield "## Is honesty the best response?"
    for rule in settings["rules"]:
        place = f"{rule}/trainers-{settings['usual_share']}/judges-{ONE}"
        honest = figures[f"{place}/{TRUTHFUL}/bad judges: net"]["mean"]
        better = {
            vote: figures[f"{place}/{vote}/bad judges: net"]["mean"] - honest
            for vote in settings["votes"]
            if figures[f"{place}/{vote}/bad judges: net"]["mean"] > honest
        }
        named = ", ".join(f"`{vote}` (+{gain:.1%} of its stake)" for vote, gain in sorted(better.items()))
        yield (
            f"`{rule}`: a single judge among honest ones won {honest:.1%} of its stake by honesty; "
            + (f"more by {named}." if named else "less by every attack.")
        )


def _format(document: Json, name: str, *, percent: bool = True) -> str:
    figure = document["figures"].get(name)
    if figure is None or figure["mean"] is None:
        return ""
    return f"{figure['mean']:.1%}" if percent else f"{figure['mean']:.1f}"


def plot(document: Json, folder: Path) -> Sequence[Path]:
    """Net of each group over the share of bad trainers, at the usual share of liars; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    settings = document["settings"]
    figure = Figure(figsize=(4 * len(settings["rules"]), 3.2), layout="constrained")
    axes = figure.subplots(1, len(settings["rules"]), sharey=True, squeeze=False)[0]
    judges = (
        settings["usual_share"] if settings["usual_share"] in settings["judge_shares"] else settings["judge_shares"][-1]
    )
    vote = "lying_judge" if judges else TRUTHFUL
    for ax, rule in zip(axes, settings["rules"], strict=True):
        for what in GROUPS:
            points = [
                (share, document["figures"].get(f"{rule}/trainers-{share}/judges-{judges}/{vote}/{what}: net"))
                for share in settings["trainer_shares"]
            ]
            known = [
                (100 * share, 100 * point["mean"]) for share, point in points if point and point["mean"] is not None
            ]
            ax.plot([x for x, _ in known], [y for _, y in known], marker="o", label=what)
        ax.axhline(0, color="grey", linewidth=0.5)
        ax.set(title=rule, xlabel="bad trainers, %")
    axes[0].set_ylabel(f"net, % of stake, {judges:.0%} liars")
    axes[-1].legend(fontsize="x-small")
    path = folder / "economics.svg"
    figure.savefig(path, metadata={"Date": None})
    return [path]
