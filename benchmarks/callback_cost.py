"""What each callback adds to a training step: a small network, where every microsecond of Python shows.

    python benchmarks/callback_cost.py --rounds 11

Trains a perceptron of 32–64–10 units with BatchNorm on one thread, in fits of one epoch: 200 batches of 64 and 20 of
validation. Each callback takes turns with the base, a learner with the callbacks that it has unasked, so that whatever
else the machine does falls on both alike. Time is the process's own (CPU) time. Prints medians over rounds: of how much
longer a step takes than in the base, and of the ratio to it. What happens once an epoch or fit, such as writing a file,
is spread over its steps. Differences of a few microseconds are noise. What a callback does in Python takes as long with
a large network; what it computes grows.
"""

import argparse
import contextlib
import importlib.util
import inspect
import io
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn
from torch.utils.data import TensorDataset
from warmstart import callbacks
from warmstart.callbacks import Callback
from warmstart.data import DataBunch
from warmstart.learner import Learner, accuracy

BS = 64
CALLS = (  # each as one would write it in `cbs=`
    "ActivationStats()",
    "BatchSizeSchedule({0: 64})",
    "BnFreeze(learn.model)",
    "CSVLogger()",
    "ChannelsLast()",
    "CutMix()",
    "DetectAnomaly()",
    "EMA(0.99)",
    "EarlyStopping()",
    "FetchPreds()",
    "GradientAccumulation(128)",
    "GradientCheckpointing([learn.model])",
    "GradientClip(1.0)",
    "GradientStats()",
    "HookCallback()",
    "LRFinder(num_it=10**6)",
    "LimitBatches(10**6)",
    "MLflowLogger()",
    "MemoryUse()",
    "MixUp()",
    "MixedPrecision(torch.bfloat16)",
    "OverfitBatches(10**6)",
    "ParamScheduler({'lr': sched_cos(1e-3, 0)})",
    "Profiler()",
    "ProgressiveResize()",
    "ReduceLROnPlateau()",
    "SAM()",
    "SWA()",
    "SaveModel()",
    "ShowGraph()",
    "StopAfter(steps=10**6)",
    "TensorBoardLogger()",
    "TerminateOnNaN()",
    "TorchScheduler(lambda opt: ExponentialLR(opt, 0.999))",
    "Unfreeze(0)",
    "ValidateEvery(100)",
    "WandbLogger()",
)
IN_BASE = ("Evaluate", "ProgressBar", "Recorder")  # their cost is what a learner without them saves
ABSTRACT = ("Callback", "RunLogger")
TOOLS = {"MLflowLogger": "mlflow", "TensorBoardLogger": "tensorboard", "WandbLogger": "wandb"}  # what they need


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    with prepared_tools(names := args.only or available()) as folder:
        base, rows = measure(names, args.rounds, args.batches, folder)
    print("\n".join(table(base, rows)))
    if absent := sorted({name_of(call) for call in CALLS} - set(available())):
        print(f"Left out, since what they need is not installed: {', '.join(absent)}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="how often each callback is measured")
    parser.add_argument("--batches", type=int, default=200, help=f"batches of {BS} in an epoch")
    parser.add_argument("--only", nargs="+", choices=available(), metavar="NAME", help="measure these callbacks alone")
    return parser.parse_args()


def name_of(call: str) -> str:
    return call.partition("(")[0]


def available() -> list[str]:
    """The callbacks that can be measured here."""
    names = [*map(name_of, CALLS), *IN_BASE]
    return [name for name in names if name not in TOOLS or importlib.util.find_spec(TOOLS[name])]


def forgotten() -> set[str]:
    """Callbacks that the package exports and this script does not know."""
    exported = ((name, getattr(callbacks, name)) for name in callbacks.__all__)
    classes = {name for name, value in exported if inspect.isclass(value) and issubclass(value, Callback)}
    return classes - {*map(name_of, CALLS), *IN_BASE, *ABSTRACT}


def measure(names: Iterable[str], rounds: int, n_batches: int, folder: str) -> tuple[float, dict]:
    """Seconds of a step in the base, and for each callback those that it adds and the ratio: medians over `rounds`.

    Raises ValueError where a callback of the package is in none of the lists above.
    """
    if unknown := forgotten():
        raise ValueError(f"callbacks that are not measured: {', '.join(sorted(unknown))}. Add them to CALLS.")
    base = make_learner(n_batches, folder)
    learners = {name: make_learner(n_batches, folder) for name in names}
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in learners}  # a step without it, and with it
    of_base = []
    for number in range(rounds + 1):
        for name, learn in learners.items():
            times = seconds_per_step(base), seconds_per_step(learn, name)
            if number:  # the first round only warms up
                of_base.append(times[0])
                pairs[name].append(times[::-1] if name in IN_BASE else times)
    return statistics.median(of_base), {name: compared(times) for name, times in pairs.items()}


def compared(times: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Medians of difference and ratio."""
    differences, ratios = zip(*((with_it - without, with_it / without) for without, with_it in times), strict=True)
    return statistics.median(differences), statistics.median(ratios)


def make_learner(n_batches: int, folder: str) -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    data = DataBunch.from_dsets(make_dataset(n_batches), make_dataset(n_batches // 10), bs=BS, device="cpu", seed=0)
    return Learner(data, model, nn.CrossEntropyLoss(), metrics=accuracy, path=folder)


def make_dataset(n_batches: int) -> TensorDataset:
    """Noise in the shape of images of 4 × 8 pixels, for those callbacks that want images."""
    return TensorDataset(torch.randn(n_batches * BS, 1, 4, 8), torch.randint(10, (n_batches * BS,)))


def seconds_per_step(learn: Learner, name: str | None = None) -> float:
    """The time of a fit of one epoch, with a new callback of that name, or without one of the learner's own."""
    cbs = [make(call, learn) for call in CALLS if name_of(call) == name]
    without = [cb for cb in learn.cbs if name in IN_BASE and type(cb).__name__ == name]
    with learn.without_cbs(*without), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mixed precision on a CPU, of an average over few steps
        start = time.process_time()
        learn.fit(1, 1e-3, cbs=cbs)
        return (time.process_time() - start) / learn.train_iter


def make(call: str, learn: Learner) -> Callback:
    """The callback that one of `CALLS` makes."""
    from torch.optim.lr_scheduler import ExponentialLR

    return eval(call, vars(callbacks) | {"torch": torch, "learn": learn, "ExponentialLR": ExponentialLR})


@contextlib.contextmanager
def prepared_tools(names: Sequence[str]) -> Iterator[str]:
    """Inside, there is a folder for all that is written, and an open run for those loggers that can go on with one."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if "WandbLogger" in names:
            import wandb

            stack.enter_context(wandb.init(dir=folder))
        if "MLflowLogger" in names:
            import mlflow

            logging.getLogger("mlflow").setLevel(logging.WARNING)
            mlflow.set_tracking_uri(f"sqlite:///{folder}/runs.db")
            stack.enter_context(mlflow.start_run())
        yield folder


def table(base: float, rows: dict[str, tuple[float, float]]) -> Iterator[str]:
    """The measures in text, the dearest callback first."""
    calls = {name_of(call): call for call in CALLS} | {name: f"{name} (part of the base)" for name in IN_BASE}
    yield f"{'callback':<54}{'µs a step':>12}{'ratio':>10}"
    yield f"{'base: Evaluate, Recorder, ProgressBar':<54}{base * 1e6:>12.1f}{1:>10.3f}"
    for name, (added, ratio) in sorted(rows.items(), key=lambda row: -row[1][0]):
        yield f"{calls[name]:<54}{added * 1e6:>+12.1f}{ratio:>10.3f}"


if __name__ == "__main__":
    main()
