from pathlib import Path

from warmstart.data.home import warmstart_home


def test_home_is_in_the_cache_folder_of_the_user(monkeypatch):
    monkeypatch.delenv("WARMSTART_HOME", raising=False)
    assert warmstart_home() == Path.home() / ".cache" / "warmstart"


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WARMSTART_HOME", str(tmp_path))
    assert warmstart_home() == tmp_path


def test_an_empty_variable_counts_as_none(monkeypatch):
    monkeypatch.setenv("WARMSTART_HOME", "")
    assert warmstart_home() == Path.home() / ".cache" / "warmstart"


def test_a_tilde_is_the_users_folder(monkeypatch):
    monkeypatch.setenv("WARMSTART_HOME", "~/models")
    assert warmstart_home() == Path.home() / "models"
