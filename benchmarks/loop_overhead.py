"""What the training loop costs on top of PyTorch: a small network, where every microsecond of Python shows.

    python benchmarks/loop_overhead.py --rounds 5

Trains a perceptron of 32–64–10 units with fused AdamW on one thread: by a loop written by hand, without and with the
scheduler `OneCycleLR` of torch, by `learn.fit` and by `learn.fit_one_cycle`. Every run is a process of its own; those
of a round follow each other, so that whatever else the machine does falls on all alike. Time is the process's own (CPU)
time, for the same reason. Prints the median time of a batch, and the median over rounds of the ratio to the loop.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

BS = 64
CONTENDERS = ("raw", "raw_one_cycle", "fit", "fit_one_cycle")
DATA = ("list", "dataloader")  # batches in a list; a DataLoader over a TensorDataset, which forms them item by item


def main() -> None:
    args = parse_args()
    if args.contender:
        print(seconds_per_batch(args.contender, args.data[0], args.batches, args.epochs))
        return
    for data in args.data:
        report(data, [one_round(data, args) for _ in range(args.rounds)])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender runs")
    parser.add_argument("--batches", type=int, default=500, help=f"batches of {BS} in an epoch")
    parser.add_argument("--epochs", type=int, default=10, help="epochs that are timed, after one that is not")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--contender", choices=CONTENDERS, help="run this one here and print its seconds per batch")
    return parser.parse_args()


def one_round(data: str, args: argparse.Namespace) -> dict[str, float]:
    """Seconds per batch of each contender, each in a new process."""
    size = ["--data", data, "--batches", str(args.batches), "--epochs", str(args.epochs)]
    return {name: float(run([*size, "--contender", name])) for name in CONTENDERS}


def run(options: list[str]) -> str:
    """The last line that this script prints when called with `options`."""
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def report(data: str, rounds: list[dict[str, float]]) -> None:
    print(f"{data}: median of {len(rounds)} rounds")
    for name in CONTENDERS:
        ratios = [times[name] / times["raw"] for times in rounds]
        microseconds = statistics.median(times[name] for times in rounds) * 1e6
        print(f"  {name:<14}{microseconds:8.1f} µs a batch{statistics.median(ratios):8.3f} × raw", flush=True)


def seconds_per_batch(contender: str, data: str, n_batches: int, n_epoch: int) -> float:
    """One run: a warm-up epoch, then fits of one epoch, of which the fastest was disturbed least."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    loader = make_data(data, n_batches)
    is_raw = contender.startswith("raw")
    go = raw_loop(loader, contender == "raw_one_cycle") if is_raw else warmstart_loop(contender, loader)
    go(1)
    return min(seconds(lambda: go(1)) for _ in range(n_epoch)) / n_batches


def seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def make_data(kind: str, n_batches: int) -> Iterable:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.randn(n_batches * BS, 32), torch.randint(10, (n_batches * BS,))
    if kind == "list":
        return list(zip(x.split(BS), y.split(BS), strict=True))
    return DataLoader(TensorDataset(x, y), BS, shuffle=True)


def make_model():
    from torch import nn

    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))


def raw_loop(loader: Iterable, with_one_cycle: bool) -> Callable[[int], None]:
    """The loop as one writes it with PyTorch alone."""
    from torch import nn
    from torch.optim import AdamW
    from torch.optim.lr_scheduler import OneCycleLR

    model, loss_func = make_model(), nn.CrossEntropyLoss()
    opt = AdamW(model.parameters(), lr=1e-3, fused=True)

    def go(n_epoch: int) -> None:
        model.train()
        n_steps = n_epoch * len(loader)  # type: ignore[arg-type]
        scheduler = OneCycleLR(opt, 1e-3, n_steps + 1) if with_one_cycle else None
        for _ in range(n_epoch):
            for x, y in loader:
                loss = loss_func(model(x), y)
                loss.backward()
                opt.step()
                opt.zero_grad()
                if scheduler:
                    scheduler.step()

    return go


def warmstart_loop(method: str, loader: Iterable) -> Callable[[int], None]:
    """The same by `learn.fit` or `learn.fit_one_cycle`, with all that a learner does unasked: record and print."""
    from torch import nn
    from warmstart.data import DataBunch
    from warmstart.learner import Learner

    learn = Learner(DataBunch(loader, device="cpu"), make_model(), nn.CrossEntropyLoss())
    return lambda n_epoch: getattr(learn, method)(n_epoch, 1e-3)


if __name__ == "__main__":
    main()
