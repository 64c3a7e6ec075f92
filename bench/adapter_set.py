"""A round's adapters of gigabytes, from trained factors to the audited global adapter, with the memory of each step.

`python -m bench adapter-set`: ten updates of a 70B-shaped model at rank 32, 215 MB each; a global adapter of 860 MB.
Real are files, roots, quantisation, HTTP between processes, checks, norms, cosines, aggregation and audit. Not there
are a base (the values are random, so nobody trains or scores them) and a network of nodes: one node serves all.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.adapter_set_steps import FORMS, AdapterSet, Form
from bench.peak_memory import watch
from bench.report import Result
from ml.canonical import require_space
from ml.environment import make_environment

MB = 10**6
BLOCK_MB = 32
"""What is not an adapter: one module of each update, blocks of float64, buffers of files and sockets."""
LIMIT_ADAPTERS = 1.2
FEW = 3
"""Submissions beside which all of them are to take no more memory."""
STEP_TIMEOUT_S = 7_200


def measure_adapter_set(name: str = "70B", *, with_few: bool = True, with_control: bool = False) -> list[Result]:
    """A figure for each step: megabytes above what its process held before it, at most.

    `with_few`: the steps that look at all updates also with three. `with_control`: the checks on mapped files too.
    """
    form = FORMS[name]
    with tempfile.TemporaryDirectory(prefix="flockchain-bench-") as folder:
        require_space(Path(folder), count_disk_bytes(form))
        told = dict(_run_all(name, Path(folder), with_few=with_few, with_control=with_control))
    adapter_mb = told["hash"]["size_bytes"] / MB
    problems = [*told["verify"]["problems"], *("an update was lost" for _ in range(told["download"]["missing"]))]
    if problems or told["verify"]["adapters"] != 1 or told["check"]["refused"]:
        raise SystemExit(f"the round went wrong: {problems or told}")
    return [_make_result(step, found, form, adapter_mb) for step, found in told.items()]


def count_disk_bytes(form: Form) -> int:
    """Most that lies on the disk at once: every update twice while they travel, then updates and three globals."""
    spec = AdapterSet(form, Path()).spec
    update_bytes = sum(out * spec.rank for _, out, _ in spec.shapes)
    return update_bytes * max(2 * form.count + 5, form.count + 12) + MB


def _run_all(name: str, folder: Path, *, with_few: bool, with_control: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(step, what it told)."""
    for step in ("write_base", "write", "hash"):
        yield step, _run(step, name, folder)
    with _run_node(name, folder) as (url, pid):
        for step in ("upload", "download"):
            with watch(pid) as node:
                yield step, _run(step, name, folder, url)
            yield f"{step}/node", asdict(node)
    for path in (folder / "node" / "blobs").iterdir():
        path.unlink()
    for step in ("check", "merge"):
        if with_few:
            yield f"{step}/{FEW}", _run(step, name, folder, str(FEW))
        yield step, _run(step, name, folder)
    if with_control:
        yield "check_mapped", _run("check_mapped", name, folder)
    yield "verify", _run("verify", name, folder)


def _run(step: str, name: str, folder: Path, *options: str) -> dict[str, Any]:
    """What the step told. Raises SystemExit with its last words when it failed."""
    command = [sys.executable, "-m", "bench.adapter_set_steps", step, name, str(folder), *options]
    done = subprocess.run(command, capture_output=True, env=make_environment(1), timeout=STEP_TIMEOUT_S, check=False)
    if done.returncode:
        raise SystemExit(f"step {step} failed: {done.stderr.decode()[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    print(f"  {step}: {told['extra_bytes'] / MB:.1f} MB, {told['seconds']:.1f} s", file=sys.stderr, flush=True)
    return told


@contextmanager
def _run_node(name: str, folder: Path) -> Iterator[tuple[str, int]]:
    """(address, pid) of the node's process; it ends when its stdin does."""
    command = [sys.executable, "-m", "bench.adapter_set_node", name, str(folder)]
    node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=make_environment(1))
    assert node.stdin is not None
    assert node.stdout is not None
    try:
        yield json.loads(node.stdout.readline())["url"], node.pid
    finally:
        node.stdin.close()
        node.wait(timeout=STEP_TIMEOUT_S)
        node.stdout.close()


def _make_result(step: str, told: dict[str, Any], form: Form, adapter_mb: float) -> Result:
    extra_mb = round(told["extra_bytes"] / MB, 1)
    notes = {
        "shape": form.shape,
        "rank": form.rank,
        "adapters": int(step.partition("/")[2]) if step[-1].isdigit() else form.count,
        "adapter_mb": round(adapter_mb, 1),
        "held_before_mb": round(told["before_bytes"] / MB, 1),
        "limit_mb": round(LIMIT_ADAPTERS * adapter_mb + BLOCK_MB, 1),
        "seconds": round(told["seconds"], 1),
    }
    return Result(f"adapter_set_extra_mb/{step}", "MB", extra_mb, extra_mb, extra_mb, 1, notes=notes)
