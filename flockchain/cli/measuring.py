"""What `flockchain score` and `adapter export` do with tensors; imported only by them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flockchain.client import Client, Json
from flockchain.errors import Refused
from flockchain.verify.sources import BaseFinder
from flockchain.workers.learning import find_base, read_data, read_holdout
from flockchain.workers.view import Model, make_judge_spec, make_model
from ml.adapter import GlobalAdapter, read_global, read_update
from ml.base import BaseError
from ml.canonical import Malformed, read_header
from ml.export import Card, export_peft, import_peft
from ml.factors import make_factors, make_global_factors
from ml.figures import compute_change, compute_loss_ubpb
from ml.score import ScoringBase


def measure(
    path: Path,
    task: Json,
    data: Sequence[str],
    *,
    base: str | None,
    start: Path | None,
    parts: int,
    coefficient_ppm: int,
    beacon: bytes | None,
    dtype: str | None,
    threads: int,
) -> list[dict[str, Any]]:
    """Per domain: losses in ubpb before and after, relative change and standard error as a ballot would hold them."""
    import torch

    torch.set_num_threads(threads)
    folder = find_base_folder(base, task)
    model = make_model(task, folder)
    before, after = _read_factors(path, start, model, coefficient_ppm, parts)
    judge_spec = make_judge_spec(task)
    holdout = read_holdout(_parse_data(data), folder, judge_spec.block_tokens)
    scoring = _load(folder, model, dtype or model.precision)
    figures = []
    for domain in holdout.domains:
        count = judge_spec.judge_tokens // judge_spec.block_tokens
        blocks = holdout.blocks(domain) if beacon is None else holdout.draw(domain, beacon, count)
        if not blocks:
            raise Refused("bad-data", f"{domain} holds no block: every document is shorter than 16 tokens")
        reference, losses = scoring.score(blocks, before), scoring.score(blocks, after)
        change = compute_change(losses, reference, judge_spec)
        figures.append(
            {
                "domain": domain,
                "before_ubpb": compute_loss_ubpb(reference),
                "after_ubpb": compute_loss_ubpb(losses),
                "change_ppm": change.change_ppm if change else None,
                "se_ppm": change.se_ppm if change else None,
                "blocks": len(blocks),
                "documents": len({block.document for block in blocks}),
            }
        )
    return figures


def find_base_folder(base: str | None, task: Json) -> Path:
    """The folder of the task's base: as named, or one of this machine that has its hash."""
    if base is not None:
        return find_base(base, task)
    wanted = task["spec"]["model"]["base_hash"]
    folder = BaseFinder(())(wanted)
    if folder is None:
        raise Refused("no-base", f"the base {task['spec']['model']['name']!r} ({wanted}) is not here: give --base")
    return folder


def export_global(
    client: Client, task: Json, root: str, folder: Path, *, base: str | None, texts: list[str], license: str, dtype: str
) -> float:
    """Write the PEFT folder; returns the bits per byte of its sample."""
    base_dir = find_base_folder(base, task)
    model = make_model(task, base_dir)
    folder.mkdir(parents=True, exist_ok=True)
    fetched = folder / ".global.safetensors"
    try:
        if not client.get_blob(bytes.fromhex(root), fetched):
            raise Refused("no-blob", f"no node holds global adapter {root}: name one that does with --node")
        adapter, _ = read_global(fetched, model.spec)
        status = client.status()
        card = Card(
            name=f"{task['spec']['name']}: global adapter",
            base_name=task["spec"]["model"]["name"],
            license=license,
            losses_ubpb=_collect_losses(client, task),
            origin=(
                f"Made without a central aggregator on chain `{status['chain_id']}`, task {task['id']}, "
                f"{task['settled_rounds']} training rounds settled; root `{root}`. Losses are the committees' medians."
            ),
        )
        scoring = _load(base_dir, model, dtype)
        loss: float = export_peft(
            adapter, model.spec, base_dir, folder, card=card, sample=texts, scoring_base=scoring, dtype=dtype
        )
        return loss
    except Malformed as error:
        raise Refused("bad-adapter", f"global adapter {root} is not of this task and base: {error}") from None
    finally:
        fetched.unlink(missing_ok=True)


def read_sample(path: Path) -> list[str]:
    return [document.text for document in read_data([path])]


def _read_factors(path: Path, start: Path | None, model: Model, coefficient_ppm: int, parts: int) -> tuple[Any, Any]:
    """float32 B by module (before, after); None is the bare base."""
    try:
        from_: GlobalAdapter | None = read_global(start, model.spec)[0] if start else None
        if path.is_dir():
            return make_global_factors(from_, model.spec), make_global_factors(
                import_peft(path, model.spec), model.spec
            )
        if read_header(path).manifest.get("kind") == "global":
            adapter, _ = read_global(path, model.spec)
            return make_global_factors(from_, model.spec), make_global_factors(adapter, model.spec)
        update, _ = read_update(path, model.spec)
    except (Malformed, ValueError, OSError) as error:
        raise Refused("bad-adapter", f"{path} is not an adapter of this task: {error}") from None
    factors = make_factors(from_, update, coefficient_ppm, parts, model.spec)
    return make_global_factors(from_, model.spec), factors


def _parse_data(options: Sequence[str]) -> dict[str, list[Path]]:
    """Files by domain; a file without one is its own, by its name."""
    found: dict[str, list[Path]] = {}
    for option in options:
        domain, equals, name = option.partition("=")
        path = Path(name) if equals else Path(option)
        found.setdefault(domain if equals else path.name.partition(".")[0], []).append(path)
    return found


def _load(folder: Path, model: Model, dtype: str) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading takes a moment; stderr is for errors
    try:
        return ScoringBase.load(folder, model.spec, dtype)
    except BaseError as error:
        raise Refused("bad-base", str(error)) from None


def _collect_losses(client: Client, task: Json) -> dict[str, tuple[int, int]]:
    """Domain -> (before the first round, after the last settled one): lower medians over the committees."""
    losses: dict[str, tuple[int, int]] = {}
    for round_ in client.pages(f"/tasks/{task['id']}/rounds"):
        if round_["phase"] != "settled" or round_["result_root"] != round_["candidate_root"]:
            continue
        said = client.round(task["id"], round_["number"])["attestations"]
        figures = [
            f for row in said if row["body"]["candidate"] == round_["candidate_root"] for f in row["body"]["figures"]
        ]
        for index, domain in enumerate(task["spec"]["domains"]):
            mine = [figure for figure in figures if figure["domain"] == index]
            if mine:
                before = _lower_median([figure["previous_loss_ubpb"] for figure in mine])
                after = _lower_median([figure["loss_ubpb"] for figure in mine])
                losses[domain] = (losses.get(domain, (before, 0))[0], after)
    return losses


def _lower_median(values: list[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]
