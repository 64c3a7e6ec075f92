"""The steps of a round's adapters, each a process of its own: `python -m bench.adapter_set_steps STEP FORM FOLDER`.

A step tells one line of JSON: what it held above its beginning, its seconds, and what it found. The code is the
participants': quantisation, files and roots of a trainer, upload and download of the client, checks and weighing of a
judge, the merge of an attester, the audit of `flockchain verify`.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.peak_memory import watch
from bench.shapes import SHAPES
from flockchain.chunks import compute_file_root
from flockchain.client import Client
from flockchain.crypto import address_of, format_address, sha256
from flockchain.types.rows import Adapter, Submission, Task, TrainingRound, Verdict
from flockchain.types.task import Coefficient
from flockchain.verify.adapters import AdapterAuditor, make_bare_spec
from flockchain.verify.report import Report
from flockchain.verify.rounds import SettledRound
from ml.adapter import (
    make_global_manifest,
    make_update_manifest,
    open_update,
    read_update,
    write_global_stream,
    write_update,
)
from ml.canonical import Array
from ml.judge import Submission as Sent
from ml.judge import check_submissions, weigh
from ml.merging import merge_files
from ml.quantise import quantise
from ml.spec import AdapterSpec
from tests.api.rows import TASK, make_round

ALL_LINEAR = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
LIMIT = 60
"""Of the updates' random values, in steps of the grid."""


@dataclass(frozen=True)
class Form:
    """A set of adapters."""

    shape: str
    rank: int
    count: int


FORMS = {"70B": Form("70B-shaped", 32, 10), "small": Form("small-wide", 8, 4)}
SMALL_WIDE = {
    "hidden_size": 64,
    "intermediate_size": 32_768,
    "num_hidden_layers": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""An adapter of 13 MB in modules of a fiftieth, cheap to multiply: for the test."""
CONFIGS: Mapping[str, Mapping[str, Any]] = {**SHAPES, "small-wide": SMALL_WIDE}


class AdapterSet:
    """One round of one task, in which `count` trainers submit updates of random values; and where its files lie."""

    def __init__(self, form: Form, folder: Path) -> None:
        self.form, self.folder = form, folder
        self.task = _make_task(form)
        self.spec: AdapterSpec = make_bare_spec(self.task).with_shapes(CONFIGS[form.shape])
        self.trainers = [address_of(sha256(b"trainer", bytes([number]))) for number in range(form.count)]

    def path(self, who: str, name: str) -> Path:
        (self.folder / who).mkdir(exist_ok=True)
        return self.folder / who / f"{name}.safetensors"

    def read_roots(self) -> dict[str, int]:
        """Root of each update -> number of its trainer."""
        return {str(root): number for number, root in enumerate(self._read("roots"))}

    @property
    def base_root(self) -> str:
        return str(self._read("base"))

    def keep(self, name: str, facts: Any) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(facts))

    def _read(self, name: str) -> Any:
        return json.loads((self.folder / f"{name}.json").read_text())

    def make_manifest(self, number: int) -> dict[str, str]:
        trainer = format_address(self.trainers[number])
        return make_update_manifest(self.spec, task=1, round=2, trainer=trainer, base_root=self.base_root)

    def make_adapter(self, root: str) -> Adapter:
        number = self.read_roots()[root]
        return Adapter(bytes.fromhex(root), "update", 1, 2, self.trainers[number], self.size_bytes)

    @property
    def candidate(self) -> tuple[str, int, dict[str, int]]:
        """(root, bytes, coefficients in ppm by root)."""
        root, size_bytes, coefficients = self._read("candidate")
        return root, size_bytes, coefficients

    @property
    def size_bytes(self) -> int:
        return int(self._read("size"))


def _make_task(form: Form) -> Task:
    model = msgspec.structs.replace(
        TASK.spec.model, name=form.shape, rank=form.rank, alpha=form.rank, target_modules=ALL_LINEAR
    )
    return msgspec.structs.replace(TASK, round=2, spec=msgspec.structs.replace(TASK.spec, model=model))


# ---- the steps; each says what it found ----


def write_base(given: AdapterSet) -> dict[str, Any]:
    """The global adapter of the round before, int32."""
    random = np.random.default_rng(99)

    def draw() -> Iterator[tuple[str, Array]]:
        for module, out, _ in given.spec.shapes:
            yield module, random.integers(-(2**15), 2**15, (out, given.spec.rank), np.int32)

    path = given.path("judge", "base")
    write_global_stream(path, draw(), given.spec, make_global_manifest(given.spec, task=1, round=1))
    root, size_bytes = compute_file_root(path)
    given.keep("base", root.hex())
    return {"size_bytes": size_bytes}


def write_updates(given: AdapterSet) -> dict[str, Any]:
    """Trained factors onto the grid, and the file: what a trainer does after its last step, one trainer at a time."""
    for number in range(given.form.count):
        update, _ = quantise(_draw_moves(given.spec, number), given.spec)
        write_update(given.path("trainers", str(number)), update, given.make_manifest(number))
        del update
    return {}


def _draw_moves(spec: AdapterSpec, seed: int) -> Iterator[tuple[str, Array]]:
    """As training leaves them, but random: no two trainers alike, none larger than the others."""
    random, step = np.random.default_rng(seed), 2.0**spec.update_step_log2
    for module, out, _ in spec.shapes:
        yield module, random.integers(-LIMIT, LIMIT, (out, spec.rank), np.int8, endpoint=True).astype(np.float64) * step


def hash_updates(given: AdapterSet) -> dict[str, Any]:
    roots = []
    for number in range(given.form.count):
        path = given.path("trainers", str(number))
        root, size_bytes = compute_file_root(path)
        path.replace(given.path("trainers", root.hex()))
        roots.append(root.hex())
        given.keep("size", size_bytes)
    given.keep("roots", roots)
    return {"size_bytes": given.size_bytes}


def upload(given: AdapterSet, url: str) -> dict[str, Any]:
    """Each trainer to the node; its own copy goes, for the sake of the disk."""
    with Client([url]) as client:
        for root in given.read_roots():
            path = given.path("trainers", root)
            client.put_blob(bytes.fromhex(root), path)
            path.unlink()
    return {}


def download(given: AdapterSet, url: str) -> dict[str, Any]:
    with Client([url]) as client:
        missing = [
            root for root in given.read_roots() if not client.get_blob(bytes.fromhex(root), given.path("judge", root))
        ]
    return {"missing": len(missing)}


def check(given: AdapterSet, count: str = "") -> dict[str, Any]:
    """A judge's ingress checks, norms, cosines and coefficients of the first `count`, or of all."""
    refused, norms2 = _check_files(given, int(count or given.form.count))
    updates = {root: open_update(given.path("judge", root), given.spec) for root in norms2}
    weighed = weigh(updates, norms2, given.spec)
    return {"refused": len(refused), "copies": len(weighed.copies), "parts": weighed.parts}


def check_mapped(given: AdapterSet) -> dict[str, Any]:
    """The control: the same with every file mapped, as before memory was looked at."""
    _, norms2 = _check_files(given, given.form.count)
    weigh({root: read_update(given.path("judge", root), given.spec)[0] for root in norms2}, norms2, given.spec)
    return {}


def _check_files(given: AdapterSet, count: int) -> tuple[Mapping[str, Any], dict[str, int]]:
    roots = list(given.read_roots().items())[:count]
    sent = [Sent(root, given.path("judge", root), given.make_manifest(number)) for root, number in roots]
    return check_submissions(given.spec, sent, max_bytes=given.size_bytes, norm_cap=0)


def merge(given: AdapterSet, count: str = "") -> dict[str, Any]:
    """The candidate for the next global adapter, as an attester makes it."""
    roots = list(given.read_roots())[: int(count or given.form.count)]
    paths, out = {root: given.path("judge", root) for root in roots}, given.path("judge", "candidate")
    manifest = make_global_manifest(given.spec, task=1, round=2)
    found = merge_files("mean_norm_clip", paths, given.path("judge", "base"), out, given.spec, manifest)
    root, size_bytes = compute_file_root(out)
    given.keep("candidate", [root.hex(), size_bytes, found])
    return {"candidate_bytes": size_bytes, "adapters": len(roots)}


def verify(given: AdapterSet) -> dict[str, Any]:
    """`flockchain verify` on the settled round: the global adapter again from the accepted updates."""
    report, scratch = Report(), given.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    (scratch / "config.json").write_text(json.dumps(CONFIGS[given.form.shape]))
    names = {given.base_root: "base"}
    auditor = AdapterAuditor(
        report, lambda root: given.path("judge", names.get(root.hex(), root.hex())), lambda _: scratch, scratch
    )
    auditor.check_round(SettledRound(9, given.task, _settle(given)), _list_submissions(given))
    return {"problems": [finding.what for finding in report.problems], "adapters": report.adapters}


def _settle(given: AdapterSet) -> TrainingRound:
    root, size_bytes, coefficients = given.candidate
    accepted = tuple(
        Verdict(bytes.fromhex(name), given.trainers[number], "accept", "", ("code",), (), 0, 0, coefficients[name])
        for name, number in given.read_roots().items()
    )
    return msgspec.structs.replace(
        make_round("settled"),
        number=2,
        base_root=bytes.fromhex(given.base_root),
        verdicts=accepted,
        candidate_root=bytes.fromhex(root),
        candidate_size_bytes=size_bytes,
        coefficients=tuple(Coefficient(bytes.fromhex(name), ppm) for name, ppm in sorted(coefficients.items())),
    )


def _list_submissions(given: AdapterSet) -> dict[bytes, Submission]:
    base = bytes.fromhex(given.base_root)
    return {
        bytes.fromhex(root): Submission(
            1, 2, given.trainers[number], bytes.fromhex(root), given.size_bytes, base, 1, "bench", 3, bytes(32)
        )
        for root, number in given.read_roots().items()
    }


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "write_base": write_base,
    "write": write_updates,
    "hash": hash_updates,
    "upload": upload,
    "download": download,
    "check": check,
    "check_mapped": check_mapped,
    "merge": merge,
    "verify": verify,
}


def main(step: str, form: str, folder: str, *options: str) -> int:
    given = AdapterSet(FORMS[form], Path(folder))
    with watch() as held:
        found = STEPS[step](given, *options)
    print(json.dumps({**asdict(held), **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
