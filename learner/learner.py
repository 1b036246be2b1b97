"""The Learner: model + data + loss + optimizer, and what a person does with them.

    learn = Learner(data, model, metrics=accuracy)
    learn.fit_one_cycle(5, 1e-2)

What happens in between is in `loop.py`, what it takes is written next to it: optimizers in `optim.py`, and so on.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import AdamW

from ..callbacks.evaluate import Evaluate
from ..callbacks.progress import ProgressBar
from ..callbacks.recorder import Recorder
from ..callbacks.report import Report
from ..data.bunch import DataBunch
from ..data.portable import Portable
from . import distributed, features, inference, weights
from .arguments import check_arguments, check_data, default_loss
from .export import export_learner
from .item_losses import loss_not_reduced
from .loop import as_loader
from .optim import trainable_params
from .stages import Callbacks
from .summary import summarize
from .system import System, is_system
from .system_hooks import SystemHooks
from .trainer import Rate, Trainer

__all__ = ["Learner"]


class Learner(Trainer):
    """Wraps data, a model, its loss and its optimizer; trains, evaluates, predicts, saves and exports.

    `loss_func` defaults to the loss of the data's target block. `opt_func` is a `torch.optim` class or `(params, lr) ->
    Optimizer`; its own defaults are kept. `lr` is the default of every fit (a number, a slice or a list over layer
    groups), `splitter(model)` parts the parameters into layer groups. `metrics`: functions `(pred, targ) -> scalar`, or
    objects with `update, compute, reset`. `wd` replaces the optimizer's weight decay, which spares biases and
    normalisation layers if `wd_bn_bias=False`. `moms` are the momenta of `fit_one_cycle`. With `train_bn` BatchNorm
    layers train in frozen groups too. `model_spec` describes how to build the model again from an exported file;
    recipes such as `vision_learner` give it.

    A model with a `training_step` is trained by that, and needs neither loss nor metrics: see `system.py`.
    """

    def __init__(self, data: DataBunch, model: nn.Module, loss_func: Callable | None = None, opt_func: Callable = AdamW,
                 lr: Rate = 1e-3, splitter: Callable = trainable_params, cbs: Callbacks = None, metrics: Any = None,
                 path: str | Path | None = None, model_dir: str | Path = "models", wd: float | None = None,
                 moms: tuple[float, float, float] = (0.95, 0.85, 0.95), train_bn: bool = True, wd_bn_bias: bool = True,
                 model_spec: Portable | None = None):  # fmt: skip
        check_arguments(model, loss_func, opt_func, metrics, is_system(model))
        self.model_spec = model_spec
        super().__init__(data, model, loss_func)
        self.model.to(data.device)
        if loss_func is None and not is_system(model):
            self.loss_func = default_loss(data)
        self.opt_func, self.lr, self.splitter, self.wd, self.moms = opt_func, lr, splitter, wd, moms
        self.train_bn, self.wd_bn_bias = train_bn, wd_bn_bias
        self.path, self.model_dir = Path(path) if path is not None else data.path, Path(model_dir)
        self.recorder, self.evaluate, self.progress = Recorder(), Evaluate({}), ProgressBar()
        self.cbs = [self.evaluate, self.recorder, self.progress]
        if is_system(model):
            self.system = System(self)
            self.cbs += [self.system, SystemHooks()]
        self._make_groups()
        self.metrics = metrics
        self.add_cbs(cbs)

    def __repr__(self) -> str:
        return (f"Learner({type(self.model).__name__}, {self.data!r}, loss={self.loss_func!r}, "
                f"metrics={list(self.evaluate.metrics)})")  # fmt: skip

    @property
    def data(self) -> DataBunch:
        """The data; assign other data at any time. A recipe's model has it prepared, say normalised, as it needs."""
        return self._data

    @data.setter
    def data(self, data: DataBunch) -> None:
        check_data(data)
        prepare = getattr(self.model_spec, "prepare", None)
        self._data = distributed.own_part(prepare(data) if prepare else data, self.ranks, self.keeps_step)

    # ---- evaluating and predicting

    def validate(self, dl: Iterable | None = None) -> dict[str, float]:
        """Loss and metrics by name over the validation set, or over `dl`: `{'valid_loss': …, 'accuracy': …}`."""
        dl = self.data.valid_dl if dl is None else dl
        if dl is None:
            raise ValueError("There is no validation set: pass a loader, validate(dl=…).")
        self.metrics = self.metrics  # the list may have been changed in place
        self.model.to(self.data.device)
        if self.system and not self.system.validates:
            raise ValueError(f"{type(self.model).__name__} has no validation_step, so it cannot be validated.")
        with self._attached_system():
            results = self.run_validation(as_loader(dl, self.data.device))
        if not results and self.evaluate in self.cbs and not self.system:
            raise ValueError("There was nothing to validate on: no batch with targets came.")
        return results

    def get_preds(self, split: Literal["valid", "train"] = "valid", dl: Iterable | None = None,
                  with_input: bool = False, with_loss: bool = False, with_decoded: bool = False,
                  act: Callable | None = None, reorder: bool = True,
                  save_preds: str | Path | None = None) -> tuple:  # fmt: skip
        """`([inputs,] preds, targs[, decoded][, losses])` on the CPU, in the order of the dataset.

        `preds` go through `act`, by default the loss's activation (probabilities for cross-entropy). `split` chooses
        the set, or `dl` any loader (`data.test_dl(items)`); targets are None where it has none. `with_decoded` adds
        what the loss makes of the raw output (class indices), `with_loss` a loss per item. `reorder=False` keeps the
        loader's order. `save_preds` names a `.npy` file that the predictions are written to batch by batch, for more
        than memory holds: what is returned is then read from the file when it is used.
        """
        return inference.get_preds(self, split, dl, with_input, with_loss, with_decoded, act, reorder, save_preds)

    def predict(self, item: Any) -> inference.Prediction:
        """`(decoded, index, probs)` for one raw item, such as a path: what it is, as what number or mask, and how sure.

        `probs` are the activated outputs `(n_out,)`; everything is on the CPU.
        """
        return inference.predict(self, item)

    def batch_predict(self, items: Sequence) -> list[inference.Prediction]:
        """`predict` for many raw items, in batches."""
        return inference.batch_predict(self, items)

    def tta(self, dl: Iterable | None = None, n: int = 4, beta: float = 0.25, act: Callable | None = None) -> tuple:
        """`(preds, targs)` as `get_preds` gives them, each item's predicted under training's random transforms, too.

        The mean over `n` augmented passes counts by `1 - beta`, that of the item as it is by `beta` (test-time
        augmentation, as Krizhevsky et al. 2012 average over crops). For the validation set, or a loader `dl` over items
        of a `DataBlock`, such as `data.test_dl(items)`. The random numbers follow from the data's seed.

        Raises ValueError for targets that move with their image (masks, points, boxes): where would the average lie?
        """
        return inference.tta(self, dl, n, beta, act)

    def features(self, dl: Iterable | None = None, split: Literal["valid", "train"] = "valid",
                 layer: nn.Module | None = None) -> Tensor:  # fmt: skip
        """What the model's body sees in each item: `(n, nf)` float32 on the CPU, in the order of the dataset.

        For the set `split`, or a loader `dl` as in `get_preds`. They are the output of `layer`, by default the body
        that a recipe such as `vision_learner` has made; of a map or a sequence `(bs, nf, …)` the mean over its places.
        `nearest` and `Embeddings` find items that are alike. Raises ValueError where no layer is known, or it does not
        run.
        """
        return features.features(self, dl, split, layer)

    def show_results(self, max_n: int = 9) -> None:
        """Show validation samples with their targets and predictions, taken from all over the validation set."""
        inference.show_results(self, max_n)

    def loss_not_reduced(self):
        """A context in which `loss_func` gives a loss per target instead of their mean."""
        return loss_not_reduced(self)

    def summary(self) -> Report:
        """A table of layers: output shape, parameters, whether they train; then loss, optimizer and callbacks."""
        return summarize(self)

    # ---- files

    def save(self, name: str | Path, with_opt: bool = True) -> Path:
        """Write weights, and with `with_opt` the optimizer's state, to `path/model_dir/name.pth`; returns the file.

        A name that ends in `.pth` or `.pt` is taken as it is.
        """
        return weights.save(self, self.weights_file(name), with_opt)

    def load(self, name: str | Path, with_opt: bool = True) -> "Learner":
        """Read what `save` wrote, or a plain `state_dict` file. Returns the learner.

        Raises FileNotFoundError, FileError for a damaged or unsafe file, ValueError for another architecture's weights.
        """
        return weights.load(self, self.weights_file(name), with_opt)

    def weights_file(self, name: str | Path) -> Path:
        """Where `save(name)` writes, and `load(name)` reads."""
        file = self.path / self.model_dir / name
        return file if file.suffix in (".pth", ".pt") else file.with_name(f"{file.name}.pth")

    def export(self, fname: str | Path = "export.pt") -> Path:
        """Write all that `load_learner` needs, weights and a description of model and data, to `path/fname`."""
        return export_learner(self, self.path / fname)
