"""How long `from warmstart.vision import *` takes beside the imports that any such notebook has anyway.

    python benchmarks/import_time.py --rounds 7

Every import happens in a process of its own; those of a round follow each other, so that whatever else the machine does
falls on all alike. A first round, which fills the disk cache, is not counted. Prints the median time of each, and the
median over rounds of the ratio to `import torch, torchvision, pandas`.
"""

import argparse
import statistics
import subprocess
import sys

CONTENDERS = {
    "torch, torchvision, pandas": "import torch, torchvision, pandas",
    "warmstart.vision": "from warmstart.vision import *",
}
TIMED = "import time; start = time.perf_counter(); exec({code!r}); print(time.perf_counter() - start)"


def main() -> None:
    args = parse_args()
    one_round()
    rounds = [one_round() for _ in range(args.rounds)]
    base = next(iter(CONTENDERS))
    print(f"median of {len(rounds)} rounds")
    for name in CONTENDERS:
        ratio = statistics.median(times[name] / times[base] for times in rounds)
        print(f"  {name:<28}{statistics.median(times[name] for times in rounds):6.2f} s{ratio:8.3f} ×")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each import runs")
    return parser.parse_args()


def one_round() -> dict[str, float]:
    """Seconds that each import takes, each in a new process."""
    return {name: seconds(code) for name, code in CONTENDERS.items()}


def seconds(code: str) -> float:
    done = subprocess.run([sys.executable, "-c", TIMED.format(code=code)], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
