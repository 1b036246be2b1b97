"""Ray Train runs the same function as `launch` does, and comes to the same.

Run as a script this file is what starts Ray: a process that has done so is not one to be forked.
"""

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from warmstart.callbacks import Callback
from warmstart.data import DataBunch
from warmstart.learner import Checkpoint, Learner, accuracy, launch, set_seed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
TIMEOUT = 300  # seconds


def samples(n, seed=0):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x.sum(1) > 0).long())


def own_data():
    return DataBunch.from_dsets(samples(120), samples(37, seed=1), bs=8, val_bs=8, device="cpu", seed=3)


def loaders(prepare):
    """Data of ordinary loaders, of which `prepare` has parted the first."""
    return DataBunch(
        prepare(DataLoader(samples(120), 8, shuffle=True)), DataLoader(samples(37, seed=1), 8), device="cpu"
    )


def with_torchs_sampler(dl):
    return DataLoader(dl.dataset, dl.batch_size, sampler=DistributedSampler(dl.dataset))


class End(Callback):
    """Ends the process of rank 1 in the second epoch."""

    order = 99  # when the checkpoint has been written, if it was

    def after_batch(self, learn):
        if learn.training and (learn.ranks.rank, learn.epoch, learn.iter) == (1, 1, 2):
            os.kill(os.getpid(), signal.SIGKILL)


def train(how="to_distributed", data=own_data, cbs=()):
    """What a script does; returns what came of it on this rank."""
    set_seed(1)
    model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 2))
    learn = Learner(data(), model, nn.CrossEntropyLoss(), optim.AdamW, lr=1e-2, metrics=accuracy)
    learn.progress.bar = learn.progress.table = False
    getattr(learn, how)(timeout=60)
    learn.fit_one_cycle(3, cbs=list(cbs))
    preds, targs = learn.get_preds()
    weights = {
        name: value.full_tensor() if how == "to_fsdp" else value for name, value in learn.model.state_dict().items()
    }
    return {"weights": weights, "losses": learn.recorder.losses, "preds": preds, "targs": targs,
            "results": learn.validate()}  # fmt: skip


def train_in_all_ways(prepare):
    return {
        "to_distributed": train(),
        "to_fsdp": train("to_fsdp"),
        "loaders that are parted": train(data=partial(loaders, prepare)),
    }


@pytest.fixture(scope="module")
def in_ray(tmp_path_factory):
    """The folder in which a run in Ray has left what came of it, by rank."""
    pytest.importorskip("ray", reason="comes with the extra ray")
    folder = tmp_path_factory.mktemp("ray")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, folder],
        env=environment,
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def found_by_rank(folder):
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def launched():
    return launch(train_in_all_ways, [with_torchs_sampler])


@pytest.mark.parametrize("way", ["to_distributed", "to_fsdp", "loaders that are parted"])
def test_every_rank_comes_to_what_it_comes_to_with_launch(in_ray, launched, way):
    for found, expected in zip(found_by_rank(in_ray), launched, strict=True):
        torch.testing.assert_close(found[way], expected[way], atol=1e-6, rtol=1e-6)


def test_a_worker_that_is_lost_is_started_again_and_the_checkpoint_goes_on(in_ray, launched):
    for found, expected in zip(found_by_rank(in_ray), launched, strict=True):
        assert found["attempts"] == 2
        torch.testing.assert_close(found["went on"], expected["to_distributed"], atol=1e-6, rtol=1e-6)
    assert (in_ray / "run" / "run.json").is_file()


def test_the_function_runs_in_a_thread_there(in_ray):
    assert [found["is_main_thread"] for found in found_by_rank(in_ray)] == [False, False]


def train_in_ray(folder):
    """What a worker does: it is lost the first time."""
    import ray.train
    from ray.train.torch import prepare_data_loader

    rank = ray.train.get_context().get_world_rank()
    attempts = folder / f"attempts{rank}"
    with attempts.open("a") as file:
        file.write("x")
    checkpoint = Checkpoint(folder / "run", every=2, allow_changes=True)
    n_attempts = attempts.stat().st_size
    found = {"went on": train(cbs=[checkpoint, *([End()] if n_attempts == 1 else [])]), "attempts": n_attempts}
    found |= train_in_all_ways(prepare_data_loader)
    found["is_main_thread"] = threading.current_thread() is threading.main_thread()
    torch.save(found, folder / f"rank{rank}.pt")
    ray.train.report(found["went on"]["results"])


def main(folder):
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    scaling_config = ScalingConfig(num_workers=2, use_gpu=False)
    run_config = RunConfig(storage_path=str(folder / "storage"), failure_config=FailureConfig(max_failures=1))
    trainer = TorchTrainer(partial(train_in_ray, folder), scaling_config=scaling_config, run_config=run_config)
    try:
        trainer.fit()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
