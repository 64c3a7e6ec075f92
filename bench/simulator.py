"""How much simulated consensus a core gets through: seeds of ten heights with faults, one process."""

import time

from bench.report import Result, summarize
from tests.simulator.run import Finding, simulate, size_of

SEEDS = 100
HEIGHTS_PER_SEED = 10


def measure_simulator(runs: int) -> list[Result]:
    rates: list[float] = []
    for run in range(runs):
        begun = time.perf_counter()
        for seed in range(run * SEEDS, (run + 1) * SEEDS):
            outcome = simulate(seed, size_of(seed))
            if isinstance(outcome, Finding):
                raise SystemExit(f"seed {seed}: {outcome.what}; {outcome.replay}")
        rates.append(SEEDS * HEIGHTS_PER_SEED / (time.perf_counter() - begun))
    return [summarize("simulated_heights_per_s", "heights/s", rates, digits=0)]
