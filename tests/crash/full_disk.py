"""`python -m tests.crash.full_disk FOLDER`: a real node on a small file system that becomes full, and has space again.

Prints what happened as JSON; `test_full_disk.py` mounts the file system and judges.
"""

import errno
import json
import sys
import time
from pathlib import Path

import httpx

from tests.support.ledger import Ledger
from tests.support.processes import Processes, wait_until

from .processes import send_transfer

PATIENCE_S = 60


def main(folder: Path) -> dict[str, object]:
    processes = Processes(folder, validators=1)
    node, txs = processes.nodes[0], Ledger(processes.genesis)
    with processes:
        wait_until(lambda: node.height() >= 2, PATIENCE_S)
        filler = folder / "filler"
        fill(filler)
        assert node.process is not None
        end_s, amount_uflk = time.monotonic() + PATIENCE_S, 0
        while node.process.poll() is None and time.monotonic() < end_s:
            amount_uflk += 1
            try:
                send_transfer(node, txs, amount_uflk)
            except (httpx.HTTPError, KeyError, ValueError):
                pass  # the node answers no more, or says that it cannot
        stopped = node.process.wait(timeout=PATIENCE_S)
        fill(folder / "filler2")  # what the end of the process has set free
        node.start()
        refused = node.process.wait(timeout=PATIENCE_S)
        filler.unlink()
        (folder / "filler2").unlink()
        node.start()
        wait_until(lambda: node.height() >= 2, PATIENCE_S)
        height = node.height()
        send_transfer(node, txs, amount_uflk + 1)
        wait_until(lambda: node.height() > height, PATIENCE_S)
        return {"stopped": stopped, "refused": refused, "stderr": node.errors()}


def fill(path: Path) -> None:
    """To the last byte."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4_096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
