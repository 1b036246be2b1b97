"""What a model gets wrong, whatever it predicts: the items with the highest losses, and how it fares by group.

    interp = Interpretation.from_learner(learn)
    interp.plot_top_losses(9)
    interp.by_group("camera")                        # a column of the items' table; or a function of an item

Labels have more to tell, see `interpretation_labels.py`.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import pandas as pd
from torch import Tensor, nn

from ..callbacks.nested import map_tensors
from ..data.batch import batch_size, split_batch
from ..data.blocks import MultiCategoryBlock
from ..data.dataset import Dataset
from ..data.items import each, take
from ..data.loaders import DeviceLoader
from ..data.show import draw_grid, draw_sample, show_table
from .gathering import to_cpu
from .inference import Prediction, answers, as_predictions
from .item_losses import losses_and_vectors
from .loop import as_loader
from .losses import loss_activation
from .metrics import as_metric, metric_name
from .stages import as_list

__all__ = ["Interpretation", "Shown"]

T = TypeVar("T", bound="Interpretation")
CAPTION = ["prediction", "actual", "loss", "probability"]


class Shown(NamedTuple):
    """An item as it is shown: its decoded sample, what was predicted, and the loss."""

    sample: tuple
    prediction: Prediction
    loss: float


class Interpretation:
    """Losses of every item of a set, and what was predicted of them; make it with `from_learner`.

    `losses` is `(n,)`, on the CPU and in the order of the set. Where a model answers with vectors, `outputs` are what
    it returned `(n, …)`, `preds` the same activated (probabilities), `targs` and `decoded` targets and answers as the
    loss sees them. Maps (masks, images) would fill the memory: there these four are None, and an item is predicted
    again when it is shown. Inputs are never kept.
    """

    def __init__(self, learn: Any, dl: DeviceLoader, losses: Tensor, outputs: Any = None, targs: Any = None):
        self.learn, self.dl, self.losses, self.outputs, self.targs = learn, dl, losses, outputs, targs
        self.preds: Any = None if outputs is None else map_tensors(loss_activation(learn.loss_func), outputs)
        self.decoded: Any = None if outputs is None else answers(learn, outputs)

    @classmethod
    def from_learner(cls: type[T], learn: Any, split: Literal["valid", "train"] = "valid", dl: Any = None) -> T:
        """Predict a set of the learner's data, or a labelled loader: `dl=data.test_dl(items, with_labels=True)`.

        A loss function without `reduction` is asked about the items one by one. Raises ValueError where there is no
        loss function, or no label.
        """
        data = learn.data
        if split not in ("train", "valid"):
            raise ValueError(f"split={split!r}: 'train' or 'valid'; for other items pass dl=data.test_dl(items, True).")
        if dl is None or dl is data.train_dl:  # which leaves items out, and augments the others
            dl = data.valid_dl if dl is None and split == "valid" else data.train_eval_dl()
        if dl is None:
            raise ValueError(
                "There is no validation set: pass split='train', or dl=data.test_dl(items, with_labels=True)."
            )
        dl = as_loader(dl, data.device)
        return cls(learn, dl, *losses_and_vectors(learn, dl))

    def top_losses(self, k: int | None = None, largest: bool = True) -> tuple[Tensor, Tensor]:
        """The `k` highest losses (lowest, unless `largest`; all by default) and their items' positions, both `(k,)`."""
        return self.losses.topk(len(self.losses) if k is None else min(k, len(self.losses)), largest=largest)

    def plot_top_losses(self, k: int, largest: bool = True) -> None:
        """Show the items of the `k` highest losses, read anew, with their targets and predictions.

        Labels and numbers stand above: "prediction / actual / loss / probability", that of the predicted label, or of
        several labels those of each that is wrong. Masks, points, boxes and images are drawn. Without pictures a table.
        Raises ValueError for data that did not come from a `DataBlock`.
        """
        losses, positions = self.top_losses(k, largest)
        shown = [Shown(*row, loss) for row, loss in zip(self.reread(positions.tolist()), losses.tolist(), strict=True)]
        if self.learn.ranks.rank == 0:
            self._show(shown)

    def by_group(self, groups: str | Callable | Sequence, metrics: Any = None) -> pd.DataFrame:
        """`n`, the mean loss and metrics of each group of items: does the model fail some patients, cameras, sellers?

        `groups`: the name of a column where items are rows of a DataFrame, a function of an item, or a value for each
        item in order. `metrics` as a `Learner` takes them, by default its own. The smaller a group, the more its
        numbers are due to chance. Raises KeyError for an unknown column, ValueError for another number of values.
        """
        values = pd.Series(self._groups(groups), dtype=object)
        named = {metric_name(m): as_metric(m) for m in as_list(self._default_metrics() if metrics is None else metrics)}
        rows = {}
        for name, members in values.groupby(values, dropna=False):
            positions = members.index.tolist()
            loss = self.losses[positions].mean().item()
            rows[name] = {"n": len(positions), "loss": loss, **self._measure(positions, named)}
        return pd.DataFrame.from_dict(rows, orient="index").astype({"n": int})

    def reread(self, positions: Sequence[int]) -> Iterator[tuple[tuple, Prediction]]:
        """Each of these items as a decoded sample, read from the dataset once more, with what is predicted of it.

        Raises ValueError for data that did not come from a `DataBlock`.
        """
        data, begin = self.learn.data, 0
        for batch in self._batches_of(positions):
            inputs, n = batch[: data.n_inp], batch_size(batch)
            raw = self._outputs(positions[begin : begin + n], inputs)
            yield from zip(data.decode(batch), as_predictions(self.learn, raw, inputs), strict=True)
            begin += n

    # ---- items and groups of them

    def _batches_of(self, positions: Sequence[int]) -> DeviceLoader:
        if not isinstance(self.dl.dataset, Dataset):
            raise ValueError(
                "plot_top_losses needs data from a DataBlock: of other data nothing says how an item looks, or how to "
                "read it again. top_losses() gives the positions of the items."
            )
        return self.learn.data.test_dl(take(self.dl.dataset.items, positions), with_labels=True)

    def _outputs(self, positions: Sequence[int], inputs: tuple) -> Any:
        """What the model returned for these items, or returns now."""
        if self.outputs is None:
            return to_cpu(self.learn.run_batch(inputs))
        return _rows(self.outputs, positions)

    def _groups(self, groups: str | Callable | Sequence) -> list:
        """The group of each item."""
        items = getattr(self.dl.dataset, "items", self.dl.dataset)
        if isinstance(groups, str):
            if not isinstance(items, pd.DataFrame) or groups not in items:
                columns = list(items) if isinstance(items, pd.DataFrame) else "none, for they are no DataFrame"
                raise KeyError(f"no column {groups!r} in the items, columns are {columns}: pass a function, or a list.")
            return items[groups].tolist()
        if callable(groups):
            return [groups(item) for item in each(items)]
        if len(groups) != len(self.losses):
            raise ValueError(f"groups has {len(groups)} values for {len(self.losses)} items: give one for each.")
        return list(groups)

    def _default_metrics(self) -> list:
        return self.learn.metrics

    def _measure(self, positions: list[int], metrics: dict[str, Any]) -> dict[str, float]:
        for metric in metrics.values():
            metric.reset()
            if isinstance(metric, nn.Module):  # torchmetrics count on a device of their own
                metric.to("cpu")
        for pred, targets in self._outputs_and_targets(positions) if metrics else ():
            for metric in metrics.values():
                metric.update(pred, *targets)
        results = [(name, metric.compute()) for name, metric in metrics.items()]
        return {key: float(value) for name, result in results for key, value in _by_name(name, result).items()}

    def _outputs_and_targets(self, positions: list[int]) -> Iterator[tuple[Any, tuple]]:
        if self.outputs is not None:
            targets = _rows(self.targs, positions)
            yield _rows(self.outputs, positions), targets if isinstance(targets, tuple) else (targets,)
            return
        for batch in self._batches_of(positions):
            inputs, targets = split_batch(batch, self.learn.data.n_inp)
            yield to_cpu(self.learn.run_batch(inputs)), to_cpu(targets)  # type: ignore[arg-type]

    # ---- showing

    def _show(self, shown: list[Shown]) -> None:
        blocks, targets = self.learn.data.blocks, self.learn.data.targets
        if any(block.is_picture or block.is_spatial for block in targets):
            draw_grid([partial(self._draw_both, item) for item in shown], size=3.6, title="target / prediction")
        elif any(block.is_picture for block in blocks):
            draws = [partial(self._draw_with_caption, item) for item in shown]
            has_probability = any(self._caption(item)[-1] for item in shown)
            draw_grid(draws, size=2.8, title=" / ".join(CAPTION if has_probability else CAPTION[:-1]))
        else:
            show_table(pd.DataFrame([self._row(item) for item in shown], columns=["input", *CAPTION]))

    def _draw_both(self, shown: Shown, ax: Any) -> None:
        draw_sample(self.learn.data.blocks, shown.sample, self.learn.data.n_inp, self._answers(shown), ax)
        title, colour = ax.get_title(), ax.title.get_color()
        lines = filter(None, [f"loss {shown.loss:.2f}", title])
        ax.set_title("\n".join(lines), fontsize=9, color=colour if title else "black")

    def _draw_with_caption(self, shown: Shown, ax: Any) -> None:
        n_inp = self.learn.data.n_inp
        draw_sample(self.learn.data.blocks, shown.sample[:n_inp], n_inp, None, ax)
        ax.set_title(_in_lines([part for part in self._caption(shown) if part]), fontsize=9)

    def _row(self, shown: Shown) -> list[str]:
        data = self.learn.data
        inputs = [block.text(value) for block, value in zip(data.blocks[: data.n_inp], shown.sample, strict=False)]
        return ["; ".join(inputs), *self._caption(shown)]

    def _caption(self, shown: Shown) -> list[str]:
        targets, decoded = self.learn.data.targets, self._answers(shown)
        actual = [block.text(v) for block, v in zip(targets, shown.sample[self.learn.data.n_inp :], strict=True)]
        said = ["?"] if decoded is None else [block.text(d) for block, d in zip(targets, decoded, strict=True)]
        probability = _probability(targets[0], shown) if len(targets) == 1 else ""
        return ["; ".join(said), "; ".join(actual), f"{shown.loss:.2f}", probability]

    def _answers(self, shown: Shown) -> tuple | None:
        """A decoded prediction for each target; None where the model does not answer them one by one."""
        decoded = shown.prediction.decoded
        if len(self.learn.data.targets) == 1:
            return (decoded,)
        return tuple(decoded) if isinstance(decoded, list) else None


def _probability(block: Any, shown: Shown) -> str:
    """The probability of the predicted label; of several labels, of each that is wrong."""
    decoded, index, probs = shown.prediction
    if isinstance(block, MultiCategoryBlock):
        pairs = zip(block.vocab or [], probs.tolist(), strict=True)
        return ", ".join(f"{label} {p:.2f}" for label, p in pairs if (label in decoded) != (label in shown.sample[-1]))
    return f"{probs[index]:.2f}" if index.ndim == 0 and probs.ndim == 1 and len(probs) > 1 else ""


def _in_lines(caption: list[str], width: int = 32) -> str:
    """A caption in one line, or in two or more where it is long: what was said and is, then the numbers."""
    if len(line := " / ".join(caption)) <= width:
        return line
    return "\n".join(textwrap.fill(" / ".join(part), width) for part in (caption[:2], caption[2:]))


def _rows(values: Any, positions: Sequence[int]) -> Any:
    """These items of tensors, or of nested ones."""
    return map_tensors(lambda tensor: tensor[positions], values)


def _by_name(name: str, result: Any) -> dict[str, Any]:
    return dict(result) if isinstance(result, dict) else {name: result}
