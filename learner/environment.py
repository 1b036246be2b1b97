"""What a run happened in: versions, device, threads, the command and the state of its repository."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from .. import __version__
from .files import one_line

__all__ = ["environment", "environment_changes", "git_state"]

PATIENCE = 2.0  # seconds for git
AFFECTS_NUMBERS = {
    "device": "the device",
    "processes": "the number of processes",
    "threads": "the number of threads",
    "deterministic": "whether torch uses deterministic algorithms",
    "matmul_precision": "torch's precision of float32 matrix products",
    "platform": "the platform",
}


def environment(device: torch.device, n_processes: int = 1) -> dict[str, Any]:
    """What a run on `device` happens in, as JSON values; `start` is the time, in UTC."""
    return {
        "versions": {
            "warmstart": __version__,
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "platform": platform.platform(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "processes": n_processes,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "argv": list(sys.argv),
        "folder": os.getcwd(),
        "git": git_state(_script_folder()),
        "start": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    }


def _device_name(device: torch.device) -> str:
    """The device and what it is: 'cuda: NVIDIA A100', 'cpu: x86_64, AVX2'."""
    if device.type == "cpu":
        return f"cpu: {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def _script_folder() -> Path:
    """Where the script is that runs, of a notebook the working folder."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return Path(file).resolve().parent if file else Path.cwd()


def git_state(folder: str | Path) -> dict[str, Any] | None:
    """`commit`, `branch` and whether tracked files have changed (`dirty`), of the repository that `folder` is in.

    None where there is none, or no git, or one that takes more than two seconds. Without a commit, or on none of its
    branches, these are None. It only reads.
    """
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    about = dict(line.removeprefix("# branch.").split(" ", 1) for line in lines if line.startswith("# branch."))
    commit, branch = about.get("oid"), about.get("head")
    return {
        "commit": None if commit == "(initial)" else commit,
        "branch": None if branch == "(detached)" else branch,
        "dirty": any(not line.startswith("#") for line in lines),
    }


def environment_changes(old: Any, new: Mapping[str, Any]) -> list[str]:
    """Sentences on what differs between the environments of two records, and can make other numbers of the same fit.

    What the older record does not know is passed over. It may come from a file, and be anything.
    """
    before, now = _part(old, "environment"), new["environment"]
    versions = _part(before, "versions")
    pairs = [(f"the version of {name}", versions.get(name), is_) for name, is_ in now["versions"].items()]
    pairs += [(what, before.get(name), now[name]) for name, what in AFFECTS_NUMBERS.items()]
    return [f"{what} was {one_line(was)} and is {is_}" for what, was, is_ in pairs if was is not None and was != is_]


def _part(record: Any, name: str) -> dict[str, Any]:
    found = record.get(name) if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}
