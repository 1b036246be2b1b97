"""Predictions: for a whole set, for one item, and beside their targets as pictures."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..callbacks.nested import map_tensors
from ..data.blocks import Block
from ..data.items import as_items, take
from ..data.loaders import DeviceLoader
from ..data.show import show_samples
from .gathering import GatherPreds, join_batches, to_cpu
from .item_losses import loss_not_reduced
from .loop import as_loader
from .losses import CrossEntropyLoss, loss_activation, loss_decodes
from .saved_preds import SavePreds
from .stages import changed

__all__ = ["Prediction", "answers", "as_predictions", "batch_predict", "get_preds", "picked_samples", "predict",
           "show_results", "tta"]  # fmt: skip


class Prediction(NamedTuple):
    """What a model says of one item; lists in each field where there are several targets.

    `decoded`: the label, list of labels or number(s); `index`: its class index, mask or value; `probs`: the activated
    outputs.
    """

    decoded: Any
    index: Any
    probs: Any


def get_preds(learn: Any, split: str = "valid", dl: Any = None, with_input: bool = False, with_loss: bool = False,
              with_decoded: bool = False, act: Callable | None = None, reorder: bool = True,
              save_preds: str | Path | None = None) -> tuple:  # fmt: skip
    """See `Learner.get_preds`."""
    if save_preds and (with_decoded or not reorder):
        raise ValueError("save_preds writes predictions in the order of the dataset: decode them from the file.")
    dl = _split_loader(learn, split) if dl is None else as_loader(dl, learn.data.device)
    act = act or partial(map_tensors, loss_activation(learn.loss_func))
    gather = GatherPreds(with_input, with_loss, with_preds=not save_preds)
    saver = SavePreds(Path(save_preds), act) if save_preds else None
    reduction = loss_not_reduced(learn) if with_loss else nullcontext()
    _move_model(learn)
    as_model = changed(learn, "system", None)
    with learn.without_cbs(learn.evaluate), learn.added_cbs([gather, saver] if saver else gather), reduction, as_model:
        learn.run_validation(dl)
    gather.collect(learn.ranks)
    saved = saver.finish(learn.ranks) if saver and gather.targs else None
    if not gather.targs:
        raise ValueError("There is nothing to predict: the loader gave no batch.")
    if with_loss and not gather.losses:
        raise ValueError(
            "These items have no labels to compute losses with: pass dl=data.test_dl(items, with_labels=True)."
        )
    raw = None if saver else join_batches(gather.preds)
    columns = [join_batches(gather.inputs)] if with_input else []
    columns += [None if saver else act(raw), join_batches(gather.targs)]
    columns += [answers(learn, raw)] if with_decoded else []
    columns += [join_batches(gather.losses)] if with_loss else []
    columns = [gather.in_order(column) for column in columns] if reorder else columns
    if saver:
        columns[int(with_input)] = saved
    return tuple(columns)


def tta(learn: Any, dl: Any, n: int, beta: float, act: Callable | None) -> tuple:
    """See `Learner.tta`."""
    if n < 1 or not 0 <= beta <= 1:
        raise ValueError(f"tta(n={n}, beta={beta}): n is 1 or more, and beta a share from 0 to 1.")
    dl = _split_loader(learn, "valid") if dl is None else as_loader(dl, learn.data.device)
    _check_stays_in_place(learn.data.targets)
    augmented = learn.data.augmented_dl(dl)
    plain, targs = get_preds(learn, dl=dl, act=act)
    mean: Any = None
    for epoch in range(n):
        augmented.set_epoch(epoch)
        preds, _ = get_preds(learn, dl=augmented, act=act)
        mean = preds if mean is None else _pairwise(torch.add, mean, preds)
    return _pairwise(lambda m, p: torch.lerp(m / n, p, beta), mean, plain), targs


def _check_stays_in_place(targets: Sequence[Block]) -> None:
    """Raise ValueError for targets that lie in an image, and move with it."""
    if moved := [type(block).__name__ for block in targets if block.is_spatial]:
        raise ValueError(
            f"tta averages predictions of images that were flipped, turned or cropped at random, and {moved[0]}'s move "
            "with their image: their average would lie in no place of it. Use get_preds, which predicts the images as "
            "they are; tta is for labels and numbers that an image keeps."
        )


def _pairwise(function: Callable[[Tensor, Tensor], Tensor], a: Any, b: Any) -> Any:
    """`function` of two tensors, or of each pair in two tuples of them."""
    return function(a, b) if isinstance(a, Tensor) else tuple(function(x, y) for x, y in zip(a, b, strict=True))


def _split_loader(learn: Any, split: str) -> DeviceLoader:
    if split not in ("train", "valid"):
        raise ValueError(f"split={split!r}: 'train' or 'valid'; for other items pass dl=data.test_dl(items).")
    dl = learn.data.valid_dl if split == "valid" else learn.data.train_eval_dl()
    if dl is None:
        raise ValueError("There is no validation set: pass split='train', or dl=data.test_dl(items).")
    return dl


def predict(learn: Any, item: Any) -> Prediction:
    """See `Learner.predict`."""
    _check_blocks(learn, "predict")
    _move_model(learn)
    batch = learn.data.input_batch(item)
    raw = learn.run_batch(batch)
    return as_predictions(learn, to_cpu(raw), batch)[0]


def _check_blocks(learn: Any, method: str) -> None:
    """Raise ValueError for data from loaders of one's own."""
    if not learn.data.blocks:
        raise ValueError(
            f"{method} makes a batch of raw items, and that needs data from a DataBlock. With loaders of your own give "
            "the batch, here of one input x with an axis for the items: preds, _ = learn.get_preds(dl=[(x,)])."
        )


def _move_model(learn: Any) -> None:
    """Put the model on the data's device, unless it is there: `to` would take 1 ms for 200 layers to find that out."""
    parameter = next(learn.model.parameters(), None)
    if parameter is None or parameter.device != learn.data.device:
        learn.model.to(learn.data.device)


def batch_predict(learn: Any, items: Sequence) -> list[Prediction]:
    """See `Learner.batch_predict`."""
    _check_blocks(learn, "batch_predict")
    if not len(items := as_items(items)):
        return []
    in_pixels = any(block.is_spatial for block in learn.data.targets)  # which their inputs say the size of
    *inputs, raw, _ = get_preds(learn, dl=learn.data.test_dl(items), with_input=in_pixels, act=_unchanged)
    return as_predictions(learn, raw, inputs[0] if inputs and isinstance(inputs[0], tuple) else tuple(inputs))


def _unchanged(raw: Any) -> Any:
    return raw


def as_predictions(learn: Any, raw: Any, inputs: tuple) -> list[Prediction]:
    """A Prediction per item of a batch of raw outputs; lists in its fields where there are several targets.

    Targets with places in an image are decoded with their `inputs`, which tell how big that is.
    """
    probs, said = map_tensors(loss_activation(learn.loss_func), raw), answers(learn, raw)
    blocks = learn.data.targets
    if isinstance(said, Tensor):
        if len(blocks) != 1:
            return [Prediction(a, a, p) for a, p in zip(said, probs, strict=True)]
        decoded = [row[0] for row in _decoded(learn.data, inputs, (said,))]
        return [Prediction(d, a, p) for d, a, p in zip(decoded, said, probs, strict=True)]
    rows = zip(_decoded(learn.data, inputs, tuple(said)), zip(*said, strict=True), zip(*probs, strict=True),
               strict=True)  # fmt: skip
    return [Prediction(list(d), list(a), list(p)) for d, a, p in rows]


def _decoded(data: Any, inputs: tuple, answers: tuple) -> list[tuple]:
    """The answers of each item as a person knows them."""
    if any(block.is_spatial for block in data.targets):
        return [sample[data.n_inp :] for sample in data.decode((*inputs, *answers))]
    rows = zip(*answers, strict=True)
    return [tuple(block.decode(a) for block, a in zip(data.targets, row, strict=False)) for row in rows]


def answers(learn: Any, raw: Any) -> Any:
    """What outputs say: as the loss reads them; if it does not say how, the likeliest class of labels and masks."""
    read, blocks = loss_decodes(learn.loss_func), learn.data.targets
    if read is not loss_decodes(None):
        return map_tensors(read, raw)
    if len(blocks) == 1:
        return map_tensors(partial(_likeliest, blocks[0]), raw)
    if isinstance(raw, tuple) and len(raw) == len(blocks):
        return tuple(map_tensors(partial(_likeliest, block), part) for block, part in zip(blocks, raw, strict=True))
    return raw


def _likeliest(block: Block, raw: Tensor) -> Tensor:
    """The likeliest class, where the block's values are classes."""
    loss = CrossEntropyLoss() if block.loss == "CrossEntropyLoss" else block.loss
    return loss.decodes(raw) if isinstance(loss, CrossEntropyLoss) else raw


def show_results(learn: Any, max_n: int) -> None:
    """See `Learner.show_results`."""
    data, (items, samples) = learn.data, picked_samples(learn, max_n)
    several, answers = len(data.targets) > 1, [p.decoded for p in batch_predict(learn, items)]
    if several and not all(isinstance(answer, list) for answer in answers):
        raise ValueError(
            f"show_results: the model gives one tensor for {len(data.targets)} targets, and nothing says which part of "
            "it answers which. Let it return a tuple, with an output for each target."
        )
    preds = [tuple(answer) if several else (answer,) for answer in answers]
    if learn.ranks.rank == 0:
        show_samples(data.blocks, samples, data.n_inp, preds)


def picked_samples(learn: Any, max_n: int) -> tuple[Any, list[tuple]]:
    """Raw items from all over the validation set, and their decoded samples. Raises ValueError where there are none."""
    data = learn.data
    if not data.blocks or data.valid_dl is None or not len(data.valid_ds):
        raise ValueError(
            "show_results needs a validation set from a DataBlock: other loaders do not say how a value looks."
        )
    n = min(max_n, len(data.valid_ds))
    picked = take(data.valid_ds.items, [i * len(data.valid_ds) // n for i in range(n)])
    return picked, [sample for batch in data.test_dl(picked, with_labels=True) for sample in data.decode(batch)]
