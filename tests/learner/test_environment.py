"""The environment of a run: complete, and none of it needed."""

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
import torch
from warmstart.learner import environment as module
from warmstart.learner.environment import environment, environment_changes, git_state

AUTHOR = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main"]


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "train.py").write_text("one")
    git(folder, "add", "train.py")
    git(folder, "commit", "-qm", "first")
    return folder


def git(folder, *arguments):
    done = subprocess.run(["git", *AUTHOR, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def record(**changes):
    return {"environment": {**environment(torch.device("cpu")), **changes}}


def test_it_is_complete():
    found = environment(torch.device("cpu"), n_processes=2)
    assert set(found["versions"]) == {"warmstart", "torch", "torchvision", "numpy", "python"}
    assert found["versions"]["torch"] == torch.__version__
    assert found["device"].startswith("cpu: ")
    assert (found["threads"], found["processes"]) == (torch.get_num_threads(), 2)
    assert (found["argv"], found["folder"]) == (sys.argv, os.getcwd())
    assert set(found) >= {"platform", "git", "deterministic", "matmul_precision"}
    start = datetime.fromisoformat(found["start"])
    assert abs(datetime.now(timezone.utc) - start) < timedelta(seconds=30)  # noqa: UP017  # Python 3.10 has no UTC


def test_commit_branch_and_changes_of_a_repository_are_told(repository):
    head = git(repository, "rev-parse", "HEAD")
    assert git_state(repository) == {"commit": head, "branch": "main", "dirty": False}
    (repository / "new.txt").write_text("no tracked file")
    assert git_state(repository) == {"commit": head, "branch": "main", "dirty": False}
    (repository / "train.py").write_text("two")
    assert git_state(repository) == {"commit": head, "branch": "main", "dirty": True}
    git(repository, "checkout", "-q", "--detach")
    assert git_state(repository) == {"commit": head, "branch": None, "dirty": True}


def test_a_folder_in_a_repository_belongs_to_it(repository):
    (repository / "inside").mkdir()
    assert git_state(repository / "inside") == git_state(repository)


def test_a_repository_without_a_commit_has_none(tmp_path):
    git(tmp_path, "init", "-q")
    state = git_state(tmp_path)
    assert state is not None and state["commit"] is None


def test_looking_changes_nothing_in_the_repository(repository):
    before = {file: file.stat().st_mtime_ns for file in (repository / ".git").rglob("*")}
    git_state(repository)
    assert before == {file: file.stat().st_mtime_ns for file in (repository / ".git").rglob("*")}


def test_without_a_repository_without_git_and_with_a_slow_one_there_is_none(tmp_path, repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "nowhere") is None
    monkeypatch.setattr(module, "PATIENCE", 1e-9)
    assert git_state(repository) is None
    monkeypatch.setattr(module, "PATIENCE", 2.0)
    monkeypatch.setenv("PATH", "")
    assert git_state(repository) is None


def test_what_can_change_numbers_is_named():
    for changes, sentence in (
        ({"threads": 7}, "the number of threads was 1 and is 7"),
        ({"processes": 4}, "the number of processes was 1 and is 4"),
        ({"device": "cuda: NVIDIA T4"}, "and is cuda: NVIDIA T4"),
        ({"versions": {"torch": "1.0"}}, f"the version of torch was {torch.__version__} and is 1.0"),
        ({"deterministic": True}, "whether torch uses deterministic algorithms was False and is True"),
    ):
        changed = environment_changes(record(threads=1), record(**{"threads": 1, **changes}))
        assert len(changed) == 1 and sentence in changed[0]


def test_what_cannot_change_numbers_is_no_change():
    other = record(argv=["x"], folder="/", git={"commit": "abc"}, start="2000-01-01T00:00:00+00:00")
    assert environment_changes(record(), other) == []


def test_what_the_older_record_does_not_know_is_passed_over():
    for old in (None, {}, {"environment": 3}, {"environment": {"versions": ["torch"], "x": {}}}):
        assert environment_changes(old, record()) == []
