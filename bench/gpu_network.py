"""Stages of the script for GPUs that are about the network: aggregation of large files, verdicts, a whole task."""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.gpu_run import ADAPTERS, RANK, Run
from bench.report import summarize
from bench.shapes import SHAPES
from bench.training import ALL_LINEAR

DEMO_ROUNDS = 10
DEMO_TIMEOUT_S = 560


def measure_aggregate(run: Run) -> None:
    """Ten adapters of the largest shape, from files to a file: mean with a norm clip, and coordinate-wise median."""
    import numpy as np

    from bench.peak_memory import watch
    from ml.adapter import make_global_manifest, make_update_manifest, write_update
    from ml.merging import merge_files
    from ml.spec import AdapterSpec

    shape = run.shapes[-1]
    spec = AdapterSpec("", RANK, 2 * RANK, ALL_LINEAR, "shared_a", b"bench", -11).with_shapes(SHAPES[shape])
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="flockchain-bench-") as name:
        paths = [Path(name) / f"{number}.safetensors" for number in range(ADAPTERS)]
        for number, path in enumerate(paths):
            update = {m: random.integers(-60, 61, (out, RANK), np.int8) for m, out, _ in spec.shapes}
            manifest = make_update_manifest(spec, task=1, round=1, trainer=str(number), base_root="")
            write_update(path, update, manifest)
        size = paths[0].stat().st_size
        for rule in ("mean_norm_clip", "coordinate_median"):
            files, out = {path.stem: path for path in paths}, Path(name) / "candidate"
            with watch() as held:
                merge_files(rule, files, None, out, spec, make_global_manifest(spec, task=1, round=1))
            notes = {"adapter_bytes": size, "extra_bytes": held.extra_bytes}
            run.results.append(summarize(f"aggregate_s/{rule}/10x{shape}", "s", [held.seconds], 2, **notes))
            run.save()


def measure_verdicts(run: Run) -> None:
    """A judge on the CPU and one on this device over the test set of adapters, in bf16 and in NF4."""
    from bench.verdicts import compare_judges

    model = "tiny" if list(run.shapes) == ["tiny-shaped"] else "demo"
    for dtype in ("bf16", "nf4") if run.four_bit else ("bf16",):
        run.results += compare_judges(model, run.device, dtype)
        run.save()


def measure_task(run: Run) -> None:
    """A real task of many rounds: network, trainers and judges on this machine, SmolLM2 on this device."""
    tiny = run.shapes == ["tiny-shaped"]
    missing = [name for name in ("nacl", "msgspec", "sqlalchemy", "fastapi") if not importlib.util.find_spec(name)]
    if missing or tiny:
        why = f"{', '.join(missing)} missing" if missing else "the tiny shape has a demo of its own (tests/demo)"
        run.notes["task"] = f"skipped: {why}"
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flockchain-bench-") as name:
        command = [sys.executable, "-m", "flockchain", "demo", "--json", "--device", run.device]
        command += ["--rounds", str(DEMO_ROUNDS), "--home", str(Path(name) / "demo")]
        done = subprocess.run(
            command, capture_output=True, timeout=min(DEMO_TIMEOUT_S, max(30.0, run.left_s)), check=False
        )
    if done.returncode:
        run.notes["task/failed"] = done.stderr.decode()[-800:]
        return
    document = json.loads(done.stdout)
    seconds = time.monotonic() - began
    notes = {"loss_ubpb": document["loss_ubpb"], "rounds": len(document["rounds"]), "model": document["model"]}
    run.results.append(summarize(f"task_s/{DEMO_ROUNDS}_rounds", "s", [seconds], **notes))
