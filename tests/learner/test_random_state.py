"""Seeds, and random states that are kept."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from warmstart.learner import set_seed
from warmstart.learner.random_state import kept_random_state

CPU = torch.device("cpu")


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_the_same_seed_gives_the_same_numbers():
    set_seed(3)
    first = draw()
    set_seed(3)
    assert draw() == first != draw()


def test_any_whole_number_is_a_seed():
    for seed in (0, -1, 2**40):
        set_seed(seed)
        first = draw()
        set_seed(seed)
        assert draw() == first


def test_reproducible_asks_torch_for_deterministic_algorithms_and_a_plain_seed_does_not(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        set_seed(1)
        assert not torch.are_deterministic_algorithms_enabled()
        set_seed(1, reproducible=True)
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_later_seed_leaves_reproducible_on(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        set_seed(1, reproducible=True)
        set_seed(2)
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # the user's own choice
    finally:
        torch.use_deterministic_algorithms(False)


TRAINING = """
import hashlib, json, sys
import torch
from torch import nn
from warmstart.vision import *

def net():
    body = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 2))

def trained(seed, num_workers):
    set_seed(seed, reproducible=True)
    block = DataBlock((ImageBlock, CategoryBlock), get_image_files, get_y=parent_label,
                      splitter=RandomSplitter(0.25), item_tfms=RandomResizedCrop(24),
                      batch_tfms=[*aug_transforms(size=16), RandomErasing(p=0.5)])
    data = block.databunch(sys.argv[1], bs=4, num_workers=num_workers, device="cpu")
    learn = Learner(data, net(), lr=0.01)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2)
    weights = b"".join(value.numpy().tobytes() for value in learn.model.state_dict().values())
    return hashlib.sha256(weights).hexdigest()

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([trained(1, 0), trained(1, 2), trained(2, 0)]))
"""


def test_training_anew_in_another_process_gives_the_same_weights_to_the_last_bit(tmp_path):
    """With dropout, augmentation, and other numbers of workers; but not with another seed."""
    noise = np.random.default_rng(0)
    for i in range(24):
        file = tmp_path / "photos" / ("red", "blue")[i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (32, 28, 3), dtype=np.uint8)).save(file)
    (tmp_path / "training.py").write_text(TRAINING)

    found = []
    for hash_seed in "12":  # by which Python orders sets of strings, at random if it is not set
        done = subprocess.run(
            [sys.executable, tmp_path / "training.py", tmp_path / "photos"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    (first, with_workers, other_seed), again = found
    assert again == found[0]
    assert first == with_workers != other_seed


def test_random_numbers_go_on_as_if_nothing_had_been_drawn():
    set_seed(3)
    expected = draw()
    set_seed(3)
    with kept_random_state(CPU):
        draw(), set_seed(7)
    assert draw() == expected


def test_an_error_inside_keeps_the_state_too():
    set_seed(3)
    expected = draw()
    set_seed(3)
    with pytest.raises(KeyboardInterrupt), kept_random_state(CPU):
        draw()
        raise KeyboardInterrupt
    assert draw() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_state_of_a_gpu_is_kept():
    device = torch.device("cuda", 0)
    torch.manual_seed(3)
    expected = torch.rand(1, device=device)
    torch.manual_seed(3)
    with kept_random_state(device):
        torch.rand(1, device=device)
    assert torch.equal(torch.rand(1, device=device), expected)
