"""Memory: read from the system, by stage and epoch."""

import resource

import pytest
import torch
from torch import nn
from warmstart.callbacks import Callback, memory
from warmstart.callbacks.memory import MemoryUse, device_memory, memory_in_use

CPU = torch.device("cpu")
MIB = 2**20


def test_the_table_has_a_row_per_epoch_over_all_fits(make_learn):
    learn, use = make_learn(), MemoryUse()
    learn.fit(2, cbs=use)
    learn.fit(1, cbs=use)
    table = use.table
    assert list(table) == ["forward", "backward", "step", "validation", "peak"] and len(table) == 3
    assert (table.drop(columns="peak").max(axis=1) == table["peak"]).all()
    assert table["peak"].max() <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + 1


def test_what_does_not_happen_has_no_number(make_learn):
    learn, use = make_learn(valid=None), MemoryUse()
    learn.fit(1, cbs=use)
    assert use.table["validation"].isna().all() and use.table["peak"].notna().all()


def test_memory_is_seen_in_the_stage_that_takes_it(make_learn):
    class Hog(Callback):
        """Holds 64 MiB between the backward pass and the end of the step."""

        def after_backward(self, learn):
            self.held = torch.ones(64 * MIB // 4)

        def before_step(self, learn):
            self.held = None

    learn, use = make_learn(train=(8,)), MemoryUse()
    learn.fit(1, cbs=[use, Hog()])
    row = use.table.iloc[0]
    assert row["backward"] - row["forward"] > 50
    assert row["backward"] == row["peak"]


def test_the_cpus_memory_is_the_processs():
    before = memory_in_use(CPU)
    held = torch.ones(64 * MIB // 4)
    assert 50 < memory_in_use(CPU) - before < 80
    del held


def test_without_proc_the_largest_so_far_is_taken(monkeypatch):
    monkeypatch.setattr(memory, "ON_LINUX", False)
    assert memory_in_use(CPU) == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, rel=0.01)


def test_the_device_says_how_much_it_has(make_learn):
    learn, use = make_learn(), MemoryUse()
    learn.fit(1, cbs=use)
    assert use.device == device_memory(CPU)
    assert use.device["total"] > memory_in_use(CPU) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_peak_is_torchs(make_learn):
    learn, use = make_learn(model=nn.Linear(4, 3)), MemoryUse()
    learn.data.to("cuda")
    learn.fit(1, cbs=use)
    assert use.table["peak"][0] == torch.cuda.max_memory_allocated() / MIB
    assert use.device["free"] <= use.device["total"]
