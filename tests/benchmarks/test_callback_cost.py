"""The benchmark of callbacks knows all of them, and measures each."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
import warmstart
from warmstart import callbacks
from warmstart.callbacks import Callback

torch.set_num_threads(1)  # as the script does
SCRIPT = Path(warmstart.__file__).parent / "benchmarks/callback_cost.py"


@pytest.fixture(scope="module")
def cost():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("callback_cost", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_callback_that_needs_no_tool_is_measured(cost, tmp_path):
    names = [name for name in cost.available() if name not in cost.TOOLS]
    base, rows = cost.measure(names, rounds=1, n_batches=10, folder=tmp_path)
    assert base > 0 and list(rows) == names
    assert all(math.isfinite(added) and ratio > 0 for added, ratio in rows.values())
    assert all(len(line) <= 80 for line in cost.table(base, rows))


def test_a_new_callback_cannot_be_forgotten(cost, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "Newcomer", type("Newcomer", (Callback,), {}), raising=False)
    monkeypatch.setattr(callbacks, "__all__", [*callbacks.__all__, "Newcomer"])
    with pytest.raises(ValueError, match="not measured: Newcomer"):
        cost.measure([], rounds=1, n_batches=10, folder=tmp_path)
