"""A scripted participant as a process of its own, in the namespace of a node.

    python -m tests.scenarios.worker FOLDER TASK NAME URL...

It bonds once, and takes part until the task ends; a restart finds everything in FOLDER. It asks the first URL and
changes over to the others.
"""

import sys
from pathlib import Path

from flockchain.client import Client, Unreachable
from flockchain.workers.participant import Participant
from tests.devnet.scripted import bond, make_trainer, make_update, make_voter, write_base

ATTEMPTS = 300


def main(folder: Path, task: int, name: str, urls: list[str]) -> None:
    client, base = Client(urls), write_base(folder / "base")
    if name.startswith("judge"):
        worker = make_voter(client, name, task, folder, base, noise_ppm=37 * int(name[-1]))
    else:
        worker = make_trainer(client, name, task, folder, base, make_update(name))
    bond_when_a_node_answers(worker)
    worker.run()


def bond_when_a_node_answers(worker: Participant) -> None:
    """As a supervisor that starts `flockchain trainer run` again: without a node it ends, and says so."""
    for _ in range(ATTEMPTS):
        try:
            return bond(worker)
        except Unreachable:
            worker.pause()
    raise TimeoutError(f"no node answered {ATTEMPTS} times")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
