"""The main job as a whole: time, memory, and whether an honest trainer was ever refused."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.report import Result, save, summarize

DEMO_TIMEOUT_S = 1_800


def measure_demo(model: str, runs: int) -> list[Result]:
    """`flockchain demo --model MODEL`, each run with another seed. Times include everything after set-up."""
    documents = []
    for seed in range(runs):
        documents.append(run_demo(model, seed))
        save(f"demo-{model}", make_results(model, documents))  # hours of work do not depend on the last run
    return make_results(model, documents)


def make_results(model: str, documents: list[dict[str, Any]]) -> list[Result]:
    """Over the runs so far."""
    rejected = [len(get_honest(document, "rejected")) for document in documents]
    left_out = [get_honest(document, "others") for document in documents]
    caught = [count_poisoner_rejected(document) for document in documents]
    if model == "tiny":
        return [summarize("demo_tiny_s", "s", [d["seconds"] for d in documents])]
    return [
        summarize("demo_s", "s", [d["seconds"] for d in documents]),
        summarize("demo_rss_mb", "MiB", [d["peak_rss_bytes"] / 2**20 for d in documents], digits=0),
        summarize("honest_rejected", "adapters", rejected, digits=0, poisoner_rejected_per_run=caught),
        summarize("honest_left_out", "adapters", [len(x) for x in left_out], digits=0, reasons_per_run=left_out),
        *(
            summarize(
                f"demo_gain_ppm/{domain}",
                "ppm",
                [1e6 * (x["before"] - x["after"]) / x["before"] for x in (d["loss_ubpb"][domain] for d in documents)],
                digits=0,
            )
            for domain in sorted(documents[0]["loss_ubpb"])
        ),
    ]


def run_demo(model: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="flockchain-bench-") as folder:
        command = [sys.executable, "-m", "flockchain", "demo", "--model", model, "--seed", str(seed), "--json"]
        done = subprocess.run(
            [*command, "--home", str(Path(folder) / "demo")], capture_output=True, timeout=DEMO_TIMEOUT_S, check=False
        )
    if done.returncode:
        raise SystemExit(f"demo with seed {seed} failed: {done.stderr.decode()[-2000:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def get_honest(document: dict[str, Any], group: str) -> list[dict[str, Any]]:
    """Honest adapters of all rounds that were "rejected" (and slashed), or left out and not slashed ("others")."""
    return [
        {"round": round_["round"], **item}
        for round_ in document["rounds"]
        for item in round_[group]
        if item["trainer"] != "poisoner"
    ]


def count_poisoner_rejected(document: dict[str, Any]) -> int:
    return sum(item["trainer"] == "poisoner" for round_ in document["rounds"] for item in round_["rejected"])
