"""A scripted participant as a process of its own, which can be told to die by -9 after its n-th durable act.

    python -m tests.devnet.worker HOME FOLDER TASK NAME DIE_AFTER      (0: live)

What it would do differs from process to process (seeds and figures come from the process id), so that a restart that
trains or judges again shows. Every signature is written to `signed.jsonl` before it is used.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flockchain.client import Client
from flockchain.devnet import Devnet
from flockchain.workers.outbox import Outbox
from flockchain.workers.participant import Participant
from tests.devnet.scripted import make_trainer, make_update, make_voter, write_base


def main(home: Path, folder: Path, task: int, name: str, die_after: int) -> None:
    _note_signatures(folder / "signed.jsonl")
    if die_after:
        _die_after(die_after)
    worker = make_worker(Client(Devnet(home).api_urls()), name, task, folder)
    worker.run()


def make_worker(client: Client, name: str, task: int, folder: Path) -> Participant:
    base_dir = write_base(folder / "base")
    if name.startswith("judge"):
        return make_voter(client, name, task, folder, base_dir, noise_ppm=os.getpid() % 1_000)
    return make_trainer(client, name, task, folder, base_dir, make_update(f"{name}/{os.getpid()}"))


def _note_signatures(path: Path) -> None:
    sign = Client.sign

    def sign_and_note(self: Client, key: Any, kind: str, body: bytes, **envelope: Any) -> bytes:
        with path.open("a") as file:
            file.write(json.dumps({"kind": kind, "body": body.hex()}) + "\n")
        return sign(self, key, kind, body, **envelope)

    Client.sign = sign_and_note  # type: ignore[method-assign]


def _die_after(acts: int) -> None:
    """Count what reaches the disk or the network, and kill -9 this process right after the last one."""
    left = acts

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **options: Any) -> Any:
            nonlocal left
            result = method(*args, **options)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return act

    Outbox.replace = counted(Outbox.replace)  # type: ignore[method-assign]
    Client.submit = counted(Client.submit)  # type: ignore[method-assign]
    Client.put_blob = counted(Client.put_blob)  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
