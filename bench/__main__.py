"""``python -m bench [name ...]``: run benchmarks and write their results; ``python -m bench gpu --help`` on a GPU."""

import argparse
import json
import sys
from collections.abc import Callable

from bench import adapter_set, catch_up, chain, demo, flood, gpu, join, lora, rest, simulator, training
from bench.report import Result, make_document, save

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


def main() -> int:
    if sys.argv[1:2] == ["gpu"]:  # has options and a file of its own
        return gpu.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    everything: list[Result] = []
    for name in options.names or BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr)
        results = BENCHMARKS[name]()
        save(name, results)
        everything += results
        for result in results if not options.json else ():
            print(f"{result.name:<28} {result.median:>12,} {result.unit}   ({result.min:,} to {result.max:,})")
    if options.json:
        print(json.dumps(make_document(everything), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
