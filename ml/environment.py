"""The environment of our child processes: threads that sleep when idle, no network, none of the parent's secrets."""

import os
from pathlib import Path

PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "FLOCKCHAIN_CACHE", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")


def make_environment(threads: int) -> dict[str, str]:
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = Path(__file__).resolve().parent.parent
    return environment | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        # Where libraries lie that were brought along (docs/gpu.md); ours comes first.
        "PYTHONPATH": os.pathsep.join([str(own), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
