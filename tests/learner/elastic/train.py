"""A small fit with checkpoints, for tests of what becomes of it: `torchrun … train.py FOLDER`.

Where `FOLDER/incidents` has a file `EPOCH-BATCH-RANK-name`, that incident happens to that rank there, once.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset
from warmstart.callbacks import Callback
from warmstart.data import DataBunch
from warmstart.learner import Checkpoint, Learner, set_seed

N_ITEMS = 72  # 6 batches of 4 for each of three processes, 9 for each of two


def kill_worker():
    os.kill(os.getpid(), signal.SIGKILL)


def lose_machine():
    os.kill(os.getppid(), signal.SIGKILL)  # torchrun
    kill_worker()


def unplug():
    """Nobody is told that the machine is lost: no connection is closed."""
    subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)
    lose_machine()


INCIDENTS = {
    "kill": kill_worker,
    "lose": lose_machine,
    "unplug": unplug,
    "end": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "tell": lambda: os.kill(os.getpid(), signal.SIGUSR1),
}


class Incidents(Callback):
    """Lets happen what is planned, after the checkpoint of a batch has been written, where it was."""

    order = 99

    def __init__(self, folder):
        self.folder = folder

    def after_batch(self, learn):
        if learn.training:
            for file in self.folder.glob(f"{learn.epoch}-{learn.iter}-{learn.ranks.rank}-*"):
                file.unlink()
                INCIDENTS[file.name.split("-")[-1]]()


class Items(Callback):
    """Notes the items of each epoch, of all ranks; those of steps that a restart takes back are forgotten by it."""

    state_names = ("epochs",)

    def __init__(self):
        self.epochs = []

    def before_batch(self, learn):
        if learn.training:
            if learn.epoch == len(self.epochs):
                self.epochs.append([])
            items = (learn.xb[0][:, 0] * N_ITEMS).round().int().tolist()
            self.epochs[-1] += [item for part in learn.ranks.gather(items) for item in part]


def samples(n):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    x[:, 0] = torch.arange(n) / N_ITEMS
    return TensorDataset(x, (x.sum(1) > 0).long())


def train(folder):
    """Train with the processes that were started together; what came out."""
    torch.set_num_threads(1)
    set_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    data = DataBunch.from_dsets(samples(N_ITEMS), samples(20), bs=4, device="cpu", seed=2)
    learn = Learner(data, model, nn.CrossEntropyLoss(), lr=1e-2).to_distributed(timeout=8)
    learn.progress.bar = False
    items = Items()
    learn.fit_one_cycle(2, cbs=[items, Checkpoint(folder / "run", every=2), Incidents(folder / "incidents")])
    weights = torch.cat([value.flatten() for value in learn.model.state_dict().values()]).tolist()
    return {"weights": weights, "losses": learn.recorder.losses, "items": items.epochs, "n": learn.ranks.n}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.save(train(folder), folder / f"result-{os.environ['RANK']}.pt")
