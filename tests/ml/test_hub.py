"""A base by hub name: every way in which it cannot be had is one sentence that says what to do."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ml.base import BaseError, prepare_base
from ml.hub import fetch_from_hub

NAME, REVISION = "someone/a-model", "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """Answers like the hub's API; the server's `answer` is (status, error code, body)."""

    def do_GET(self) -> None:
        status, code, body = self.server.answer  # type: ignore[attr-defined]
        data = json.dumps(body).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parent's name
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """A server of our own on this machine, to which the real client talks."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


HUGE = {
    "id": NAME,
    "sha": REVISION,
    "siblings": [
        {"rfilename": "model-00001-of-00002.safetensors", "size": 2**60},
        {"rfilename": "README.md", "size": 9},
    ],
}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((403, "GatedRepo", {}), "is gated: accept its conditions at .*, then run `hf auth login`"),
        ((404, "RevisionNotFound", {}), "has no revision 0123456789"),
        ((401, "RepoNotFound", {}), "there is no model someone/a-model, or it is private"),
        ((200, "", HUGE), r"takes 1152921504.6 GB, the disk of .* has .* GB free: make room"),
        ((418, "", {}), "is not to be had"),
    ],
    ids=["gated", "no such revision", "no such model", "too large for the disk", "another answer"],
)
def test_what_the_hub_refuses_is_said(hub: ThreadingHTTPServer, answer: tuple[int, str, object], sentence: str) -> None:
    hub.answer = answer  # type: ignore[attr-defined]
    with pytest.raises(BaseError, match=sentence):
        fetch_from_hub(NAME, REVISION, endpoint=f"http://127.0.0.1:{hub.server_port}")


def test_a_hub_that_is_not_there_is_said(hub: ThreadingHTTPServer) -> None:
    """Port 1 of this machine, where nothing listens."""
    with pytest.raises(BaseError, match="no network: run `hf download someone/a-model --revision 0123456789"):
        fetch_from_hub(NAME, REVISION, endpoint="http://127.0.0.1:1")


def test_offline_says_how_to_bring_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BaseError, match="is not cached and there is no network"):
        prepare_base(f"{NAME}@{REVISION}")
