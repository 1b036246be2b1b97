import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the networks are small: more threads only wait for each other where cores are shared
settings.register_profile("any machine", deadline=None)  # a busy one may take its time for an example
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Caches go to a folder of the test."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("WARMSTART_HOME", str(folder))
    return folder
