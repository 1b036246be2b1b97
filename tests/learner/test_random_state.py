"""Seeds, and random states that are kept."""

import os
import random

import numpy as np
import pytest
import torch
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
