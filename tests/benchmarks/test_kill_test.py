"""Runs that are killed at random moments end with the weights of one that is not: a few trials of the benchmark."""

import subprocess
import sys
from pathlib import Path

import warmstart

SCRIPT = Path(warmstart.__file__).parent / "benchmarks/kill_test.py"


def test_runs_that_are_killed_end_with_the_weights_of_the_undisturbed_one(tmp_path):
    output = tmp_path / "output"  # a pipe would be read until the last worker that outlives its process for a moment
    with output.open("w") as file:
        command = [sys.executable, SCRIPT, "2", "--seed", "1"]  # with it each series begins with an early kill
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=300, check=False)
    assert done.returncode == 0, output.read_text()
    lines = [line for line in output.read_text().splitlines() if line.startswith("workers")]
    for workers, line in zip((0, 2), lines, strict=True):
        assert line.startswith(f"workers {workers}: 2 of 2 runs ended with the weights of the undisturbed one, after")
        n_kills, in_writes = numbers(line)
        assert n_kills >= 1 and in_writes <= n_kills  # the others, and what they hit, are chance


def numbers(line):
    """How many kills there were, and how many of them while a checkpoint was written."""
    words = [word for word in line.replace(",", " ").split() if word.isdigit()]
    return int(words[-2]), int(words[-1])
