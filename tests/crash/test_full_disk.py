"""A real node on a real file system that becomes full: it stops with a sentence, and goes on when there is space again.

A file system of a few megabytes is mounted in a namespace of its own (unshare(1)); skipped where that is not permitted.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.devnet
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = 'mount -t tmpfs -o size=12m tmpfs "$0" && exec "$@"'


def test_a_node_stops_on_a_full_disk_with_a_sentence_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a small file system needs user namespaces, which this machine does not permit")
    program = [sys.executable, "-m", "tests.crash.full_disk", str(tmp_path)]
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", MOUNT, str(tmp_path), *program],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["stopped"] == 1, "something needs a person (docs/operations.md, exit codes)"
    assert answer["refused"] == 1, "a start on a full disk is refused"
    told = answer["stderr"]
    assert "No space left on device" in told or "disk is full" in told
    assert "start again" in told
    assert "Traceback" not in told
