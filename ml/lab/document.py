"""What a run leaves: `bench/results/lab/NAME.json`, and from it alone the report `docs/results/NAME.md`."""

import json
import os
import platform
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ml.lab import Json, LabError
from ml.lab.cells import list_all, read_facts, read_result
from ml.lab.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS, REPORTS = ROOT / "bench" / "results" / "lab", ROOT / "docs" / "results"
WIDTH = 118
PACKAGES = ("torch", "transformers", "peft", "numpy")


def make_document(settings: Settings, folder: Path, *, jobs: int) -> Json:
    """Everything of a finished run: where and how it ran, every planned cell's result, and the named figures."""
    module = settings.get_module()
    planned = module.plan(settings)
    results = {cell.name: read_result(folder, cell) for cell in planned}
    missing = sorted(name for name, result in results.items() if result is None)
    if missing:
        raise LabError(f"{len(missing)} cells have not run, first {missing[0]}: run the experiment again, it goes on")
    facts = [read_facts(folder, cell) for cell in list_all(planned)]
    return {
        "experiment": settings.name,
        "module": settings.module,
        "title": settings.title,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "command": describe_command(),
        "commits": sorted({fact["commit"] for fact in facts}),
        "versions": describe_versions(PACKAGES),
        "processes": jobs,
        "process_seconds": round(sum(fact["seconds"] for fact in facts), 1),
        "seeds": list(settings.seeds),
        "settings": settings.values,
        "figures": module.summarize(settings, results),
        "cells": results,
    }


def save(document: Json, results: Path = RESULTS, reports: Path = REPORTS) -> list[Path]:
    """Write the JSON, the report and, where matplotlib is at hand, the plots; the files written."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{document['experiment']}.json"
    path.write_text(encode_document(document), encoding="utf-8")
    return [path, *write_report(document, reports)]


def encode_document(document: Json) -> str:
    """JSON, each cell on one line: some hold thousands of numbers."""
    cells = (
        f"{json.dumps(name)}: {json.dumps(cell, sort_keys=True)}" for name, cell in sorted(document["cells"].items())
    )
    rest = {name: value for name, value in document.items() if name != "cells"}
    lines = ",\n  ".join(cells)
    return f'{{\n "cells": {{\n  {lines}\n }},' + json.dumps(rest, indent=1, sort_keys=True)[1:] + "\n"


def write_report(document: Json, reports: Path = REPORTS) -> list[Path]:
    """The Markdown report and its plots, from the document alone."""
    from importlib import import_module

    module = import_module(f"ml.lab.{document['module']}")
    reports.mkdir(parents=True, exist_ok=True)
    plots = list(module.plot(document, reports)) if hasattr(module, "plot") else []
    text = "\n\n".join([_make_head(document), *(f"![{p.stem}]({p.name})" for p in plots), module.report(document)])
    path = reports / f"{document['experiment']}.md"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return [path, *plots]


def read_document(name: str, results: Path = RESULTS) -> Json:
    """A kept document. Raises LabError."""
    path = results / f"{name}.json"
    try:
        found: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"{name} has no results: run `flockchain lab run {name}`") from None
    return found


def _make_head(document: Json) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in sorted(document["versions"].items()))
    facts = (
        f"machine: {document['machine']}, {document['processes']} processes, "
        f"{document['process_seconds'] / 60:.0f} process minutes",
        f"versions: {versions}; commit {', '.join(document['commits'])}",
        f"seeds: {', '.join(str(seed) for seed in document['seeds'])}",
        f"every figure, every seed and all settings: `bench/results/lab/{document['experiment']}.json`",
        "what the names mean: [the lab](../lab.md)",
    )
    written = f"Written by `{document['command']}` on {document['date']}; do not edit."
    return "\n\n".join([f"# {document['title']}", wrap(written), "\n".join(wrap(f"- {fact}", "  ") for fact in facts)])


def wrap(text: str, indent: str = "") -> str:
    """Within the width that the project's documents keep."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def describe_machine() -> str:
    """Processor or GPU, cores and memory."""
    model = platform.processor() or "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Python {platform.python_version()}"


def describe_command() -> str:
    name = Path(sys.argv[0]).name
    return shlex.join(["flockchain" if name in ("flockchain", "__main__.py") else name, *sys.argv[1:]])


def describe_versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def find_commit() -> str:
    """Short hash of the checked-out commit, `+` for changed files; empty outside a checkout."""
    run = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(run, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    except OSError:
        return ""
    return done.stdout.strip()
