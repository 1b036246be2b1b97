"""What a learner costs on top of PyTorch's DistributedDataParallel, in two processes of one thread each.

    python benchmarks/ddp_overhead.py --rounds 9

Trains three networks by a loop written by hand around DDP, and by `learn.fit` after `to_distributed`, on the same
samples with the same fused AdamW, over gloo on the CPU. The loop finds its batches in a list; the learner shuffles and
collates them, and begins each fit with a new DDP. In each round the two take turns within the same processes, so
that whatever else the machine does falls on both alike. Time is by the clock, as each process waits for the other.
Prints the median time of a step, and the median over rounds of the ratio to the loop.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchvision.models import resnet18
from warmstart.data import DataBunch
from warmstart.learner import Learner, launch
from warmstart.learner.ranks import join

N_RANKS = 2
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # how it is made, its input, steps a round
    "perceptron": (lambda: nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10)), (64, 32), 300),
    "small convnet": (lambda: convnet(16), (32, 3, 32, 32), 40),
    "resnet18": (lambda: resnet18(num_classes=10), (16, 3, 64, 64), 12),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often both train")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    args = parser.parse_args()
    for name in args.models:
        rounds = launch(compare, [name, args.rounds], N_RANKS)[0]
        by_hand, by_learner = (statistics.median(times) * 1e3 for times in zip(*rounds, strict=True))
        ratio = statistics.median(ours / theirs for theirs, ours in rounds)
        print(
            f"{name:<14}{by_hand:9.3f} ms a step by hand{by_learner:9.3f} ms by the learner{ratio:8.3f} ×", flush=True
        )


def convnet(width: int) -> nn.Module:
    """Four convolutions."""
    sizes = [3, width, 2 * width, 4 * width, 8 * width]
    layers = [
        nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()) for i, o in pairwise(sizes)
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], 10))


def compare(name: str, n_rounds: int) -> list[tuple[float, float]]:
    """Seconds per step of the loop and of the learner in each round, after one that does not count."""
    make, shape, n_steps = MODELS[name]
    torch.manual_seed(0)
    n = N_RANKS * n_steps * shape[0]
    dataset = TensorDataset(torch.randn(n, *shape[1:]), torch.randint(10, (n,)))
    ways = by_hand(make(), dataset, shape[0]), by_learner(make(), dataset, shape[0])
    rounds = [tuple(seconds(go) / n_steps for go in ways) for _ in range(n_rounds + 1)]
    return rounds[1:]  # type: ignore[return-value]  # of two each


def seconds(go: Callable[[], None]) -> float:
    join().total(0)  # both begin now
    start = time.perf_counter()
    go()
    return time.perf_counter() - start


def by_hand(model: nn.Module, dataset: TensorDataset, bs: int) -> Callable[[], None]:
    """The loop as one writes it with PyTorch alone."""
    own = list(DataLoader(dataset, bs, sampler=DistributedSampler(dataset, N_RANKS, join().rank)))
    loss_func = nn.CrossEntropyLoss()
    opt = AdamW(model.parameters(), lr=1e-3, fused=True)
    ddp = DistributedDataParallel(model)

    def go() -> None:
        ddp.train()
        for x, y in own:
            loss = loss_func(ddp(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()

    return go


def by_learner(model: nn.Module, dataset: TensorDataset, bs: int) -> Callable[[], None]:
    """The same by `learn.fit`, with all that a learner does unasked but for what it prints."""
    data = DataBunch.from_dsets(dataset, bs=bs, device="cpu", seed=0)
    learn = Learner(data, model, nn.CrossEntropyLoss(), opt_func=lambda params, lr: AdamW(params, lr, fused=True))
    learn.progress.bar = learn.progress.table = False
    learn.to_distributed()
    return lambda: learn.fit(1)


if __name__ == "__main__":
    main()
