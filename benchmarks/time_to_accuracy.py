"""How long does it take to fine-tune a pretrained network on a few hundred photos, and how much memory?

    python benchmarks/time_to_accuracy.py ../shared/data/hymenoptera

Ants or bees (`train` and `val`, a folder for each), EfficientNet-Lite0 pretrained on ImageNet at 224 pixels,
`fine_tune(3)` with all defaults, in a process of its own. Next to it, in turn: the same with what the defaults leave
out or put in, and fast.ai's recipe where that is installed. Prints, for each, the seconds of all of it, the seconds
until the validation accuracy first was `--accuracy`, the last accuracy and the most memory that the process had; with
the ratios to fast.ai. Each number is the median over `--rounds`, each with another seed.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from warmstart.vision import *

BS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/hymenoptera"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--accuracy", type=float, default=0.92)
    parser.add_argument("--only", choices=RECIPES, nargs="+")
    parser.add_argument("--run", choices=RECIPES, help=argparse.SUPPRESS)  # what a process of its own does
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(run(RECIPES[args.run], args.folder, args.seed)))
        return
    names = args.only or [name for name in RECIPES if name != "fast.ai" or importlib.util.find_spec("fastai")]
    found: dict[str, list[dict]] = {name: [] for name in names}
    for seed in range(args.rounds):
        for name in names:
            found[name].append(in_own_process(name, args.folder, seed))
    report({name: summary(runs, args.accuracy) for name, runs in found.items()}, args.accuracy)


# ---- the recipes: each trains, and tells the accuracy after each epoch


def ours(folder: Path, tell: Callable[[float], None], change: Callable[[Learner], Any] = lambda learn: None) -> None:
    data = ImageDataBunch.from_folder(
        folder, valid="val", item_tfms=Resize(256), batch_tfms=aug_transforms(size=224), bs=BS, num_workers=0
    )
    learn = vision_learner(data, efficientnet_lite0, metrics=accuracy)
    change(learn)
    learn.add_cb(Tell(tell))
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(3)


class Tell(Callback):
    """Calls `tell` with the accuracy after each epoch."""

    def __init__(self, tell: Callable[[float], None]):
        self.tell = tell

    order = 100

    def after_epoch(self, learn: Learner) -> None:
        self.tell(learn.recorder.history["accuracy"].iloc[-1])


def in_bfloat16(folder: Path, tell: Callable[[float], None]) -> None:
    ours(folder, tell, lambda learn: learn.to_bf16())


def fastai_recipe(folder: Path, tell: Callable[[float], None]) -> None:
    import fastai.vision.all as fastai

    class TellFastai(fastai.Callback):
        order = 100

        def after_epoch(self) -> None:
            tell(float(self.learn.recorder.values[-1][-1]))

    tfms = [*fastai.aug_transforms(size=224), fastai.Normalize.from_stats(*efficientnet_lite0.normalisation)]
    dls = fastai.ImageDataLoaders.from_folder(
        folder, valid="val", item_tfms=fastai.Resize(256), batch_tfms=tfms, bs=BS, num_workers=0
    )
    body = create_body(efficientnet_lite0)
    for block in body.modules():  # torch's own activation, as fast.ai's users have it
        for name, layer in block.named_children():
            if isinstance(layer, torch.nn.ReLU6):
                setattr(block, name, torch.nn.ReLU6(inplace=True))
    model = torch.nn.Sequential(body, fastai.create_head(num_features_model(body), 2))
    learn = fastai.Learner(dls, model, metrics=fastai.accuracy, splitter=lambda m: [*map(fastai.params, m)])
    learn.freeze()
    with learn.no_bar(), learn.no_logging():
        learn.add_cb(TellFastai())
        learn.fine_tune(3)


RECIPES: dict[str, Callable] = {"fast.ai": fastai_recipe, "warmstart": ours, "warmstart, bfloat16": in_bfloat16}


# ---- measuring


def in_own_process(name: str, folder: Path, seed: int) -> dict:
    command = [sys.executable, __file__, str(folder), "--run", name, "--seed", str(seed)]
    output = subprocess.run(command, capture_output=True, text=True)
    if output.returncode:
        raise RuntimeError(f"{name} failed:\n{output.stderr}")
    found = json.loads(output.stdout.splitlines()[-1])
    print(f"{name}: " + ", ".join(f"{a:.3f} after {t:.0f} s" for t, a in found["epochs"]), flush=True)
    return found


def run(recipe: Callable, folder: Path, seed: int) -> dict:
    """What the recipe has told, as (seconds, accuracy), all its seconds and the peak of memory in bytes."""
    set_seed(seed)
    begin, epochs = time.perf_counter(), []
    with contextlib.redirect_stdout(io.StringIO()):
        recipe(folder, lambda accuracy: epochs.append((time.perf_counter() - begin, accuracy)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"epochs": epochs, "seconds": time.perf_counter() - begin, "peak": peak}


def summary(runs: list[dict], enough: float) -> dict[str, float]:
    reached = [next((t for t, a in run["epochs"] if a >= enough), float("inf")) for run in runs]
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "reached": statistics.median(reached),
        "accuracy": statistics.median(run["epochs"][-1][1] for run in runs),
        "memory": statistics.median(run["peak"] for run in runs),
    }


def report(found: dict[str, dict[str, float]], enough: float) -> None:
    base = found.get("fast.ai")
    print(f"\n{'':22}  all of it       accuracy {enough:.2f}    last   memory")
    for name, row in found.items():
        shares = [row["seconds"], row["reached"], row["memory"]]
        if base:
            shares = [shares[0] / base["seconds"], shares[1] / base["seconds"], shares[2] / base["memory"]]
        all_of_it, reached, memory = (f"({share:.2f})" if base else "" for share in shares)
        print(
            f"{name:22}  {row['seconds']:5.0f} s {all_of_it:7} {row['reached']:5.0f} s {reached:7} "
            f"  {row['accuracy']:.3f}  {row['memory'] / 1e9:4.1f} GB {memory}"
        )
    if base:
        print("In brackets: the share of fast.ai's time for all of it, or of its memory.")


if __name__ == "__main__":
    main()
