"""All tests run on one thread: the networks are small, and more threads only wait for each other on shared cores.

Each core has a process of pytest-xdist instead, which runs whole files, as their tests share what is slow to make.
"""

import os
import shutil
import subprocess

import pytest
import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of one megabyte, small enough to be full, and a function that makes it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
