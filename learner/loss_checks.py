"""Why predictions and targets do not fit a loss, said before training starts.

Each function raises ValueError with what was expected, what came, which target, and what to do. Those that look at
values wait for the accelerator, so they are for one batch, not for every one; `check_same_count` and `check_weights`
look at shapes alone.
"""

from typing import Any

from torch import Tensor

__all__ = ["check_between_0_and_1", "check_class_numbers", "check_classes", "check_not_nan", "check_same_count",
           "check_weights"]  # fmt: skip


def check_same_count(pred: Tensor, targ: Tensor, hint: str) -> None:
    """One prediction per target, and the same batch axis unless one of the two is flat."""
    if pred.numel() == targ.numel() and (min(pred.ndim, targ.ndim) < 2 or len(pred) == len(targ)):
        return
    raise ValueError(f"predictions of shape {_shape(pred)} do not fit targets of shape {_shape(targ)}. {hint}")


def check_class_numbers(targ: Tensor) -> None:
    """Integer targets."""
    if targ.is_floating_point():
        raise ValueError(
            f"targets must be class numbers, integers of shape (bs,) or one per position; found {_kind(targ)}. "
            "If they are class numbers, convert them with .long(); to predict values, use MSELoss or L1Loss."
        )


def check_classes(pred: Tensor, targ: Tensor, axis: int, ignore_index: int) -> None:
    """Targets are classes of the model: integers below the length of `axis`, or probabilities shaped like `pred`."""
    if pred.ndim < 2 or not -pred.ndim <= axis < pred.ndim:
        raise ValueError(
            f"predictions must have a batch axis and a class axis (here axis={axis}), found shape {_shape(pred)}. "
            "A model with one yes-or-no output per item is a task for BCEWithLogitsLoss."
        )
    if targ.is_floating_point() and targ.shape == pred.shape and pred.shape[axis] > 1:
        check_between_0_and_1(targ, "Float targets in the shape of the predictions are probabilities of the classes.")
    else:
        _check_integer_classes(pred, targ, axis, ignore_index)


def _check_integer_classes(pred: Tensor, targ: Tensor, axis: int, ignore_index: int) -> None:
    check_class_numbers(targ)
    check_same_count(pred.select(axis, 0), targ, _count_hint(pred, targ, axis))
    n, number = pred.shape[axis], targ.long()
    hint = "Is the model's n_out smaller than the number of classes? "
    hint += f"A number that marks targets to skip is passed to the loss as ignore_index (now {ignore_index})."
    fits = (number == ignore_index) | ((number >= 0) & (number < n))
    _check_all(fits, targ, f"targets must lie in 0…{n - 1} for a model with {n} outputs", hint)


def _count_hint(pred: Tensor, targ: Tensor, axis: int) -> str:
    if targ.shape == pred.shape:
        return "If they are one-hot, take targ.argmax(axis); if several classes may be true, use BCEWithLogitsLoss."
    return f"With the classes on axis {axis}, targets of shape {_shape(pred.select(axis, 0))} are expected."


def check_between_0_and_1(targ: Tensor, hint: str) -> None:
    """Targets are probabilities, or yes and no."""
    _check_all((targ >= 0) & (targ <= 1), targ, "targets must lie between 0 and 1", hint)


def check_not_nan(targ: Tensor) -> None:
    """Targets are numbers."""
    _check_all(~targ.isnan(), targ, "targets must be numbers", "Drop the items without a target, or fill them in.")


def _check_all(fits: Tensor, targ: Tensor, expected: str, hint: str) -> None:
    """The mask `fits` is true everywhere, else name the first target that does not fit."""
    if fits.all():
        return
    first = tuple((~fits).nonzero()[0].tolist())
    where = f"position {first[0]} of the batch" if len(first) == 1 else f"index {first} of the batch"
    raise ValueError(f"{expected}, found {targ[first].item():g} (first at {where}). {hint}")


def check_weights(name: str, weights: Any, lengths: tuple[int, ...]) -> None:
    """The loss's list of weights is absent, or of one of these lengths."""
    if weights is not None and len(weights) not in lengths:
        raise ValueError(
            f"{name} holds {len(weights)} numbers for a model with {lengths[-1]} outputs: give one for each output."
        )


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def _kind(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} of shape {_shape(x)}"
