"""What a model sees in items, as vectors; and which items look alike to it.

features = learn.features(split="train")               # (n, nf), in the order of the dataset
nearest(features, features[:5], k=4).index             # (5, 4): each query is its own nearest

alike = Embeddings.from_learner(learn, split="train")
alike.show_nearest("new.jpg", k=8)
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..callbacks.core import Callback
from ..callbacks.hooks import Hook, hook_output
from ..data.dataset import Dataset
from ..data.items import each, take
from ..data.loaders import DeviceLoader
from ..data.show import draw_grid
from .loop import as_loader

__all__ = ["Embeddings", "Neighbours", "features", "nearest"]

AT_ONCE = 2**24  # similarities that are held in memory


def features(learn: Any, dl: Any, split: Literal["valid", "train"], layer: nn.Module | None) -> Tensor:
    """See `Learner.features`."""
    layer = _body(learn) if layer is None else layer
    with hook_output(layer) as hook, learn.added_cbs(_InPlaceOfPreds(hook)), _eager():
        found, _ = learn.get_preds(split, dl, act=_as_it_is)
    return found


def _body(learn: Any) -> nn.Module:
    """The part of the model before its head, as the recipe knows that made it."""
    find = getattr(learn.model_spec, "body", None)
    if find is None:
        raise ValueError(
            f"Which layer of {type(learn.model).__name__} is to give the features? Pass layer=, such as learn.model[0] "
            "or learn.model.get_submodule('layer4')."
        )
    return find(learn.model)


def _as_it_is(pred: Tensor) -> Tensor:
    return pred


def _eager() -> Any:
    """A context in which a compiled model calls hooks."""
    return torch.compiler.set_stance("force_eager")


class _InPlaceOfPreds(Callback):
    """Puts what a hook has stored of a batch, pooled, in the place of the predictions; there is no loss of them."""

    def __init__(self, hook: Hook):
        self.hook = hook

    def before_batch(self, learn: Any) -> None:
        self.hook.stored, learn.yb = None, ()

    def after_pred(self, learn: Any) -> None:
        learn.pred = _pooled(self.hook.stored, learn.bs)


def _pooled(output: Any, bs: int) -> Tensor:
    """The mean over all axes but the first two: `(bs, nf)` float32."""
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != bs:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"The layer gave {got} for a batch of {bs}, where features are a tensor (bs, nf), or (bs, nf, …), whose "
            "mean is taken over the other axes. Is it a layer of learn.model, and does it run?"
        )
    return output.float().flatten(2).mean(2) if output.ndim > 2 else output.float()


class Neighbours(NamedTuple):
    """Positions in a set, nearest first, and the cosine of each with the query, -1 to 1; both `(k,)` or `(q, k)`."""

    index: Tensor
    similarity: Tensor


def nearest(features: Tensor, query: Tensor, k: int = 9) -> Neighbours:
    """Which `k` of the `features` `(n, nf)` are most like each `query`, `(nf,)` or `(q, nf)`, by cosine similarity.

    A query that is one of the features is its own nearest. Only a part of the q × n similarities is in memory at a
    time. Raises ValueError where shapes do not fit, or there are no `k` features.
    """
    if features.ndim != 2 or query.ndim not in (1, 2) or query.shape[-1] != features.shape[1]:
        raise ValueError(
            f"Features are (n, nf) and a query (nf,) or (q, nf), not {tuple(features.shape)}, {tuple(query.shape)}."
        )
    if not 1 <= k <= len(features):
        raise ValueError(f"k={k} of {len(features)} features: ask for 1 to {len(features)}.")
    unit = F.normalize(features.float(), dim=1)
    parts = F.normalize(torch.atleast_2d(query.float()), dim=1).split(max(1, AT_ONCE // len(features)))
    similarities, indices = zip(*((part @ unit.T).topk(k) for part in parts), strict=True)
    found = Neighbours(torch.cat(indices), torch.cat(similarities))
    return found if query.ndim == 2 else Neighbours(found.index[0], found.similarity[0])


class Embeddings:
    """The features of every item of a set, `(n, nf)`, and the items that look alike; make it with `from_learner`."""

    def __init__(self, learn: Any, dl: DeviceLoader, features: Tensor, layer: nn.Module | None = None):
        self.learn, self.dl, self.features, self.layer = learn, dl, features, layer

    @classmethod
    def from_learner(cls, learn: Any, split: Literal["valid", "train"] = "valid", dl: Any = None,
                     layer: nn.Module | None = None) -> "Embeddings":  # fmt: skip
        """Of a set of the learner's data, or a loader, `dl=data.test_dl(items)`; `layer` as in `Learner.features`."""
        if dl is None:
            dl = learn.data.valid_dl if split == "valid" else learn.data.train_eval_dl()
        return cls(learn, as_loader(dl, learn.data.device), features(learn, dl, split, layer), layer)

    def of(self, items: Sequence[Any]) -> Tensor:
        """The features of new raw items, `(len(items), nf)`."""
        return features(self.learn, self.learn.data.test_dl(items), "valid", self.layer)

    def nearest(self, item: Any, k: int = 9) -> Neighbours:
        """The positions of the `k` items most like a raw item, such as a path, and their similarities, both `(k,)`."""
        return nearest(self.features, self.of([item])[0], k)

    def show_nearest(self, item: Any, k: int = 8) -> None:
        """Draw a raw item and the `k` most like it, each with its similarity.

        Raises ValueError for data that did not come from a `DataBlock`, or whose inputs are no pictures.
        """
        data = self.learn.data
        if not isinstance(self.dl.dataset, Dataset) or not data.blocks[0].is_picture:
            raise ValueError(
                "show_nearest draws pictures from a DataBlock; nearest() gives the positions of any items."
            )
        found = self.nearest(item, k)
        items = [item, *each(take(self.dl.dataset.items, found.index.tolist()))]
        pictures = [sample[0] for batch in data.test_dl(items) for sample in data.decode(batch)]
        titles = ["query", *(f"{similarity:.3f}" for similarity in found.similarity.tolist())]
        draw_grid([_drawing(data.blocks[0], *pair) for pair in zip(pictures, titles, strict=True)])


def _drawing(block: Any, value: Any, title: str) -> Any:
    def draw(ax: Any) -> None:
        block.draw(value, ax)
        ax.set_title(title, fontsize=10)

    return draw
