"""README's Python runs as it stands: all blocks in order, in a folder that has `photos/ants` and `photos/bees`."""

import re
from pathlib import Path

import pytest
import torch
import warmstart
from matplotlib import pyplot as plt
from PIL import Image, ImageDraw

README = Path(warmstart.__file__).parent / "README.md"


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


def test_python_blocks_run_in_order(in_folder_with_photos):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 7
    namespace: dict = {}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README.md, block {number}", "exec"), namespace)
    assert namespace["label"] in ("ants", "bees")
    assert namespace["sums"].recorder.history["valid_loss"].iloc[-1] < 10  # the variance of y is 20
