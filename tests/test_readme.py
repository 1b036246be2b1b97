"""The Python of README and of docs/scaling.md and systems.md runs as it stands: all blocks of a page in order, in a
folder with `photos/ants` and `photos/bees`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warmstart
from matplotlib import pyplot as plt
from PIL import Image, ImageDraw

ROOT = Path(warmstart.__file__).parent
README, SCALING, SYSTEMS = ROOT / "README.md", ROOT / "docs" / "scaling.md", ROOT / "docs" / "systems.md"


@pytest.fixture
def in_folder_with_photos(tmp_path, monkeypatch):
    """20 pictures of each kind: dark ellipses in a row on sand, yellow ones with stripes on green."""
    for number in range(20):
        draw_insect(tmp_path / f"photos/ants/{number:03}.jpg", "wheat", "saddlebrown", number)
        draw_insect(tmp_path / f"photos/bees/{number:03}.jpg", "palegreen", "gold", number)
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def draw_insect(file: Path, ground: str, colour: str, number: int) -> None:
    image = Image.new("RGB", (320, 260 + number), ground)
    draw = ImageDraw.Draw(image)
    for part in range(3):
        x, y = 40 + 3 * number + 60 * part, 80 + 5 * number
        draw.ellipse((x, y, x + 70, y + 50), fill=colour, outline="black", width=4)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.rotate(17 * number, fillcolor=ground).save(file)


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run_blocks(page: Path, blocks: list[str]) -> dict:
    """What the names of the blocks are in the end."""
    namespace: dict = {"__name__": page.name}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
    return namespace


def run_script(*command: str | Path) -> str:
    """What a new process prints. It has one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=480, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_blocks_run_in_order(in_folder_with_photos):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    blocks = blocks_of(README, "python")
    assert len(blocks) >= 7
    namespace = run_blocks(README, blocks)
    assert namespace["label"] in ("ants", "bees")
    assert namespace["sums"].recorder.history["valid_loss"].iloc[-1] < 10  # the variance of y is 20


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_python_blocks_of_the_page_on_scaling_run_in_order(in_folder_with_photos, capsys):
    torch.manual_seed(0)
    namespace = run_blocks(SCALING, [block for block in blocks_of(SCALING, "python") if "ray" not in block])
    torch.use_deterministic_algorithms(False)  # which one of them has switched on
    assert namespace["first"]["accuracy"] > 0.4
    assert "small holds a run that differs from this one: the learning rate was 0.01" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:EMA")
def test_python_blocks_of_the_page_on_systems_run_in_order(in_folder_with_photos):
    namespace = run_blocks(SYSTEMS, blocks_of(SYSTEMS, "python"))
    assert namespace["images"].shape == (9, 1, 16, 16)
    assert sorted(file.name for file in Path("samples").iterdir()) == ["0001.png", "0002.png"]


def scripts_of(page: Path) -> None:
    """Write the blocks that begin with the name of a file to that file."""
    for block in blocks_of(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            Path(name[1]).write_text(block, encoding="utf-8")


def test_the_script_runs_by_torchrun_and_is_not_repeated(in_folder_with_photos):
    scripts_of(SCALING)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py")
    assert run_script(*torchrun).count("accuracy") == 2  # a table for each of the two fits
    assert run_script(*torchrun).count("which was done before: nothing is trained") == 2


def test_the_script_runs_in_ray(in_folder_with_photos):
    pytest.importorskip("ray")
    scripts_of(SCALING)
    run_script(sys.executable, "train_with_ray.py")
    assert Path("last.pth").exists() and Path("run/run.json").exists()


@pytest.mark.parametrize("block", blocks_of(SCALING, "bash"))
def test_shell_blocks_are_shell(block):
    assert subprocess.run(["bash", "-n"], input=block, text=True).returncode == 0
