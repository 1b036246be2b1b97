"""Pictures of samples in a grid, or a table of them where there is nothing to draw."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from .blocks import Block

__all__ = ["draw_grid", "draw_sample", "in_notebook", "show_samples", "show_table"]


def in_notebook() -> bool:
    """Whether this code runs in a Jupyter kernel, which can display rich output."""
    try:
        return type(get_ipython()).__name__ == "ZMQInteractiveShell"  # type: ignore[name-defined]
    except NameError:
        return False


def draw_grid(
    draws: Sequence[Callable[[Any], None]], n_cols: int | None = None, size: float = 2.4, title: str | None = None
) -> None:
    """One axes without ticks for each of `draws`, which get it; `size` in inches, `title` above all."""
    from matplotlib import pyplot as plt

    n_cols = n_cols or min(len(draws), math.ceil(math.sqrt(len(draws)))) or 1
    n_rows = math.ceil(len(draws) / n_cols) or 1
    figsize = (size * n_cols, size * n_rows + (0.3 if title else 0))
    figure, axes = plt.subplots(n_rows, n_cols, figsize=figsize, squeeze=False, layout="compressed")
    if title:
        figure.suptitle(title, fontsize=10)
    for ax in axes.flat:
        ax.axis("off")
    for draw, ax in zip(draws, axes.flat, strict=False):
        draw(ax)


def show_table(table: pd.DataFrame) -> None:
    """Display a table: rich in a notebook, as text elsewhere."""
    if in_notebook():
        from IPython.display import display

        display(table)
    else:
        print(table.to_string())


def show_samples(
    blocks: Sequence[Block], samples: Sequence[tuple], n_inp: int, preds: Sequence[tuple] | None = None
) -> None:
    """Show decoded `samples`, one value per block, and `preds`, one value per target block, beside their targets."""
    if not any(block.is_picture for block in blocks):
        show_table(_table(blocks, samples, n_inp, preds))
        return
    answers = preds if preds is not None else [None] * len(samples)
    pairs = zip(samples, answers, strict=True)
    draws = [lambda ax, s=sample, p=pred: draw_sample(blocks, s, n_inp, p, ax) for sample, pred in pairs]
    draw_grid(draws, title=None if preds is None else "target / prediction")


def draw_sample(blocks: Sequence[Block], sample: tuple, n_inp: int, pred: tuple | None, ax: Any) -> None:
    """Draw one decoded sample on axes that are empty, and `pred`, one value per target block, beside its targets."""
    for number, (block, value) in enumerate(zip(blocks, sample, strict=False)):  # an unlabelled sample has no targets
        title, wrong = ax.get_title(), ax.title.get_color() == "red"
        if pred is None or number < n_inp:
            block.draw(value, ax)
        else:
            block.draw_result(value, pred[number - n_inp], ax)
        if title and ax.get_title() != title:  # several labels stand below each other, red if one of them is wrong
            ax.set_title(f"{title}\n{ax.get_title()}", fontsize=10, color="red" if wrong else ax.title.get_color())


def _table(
    blocks: Sequence[Block], samples: Sequence[tuple], n_inp: int, preds: Sequence[tuple] | None
) -> pd.DataFrame:
    n = len(samples[0]) if samples else len(blocks)
    names = _numbered(["input"] * n_inp + ["target"] * (n - n_inp))
    rows = [[block.text(value) for block, value in zip(blocks, sample, strict=False)] for sample in samples]
    table = pd.DataFrame(rows, columns=names)
    if preds is not None:
        answers = [[block.text(value) for block, value in zip(blocks[n_inp:], pred, strict=False)] for pred in preds]
        table[_numbered(["prediction"] * (len(blocks) - n_inp))] = answers
    return table


def _numbered(names: list[str]) -> list[str]:
    return [f"{name}{names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]
