"""A scripted participant as a process of its own, in the namespace of a node.

    python -m tests.scenarios.worker FOLDER TASK NAME URL...

It bonds once, and takes part until the task ends; a restart finds everything in FOLDER. It asks the first URL and
changes over to the others.
"""

import sys
from pathlib import Path

from flockchain.client import Client
from flockchain.workers.participant import Participant
from flockchain.workers.patience import wait_for_node
from tests.devnet.scripted import bond, make_trainer, make_update, make_voter, write_base

WAIT_S = 300.0


def main(folder: Path, task: int, name: str, urls: list[str]) -> None:
    client, base = Client(urls), write_base(folder / "base")
    worker: Participant
    if name.startswith("judge"):
        worker = make_voter(client, name, task, folder, base, noise_ppm=37 * int(name[-1]))
    else:
        worker = make_trainer(client, name, task, folder, base, make_update(name))
    wait_for_node(lambda: bond(worker), WAIT_S, worker.report, lambda: worker.is_stopping)
    worker.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
