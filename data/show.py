"""Pictures of samples in a grid, or a table of them where there is nothing to draw."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from .blocks import Block

__all__ = ["draw_grid", "in_notebook", "show_samples", "show_table"]


def in_notebook() -> bool:
    """Whether this code runs in a Jupyter kernel, which can display rich output."""
    try:
        return type(get_ipython()).__name__ == "ZMQInteractiveShell"  # type: ignore[name-defined]
    except NameError:
        return False


def draw_grid(draws: Sequence[Callable[[Any], None]], n_cols: int | None = None, size: float = 2.4) -> None:
    """One axes without ticks for each of `draws`, which get it; `size` in inches."""
    from matplotlib import pyplot as plt

    n_cols = n_cols or min(len(draws), math.ceil(math.sqrt(len(draws)))) or 1
    n_rows = math.ceil(len(draws) / n_cols) or 1
    _, axes = plt.subplots(n_rows, n_cols, figsize=(size * n_cols, size * n_rows), squeeze=False, layout="constrained")
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


def show_samples(blocks: Sequence[Block], samples: Sequence[tuple], n_inp: int, preds: Sequence[tuple] | None = None) -> None:
    """Show decoded `samples` (one value per block); with `preds` (one value per target block) the predictions beside them."""
    if any(block.is_picture for block in blocks):
        draw_grid([lambda ax, i=i: _draw_sample(blocks, samples[i], n_inp, preds[i] if preds else None, ax) for i in range(len(samples))])
    else:
        show_table(_table(blocks, samples, n_inp, preds))


def _draw_sample(blocks: Sequence[Block], sample: tuple, n_inp: int, pred: tuple | None, ax: Any) -> None:
    for block, value in zip(blocks[:n_inp], sample[:n_inp], strict=True):
        block.draw(value, ax)
    for number, (block, value) in enumerate(zip(blocks[n_inp:], sample[n_inp:], strict=False)):
        if pred is None:
            block.draw(value, ax)
        else:
            block.draw_result(value, pred[number], ax)


def _table(blocks: Sequence[Block], samples: Sequence[tuple], n_inp: int, preds: Sequence[tuple] | None) -> pd.DataFrame:
    names = ["input" if k < n_inp else "target" for k in range(len(blocks))]
    rows = [[block.text(value) for block, value in zip(blocks, sample, strict=False)] for sample in samples]
    table = pd.DataFrame(rows, columns=_numbered(names)[: len(rows[0])] if rows else names)
    for k, column in enumerate(zip(*preds, strict=True)) if preds else ():
        table[f"prediction{k + 1 if len(blocks) - n_inp > 1 else ''}"] = [blocks[n_inp + k].text(value) for value in column]
    return table


def _numbered(names: list[str]) -> list[str]:
    return [f"{name}{names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]
