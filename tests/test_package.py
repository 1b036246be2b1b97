"""What people install: the modules and nothing beside them, few dependencies, extras for the rest."""

import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import warmstart

ROOT = Path(warmstart.__file__).parent
FOLDERS = [init.parent for init in ROOT.glob("*/__init__.py")]
MODULES = [*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in folder.rglob("*.py"))]
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "demo", "dist")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, which keeps the build's own files out of the working tree."""
    tree = tmp_path_factory.mktemp("build") / "tree"
    shutil.copytree(ROOT, tree, ignore=NOT_SOURCE)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree / "dist"), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next((tree / "dist").glob("*.whl"))) as wheel:
        yield wheel


@pytest.fixture(scope="module")
def metadata(wheel):
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_string(wheel.read(name).decode())


def test_the_wheel_holds_the_modules_and_nothing_else(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == {f"warmstart/{file.relative_to(ROOT).as_posix()}" for file in MODULES} | {"warmstart/py.typed"}


def test_the_wheel_carries_version_and_licence(wheel, metadata):
    assert metadata["Version"] == warmstart.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_six_packages_are_needed_and_torch_has_no_upper_bound(metadata):
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    names = [re.split(r"[<>=!~ ]", line)[0] for line in needed]
    assert sorted(names) == ["fastprogress", "matplotlib", "pandas", "pillow", "torch", "torchvision"]
    assert not any("<" in line for line in needed if line.startswith("torch"))


def test_extras_bring_the_rest(metadata):
    extras = {"text", "hub", "track", "export", "detection", "dicom", "jpeg", "demo", "nbs", "dev", "ray"}
    assert set(metadata.get_all("Provides-Extra")) == extras


@pytest.mark.parametrize("domain", ["vision", "text"])
def test_a_star_import_leaves_torchs_dataset_which_people_derive_theirs_from(domain):
    assert "Dataset" not in importlib.import_module(f"warmstart.{domain}").__all__
