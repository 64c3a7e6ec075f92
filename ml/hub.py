"""A base from a model hub, by name and pinned revision, where there is a network."""

import errno
import shutil
from pathlib import Path
from typing import Any

from ml.base_files import TOKENIZER_FILES, BaseError, check_folder

PATTERNS = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES]
TIMEOUT_S = 30.0
"""For the list of files; the files themselves take what they take, and go on where they stopped."""


def fetch_from_hub(name: str, revision: str, endpoint: str | None = None) -> Path:
    """The folder of `owner/name` at a revision of 40 hex digits, fetched if it is not cached. Raises BaseError."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS, local_files_only=True))
        check_folder(folder)
        return folder
    except (OSError, ValueError, BaseError):
        pass  # not there, or a part of it
    try:
        _check_disk(name, revision, endpoint)
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS, endpoint=endpoint))
    except BaseError:
        raise
    except Exception as error:  # the hub's client raises many kinds
        raise BaseError(_explain(name, revision, error)) from error
    check_folder(folder)
    return folder


def _check_disk(name: str, revision: str, endpoint: str | None) -> None:
    """Refuse before the first byte what the disk cannot hold."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import filter_repo_objects

    info = HfApi(endpoint=endpoint).model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    needed = sum(sizes[chosen] for chosen in filter_repo_objects(sizes, allow_patterns=PATTERNS))
    cache = _find_existing(Path(constants.HF_HUB_CACHE))
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise BaseError(
            f"{name} takes {needed / 1e9:.1f} GB, the disk of {cache} has {free / 1e9:.1f} GB free: make room, or set "
            "HF_HOME to a larger disk"
        )


def _find_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _explain(name: str, revision: str, error: Exception) -> str:
    """One sentence in the words that users of the hub know."""
    from huggingface_hub import errors

    by_hand = f"`hf download {name} --revision {revision}`"
    if isinstance(error, errors.GatedRepoError):
        page = f"https://huggingface.co/{name}"
        return f"{name} is gated: accept its conditions at {page}, then run `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{name} has no revision {revision}: take one of its commits at https://huggingface.co/{name}/commits/main"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no model {name}, or it is private: check the name, or `hf auth login`"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full: make room or set HF_HOME to a larger one, then {by_hand} goes on where it stopped"
    if isinstance(error, errors.OfflineModeIsEnabled) or _is_connection_error(error):
        return f"{name} is not cached and there is no network: run {by_hand} where there is one, then give its folder"
    return f"{name} at {revision} is not to be had: {type(error).__name__}: {error}"


def _is_connection_error(error: Any) -> bool:
    """By name, for the client changed its HTTP library (requests, then httpx)."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ConnectionError", "ConnectError", "TimeoutException", "LocalEntryNotFoundError"})
