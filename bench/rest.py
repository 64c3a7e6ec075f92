"""REST over real HTTP, against a chain with 1,000 settled rounds of 20 verdicts each."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvicorn

from bench.report import Result
from flockchain.crypto import sha256
from tests.api.node import running_node
from tests.api.rows import TASK, make_round
from tests.store.history import BOB

ROUNDS = 1_000
VERDICTS = 20
READS = 400
PATHS = (
    "/v1/tasks/1/rounds/{n}",
    "/v1/tasks/1/rounds?limit=50",
    "/v1/stakes?target=task:1",
    "/v1/receipts",
    "/v1/status",
)


def measure_rest() -> list[Result]:
    """p95 per path, one client, one request after another; and the reads of all clients per second."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="flockchain-bench-") as folder, running_node(Path(folder)) as node:
        task = msgspec.structs.replace(TASK, round=ROUNDS, settled_rounds=ROUNDS)
        node.produce(task, *(_make_round(number) for number in range(1, ROUNDS + 1)))
        with serving(node.app) as url, httpx.Client(base_url=url, trust_env=False) as http:
            begun = time.perf_counter()
            for path in PATHS:
                results.append(_measure_path(http, path))
            seconds = time.perf_counter() - begun
            rate = round(READS * len(PATHS) / seconds, 1)
            results.append(Result("rest_reads_per_s", "reads/s", rate, rate, rate, 1, notes={"clients": 1}))
    return results


def _measure_path(http: httpx.Client, path: str) -> Result:
    times: list[float] = []
    for i in range(READS):
        begun = time.perf_counter()
        answer = http.get(path.format(n=1 + i * ROUNDS // READS))
        times.append(1000 * (time.perf_counter() - begun))
        answer.raise_for_status()
    times.sort()
    name = path.partition("?")[0].replace("/v1/", "").replace("{n}", "n")
    p95 = round(times[len(times) * 95 // 100], 2)
    return Result(f"rest_ms_p95/{name}", "ms", p95, round(times[0], 2), round(times[-1], 2), READS)


def _make_round(number: int) -> Any:
    settled = make_round("settled")
    verdict = settled.verdicts[0]
    verdicts = tuple(
        msgspec.structs.replace(verdict, root=sha256(number.to_bytes(8, "big"), bytes([i])), trainer=BOB)
        for i in range(VERDICTS)
    )
    return msgspec.structs.replace(settled, number=number, verdicts=verdicts)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app's address while the block runs."""
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
