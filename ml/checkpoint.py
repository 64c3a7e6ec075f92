"""Where a round's training stands: B, the optimizer's state and the figures so far, in one safetensors file.

The figures stand as JSON in the file's metadata, so that tensors and figures are of one step; the file is renamed into
place when it is whole. A checkpoint names everything that the rest of the steps depend on (`key`); under another key it
is not one.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FACTOR, STATE = "factor/", "state/"


@dataclass(frozen=True)
class Progress:
    """What has been done: steps are as many as `losses`."""

    losses: tuple[float, ...]
    tokens: int
    seconds: float
    loss_before: float


def make_key(parts: Iterable[Any]) -> str:
    """Hex sha256 of JSON values and bytes, each with its length; no part is kept."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def save_checkpoint(
    path: Path, key: str, factors: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Raises OSError (disk full) and leaves the last checkpoint as it was."""
    from safetensors.torch import save_file

    tensors, numbers = {}, {}
    for name, value in _flatten(optimizer.state_dict()["state"]).items():
        if isinstance(value, torch.Tensor):
            tensors[STATE + name] = value
        else:
            numbers[name] = value
    tensors |= {FACTOR + module: factor for module, factor in factors.items()}
    stands = {"key": key, "losses": progress.losses, "tokens": progress.tokens, "seconds": progress.seconds}
    metadata = {"stands": json.dumps({**stands, "loss_before": progress.loss_before, "numbers": numbers})}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial, metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except Exception as error:  # safetensors has an error type of its own for a full disk
        partial.unlink(missing_ok=True)
        raise OSError(f"no checkpoint at {path}: {error}") from error


def load_checkpoint(
    path: Path, key: str, factors: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Set B and the optimizer to where they stood; None when there is no whole checkpoint under this key."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            stands = json.loads(file.metadata()["stands"])
            if stands["key"] != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    with torch.no_grad():
        for module, factor in factors.items():
            factor.copy_(tensors[FACTOR + module])
    state = {name.removeprefix(STATE): value for name, value in tensors.items() if name.startswith(STATE)}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": _unflatten({**state, **stands["numbers"]}), "param_groups": groups})
    return Progress(tuple(stands["losses"]), stands["tokens"], stands["seconds"], stands["loss_before"])


def _flatten(state: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """{0: {"step": x, "inner": {"y": z}}} -> {"0/step": x, "0/inner/y": z}."""
    flat: dict[str, Any] = {}
    for name, value in state.items():
        assert "/" not in str(name)
        flat |= _flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _unflatten(flat: Mapping[str, Any]) -> dict[Any, Any]:
    state: dict[Any, Any] = {}
    for path, value in flat.items():
        number, *names, last = path.split("/")
        inner = state.setdefault(int(number), {})
        for name in names:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return state
