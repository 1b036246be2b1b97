"""Processes that read data."""

import signal
import subprocess
import sys
from textwrap import dedent

import pytest
import torch
from warmstart.data.workers import CAN_FORK, default_workers


def test_workers_are_as_many_as_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(64), raising=False)
    monkeypatch.setattr("warmstart.data.workers.CAN_FORK", True)
    assert default_workers(torch.device("cuda")) == 8
    assert default_workers(torch.device("cpu")) == 0
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(3), raising=False)
    assert default_workers(torch.device("cuda")) == 3
    monkeypatch.setattr("warmstart.data.workers.CAN_FORK", False)
    assert default_workers(torch.device("cuda")) == 0


@pytest.mark.skipif(not CAN_FORK, reason="where processes are forked")
def test_workers_that_begin_when_their_process_is_killed_end_too():
    beginning = """
        import os, signal, time, torch
        from warmstart.data import Dataset, RegressionBlock
        from warmstart.data.loaders import make_loader

        dl = make_loader(Dataset([1, 2, 3, 4], [RegressionBlock()], [None], training=True), 2, 2, torch.device("cpu"))
        torch.set_num_threads = lambda n: time.sleep(0.2)  # the first that a worker does: its process is gone by then
        iter(dl)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", dedent(beginning)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)  # its workers hold the pipe, too
    assert done.returncode == -signal.SIGKILL
