"""Write the README's tables of figures from `bench/results/`: ``python -m bench.readme``."""

import json
from pathlib import Path
from typing import Any

from bench.report import RESULTS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
LAB_BEGIN, LAB_END = "<!-- lab:begin -->", "<!-- lab:end -->"
BACKDOOR = RESULTS / "lab" / "backdoor-short.json"
ARMS = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fedadam": "FedAdam",
    "flock_paper": "one vote over the whole batch by loss",
    "norm_clip": "clipping to the median norm alone",
    "loss_only": "flockchain, its judges by loss alone",
    "flock": "flockchain",
    "flock_liars": "flockchain, one judge in five seats lying",
}
SHOWN = {
    "demo_s": "`make demo` after set-up",
    "demo_rss_mb": "the same, peak resident memory of all processes, summed",
    "demo_gain_ppm/code": "loss saved by the global adapter on unseen code",
    "demo_gain_ppm/literature": "the same, literature",
    "demo_gain_ppm/medicine": "the same, medicine",
    "demo_tiny_s": "`flockchain demo --model tiny`",
    "honest_rejected": "honest adapters rejected and slashed in each of those runs",
    "honest_left_out": "honest adapters left out, undecided, unpaid and not slashed, in each of those runs",
    "start_s/4_validators": "devnet of 4 validators, from command to height 2",
    "finality_ms_p50/idle": "finality when idle, median, from POST to result readable",
    "finality_ms_p99/idle": "finality when idle, 99th percentile",
    "tx_per_s/4_validators": "transfers sustained for 60 s on 4 validators",
    "tx_per_s/1_validator": "transfers on 1 validator",
    "rss_mb/idle": "resident memory of a node without workers, idle",
    "rest_reads_per_s": "REST reads, one client, 1,000 rounds of 20 verdicts",
    "rest_ms_p95/tasks/1/rounds/n": "one round of them, p95",
    "join_by_snapshot_s": "a new node at height 10,000 by snapshot, from command to the tip",
    "join_by_blocks_per_s": "the same by blocks, the process's start included",
    "snapshot_make_s": "a snapshot of 200,000 accounts, made",
    "snapshot_restore_s": "the same, restored and verified",
    "catch_up_blocks_per_s": "blocks that a new node catches up",
    "rss_mb/full_load": "resident memory of a node under that load",
    "flood_block_interval_ratio/one_client": "block interval under 5,000 transactions/s at one node for 60 s, half "
    "invalid, against the same light load without them",
    "flood_block_interval_ratio/many_clients": "the same from 20 addresses",
    "rss_mb/flood_many_clients": "resident memory of the flooded node",
    "train_tokens_per_s": "training SmolLM2 on 2 CPU threads in bf16, q and v, 4 x 128 tokens a step",
    "train_tokens_per_s/all_linear": "the same, all linear modules",
    "score_tokens_per_s": "judging with it, two adapters over one base, q and v",
    "score_tokens_per_s/all_linear": "the same, all linear modules",
    "adapter_set_extra_mb/write": "a 70B-shaped update of 215 MB at rank 32 quantised and written: memory beyond the "
    "trained factors",
    "adapter_set_extra_mb/upload/node": "a node that is sent ten of them",
    "adapter_set_extra_mb/download": "a judge that fetches the ten",
    "adapter_set_extra_mb/check": "the same judge checking and weighing them",
    "adapter_set_extra_mb/merge": "an attester merging them onto a global adapter of 860 MB",
    "adapter_set_extra_mb/verify": "an auditor doing it again",
    "simulated_heights_per_s": "simulated consensus heights, faults and all",
}


def make_table() -> str:
    """Markdown: what, median, range, runs; and the machine and date of each file."""
    lines = ["| what | median | range | runs |", "|---|---|---|---|"]
    machines: dict[str, set[str]] = {}
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text())
        machines.setdefault(document["machine"], set()).add(document["date"])
        for result in document["results"]:
            found[result["name"]] = result
    for name, text in SHOWN.items():
        if name in found:
            r = found[name]
            ratio = (r.get("peer") or {}).get("ratio_median")
            text += f"; {ratio:.2f} times plain {r['peer']['name']} beside it" if ratio else ""
            lines.append(f"| {text} | {r['median']:g} {r['unit']} | {r['min']:g} to {r['max']:g} | {r['runs']} |")
    for machine, dates in sorted(machines.items()):
        lines += ["", f"Measured on {', '.join(sorted(dates))}: {machine}."]
    return "\n".join(lines)


def make_lab_table() -> str:
    """Markdown: the first backdoor experiment on a real model, an arm a row; then when and where it ran."""
    document = json.loads(BACKDOOR.read_text())
    (seed,) = document["seeds"]
    lines = [
        "| who decides | attack success | gain lost, worst domain | attackers accepted | honest left out, slashed |",
        "|---|---|---|---|---|",
    ]
    for arm, text in ARMS.items():
        cell = document["cells"][f"rare-token/40/seed{seed}/{arm}"]
        asr, lost = cell["asr"], document["figures"][f"gain_lost/rare-token/40/{arm}"]["mean"]
        row = [f"{asr['with_trigger'] * asr['prompts']:.0f} of {asr['prompts']}", f"{100 * lost:.1f} %"]
        if "outcomes" in cell:
            row.append(f"{cell['attackers_accepted']} of {cell['attackers']}")
            row.append(f"{cell['honest_left_out']}, {cell['honest_slashed']}")
        else:
            row += ["all", ""]
        lines.append(f"| {text} | {' | '.join(row)} |")
    return "\n".join([*lines, "", f"Measured on {document['date']}, seed {seed}: {document['machine']}."])


def fill(text: str) -> str:
    """The README with its tables written anew."""
    for begin, end, table in ((BEGIN, END, make_table()), (LAB_BEGIN, LAB_END, make_lab_table())):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    README.write_text(fill(README.read_text()))


if __name__ == "__main__":
    main()
