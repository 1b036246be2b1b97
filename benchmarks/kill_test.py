"""Does a run that is killed again and again end with the same weights as one that is left alone?

    python benchmarks/kill_test.py 50

Fine: "50 of 50 runs ended with the weights of the undisturbed one". Each trial trains in a process of its own, kills it
with SIGKILL at a random moment – every third time within the writing of a checkpoint – and runs it again until it is
done. The training has all that makes exact resuming hard: photos from files with random augmentation by item and by
batch, loader workers, dropout, BatchNorm, gradients accumulated over two batches, an average of the weights (EMA),
bfloat16, MixUp, one-cycle, and a second fit after the first. About 3 s a trial on two cores.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import tempfile
import time
import warnings
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from warmstart.callbacks import EMA, GradientAccumulation, MixUp
from warmstart.data import CategoryBlock, DataBlock, RandomSplitter, parent_label
from warmstart.learner import Checkpoint, Learner, accuracy, set_seed
from warmstart.vision import ImageBlock, RandomResizedCrop, aug_transforms, get_image_files

PROCESSES = multiprocessing.get_context("forkserver")  # each a fresh one, that need not import torch again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=int, nargs="?", default=50)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the loader, one series for each")
    parser.add_argument("--kills", type=int, default=4, help="at most, in a trial")
    parser.add_argument("--seed", type=int, default=1, help="of the moments, the same for each series")
    args = parser.parse_args()
    PROCESSES.set_forkserver_preload(["warmstart.vision"])
    results = [series(args.trials, workers, args.kills, args.seed) for workers in args.workers]
    raise SystemExit(not all(results))


def series(trials: int, workers: int, kills: int, seed: int) -> bool:
    """Run that many trials; print what came out; whether all were right."""
    random.seed(seed)
    right, n_kills, in_writes = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        save_photos(path / "photos")
        run_once(path / "photos", path / "first", workers)  # which starts the server of processes, too
        begun = time.monotonic()
        run_once(path / "photos", path / "undisturbed", workers)
        duration, expected = time.monotonic() - begun, result(path / "undisturbed")
        if result(path / "first") != expected:
            raise SystemExit("Two undisturbed runs did not come to the same: there is nothing to compare with.")
        for trial in range(trials):
            killed, within = killed_run(path / "photos", path / f"{trial}", workers, kills, duration)
            right += result(path / f"{trial}") == expected
            n_kills, in_writes = n_kills + killed, in_writes + within
    print(f"workers {workers}: {right} of {trials} runs ended with the weights of the undisturbed one, "
          f"after {n_kills} kills, {in_writes} of them within the writing of a checkpoint", flush=True)  # fmt: skip
    return right == trials


def killed_run(photos: Path, run: Path, workers: int, kills: int, duration: float) -> tuple[int, int]:
    """Kill a run up to so many times, and let it come to its end; (kills, of them within a write)."""
    killed = within = 0
    for attempt in range(kills):
        process = start(photos, run, workers)
        in_write = attempt % 3 == 2
        if in_write:
            wait_for_write(process, run / "run", random.uniform(0, duration / 2))
        else:
            process.join(random.uniform(0, duration))
        writing = is_writing(run / "run")
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        killed, within = killed + 1, within + writing
    run_once(photos, run, workers)
    return killed, within


def start(photos: Path, run: Path, workers: int) -> BaseProcess:
    """Begin a run that will be killed, so that the last words of its orphaned workers do not matter."""
    process = PROCESSES.Process(target=train_in_silence, args=(photos, run, workers))
    process.start()
    return process


def run_once(photos: Path, run: Path, workers: int) -> None:
    process = PROCESSES.Process(target=train, args=(photos, run, workers))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"The training script failed with exit code {process.exitcode}: see its message above.")


def wait_for_write(process: BaseProcess, folder: Path, after: float) -> None:
    """Come back when a checkpoint is being written, once that long has passed, or when the process has ended."""
    end = time.monotonic() + after
    while process.is_alive() and (time.monotonic() < end or not is_writing(folder)):
        time.sleep(0.0002)


def is_writing(folder: Path) -> bool:
    return folder.is_dir() and any(name.endswith(".part") for name in os.listdir(folder))


def result(run: Path) -> str:
    return (run / "weights.sha256").read_text()


def save_photos(folder: Path, n: int = 96) -> None:
    """Pictures of two classes, as files."""
    noise = np.random.default_rng(0)
    for i in range(n):
        name = ("dark", "light")[i % 2]
        pixels = np.clip(noise.normal(100 + 40 * (i % 2), 50, (40, 40, 3)), 0, 255).astype(np.uint8)
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{i:03}.png")


def train_in_silence(photos: Path, run: Path, workers: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    train(photos, run, workers)


def train(photos: Path, run: Path, workers: int) -> None:
    """The training script; it says nothing of being killed."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "EMA|This CPU has no")
    set_seed(42, reproducible=True)
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=RandomSplitter(0.2, seed=1),
        item_tfms=RandomResizedCrop(32),
        batch_tfms=aug_transforms(size=24),
    )
    data = block.databunch(photos, bs=8, num_workers=workers, device="cpu", seed=7)
    body = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Dropout(0.2)
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    learn = Learner(data, model, metrics=accuracy).to_bf16()
    cbs = [EMA(0.9), MixUp(), GradientAccumulation(16), Checkpoint(run / "run", every=2)]
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 1e-2, cbs=cbs)
        learn.fit_flat_cos(1, 1e-3, cbs=cbs)
    weights = b"".join(value.numpy().tobytes() for value in learn.model.state_dict().values())
    losses = repr((learn.recorder.losses, learn.validate())).encode()
    (run / "weights.sha256").write_text(hashlib.sha256(weights + losses).hexdigest())


if __name__ == "__main__":
    main()
