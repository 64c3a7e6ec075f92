"""The benchmarks by name."""

from collections.abc import Callable

from bench import adapter_set, catch_up, chain, demo, flood, join, lora, rest, simulator, training
from bench.report import Result

BENCHMARKS: dict[str, Callable[[], list[Result]]] = {
    "start": lambda: [chain.measure_start(runs=5)],
    "finality": lambda: chain.measure_idle(transfers=200),
    "throughput": lambda: chain.measure_throughput(validators=4, rate=500, seconds=60),
    "flood": lambda: flood.measure_flood(seconds=60),
    "rest": rest.measure_rest,
    "simulator": lambda: simulator.measure_simulator(runs=5),
    "catch-up": lambda: [catch_up.measure_catch_up(blocks=2_000, runs=3)],
    "join": lambda: join.measure_join(blocks=10_000, accounts=10_000),
    "snapshot": lambda: join.measure_snapshot(accounts=200_000),
    "lora-errors": lora.measure_errors,
    "lora-tiny": lambda: lora.measure_losses(lora.TINY),
    "lora-demo": lambda: lora.measure_losses(lora.SMOLLM2),
    "demo-demo": lambda: demo.measure_demo("demo", runs=5),
    "demo-tiny": lambda: demo.measure_demo("tiny", runs=3),
    "training": training.measure_training,
    "adapter-set": adapter_set.measure_adapter_set,
    "throughput-1": lambda: chain.measure_throughput(
        validators=1, rate=1500, seconds=20, client_txs_per_s=chain.UNLIMITED
    ),
}
