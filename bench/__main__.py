"""``python -m bench [name ...]``: run benchmarks and write their results; ``python -m bench gpu --help`` on a GPU."""

import argparse
import json
import sys

from bench.report import Result, make_document, save


def main() -> int:
    if sys.argv[1:2] == ["gpu"]:  # has options and a file of its own, and runs where the chain's packages are missing
        from bench import gpu

        return gpu.main(sys.argv[2:])
    from bench.catalogue import BENCHMARKS

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
