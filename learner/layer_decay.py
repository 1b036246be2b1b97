"""Learning rates that fall from layer to layer, towards the input, as transformers are fine-tuned.

    learn = Learner(data, model, splitter=split_by_block)
    learn.fit_one_cycle(3, layer_decay(1e-3, 0.75, len(learn.groups)))

Clark et al. 2020 (ELECTRA), arXiv:2003.10555, after Howard & Ruder 2018 (ULMFiT), arXiv:1801.06146.
"""

from itertools import groupby
from operator import itemgetter

from torch import nn

from ..callbacks.checkpointing import blocks

__all__ = ["layer_decay", "split_by_block"]


def layer_decay(lr: float, decay: float, n_groups: int) -> list[float]:
    """`lr` for the last layer group, and `decay` times the next one's for each group before it.

    Raises ValueError for a `decay` that is not above 0 and at most 1.
    """
    if not 0 < decay <= 1:
        raise ValueError(
            f"decay={decay}: what a group's rate is multiplied with for the one before, above 0, at most 1."
        )
    return [lr * decay ** (n_groups - 1 - i) for i in range(n_groups)]


def split_by_block(model: nn.Module) -> list[list[nn.Parameter]]:
    """A layer group for each block of the model, one for what comes before them and one for what comes after.

    Blocks are the outermost members of an `nn.Sequential` or `nn.ModuleList` that have layers of their own; parameters
    between two blocks join the first. The order is that in which the model has its parameters. Raises ValueError where
    there are no blocks.
    """
    block_of = {id(p): number for number, block in enumerate(blocks(model)) for p in block.parameters()}
    if not block_of:
        raise ValueError(
            "This model has no blocks to split by: write a splitter that returns a list for each layer group."
        )
    params = list(model.parameters())
    last = max(place for place, p in enumerate(params) if id(p) in block_of)
    labels, label = [], -1  # of what comes before the blocks
    for place, p in enumerate(params):
        label = len(block_of) if place > last else block_of.get(id(p), label)
        labels.append(label)
    labelled = groupby(zip(labels, params, strict=True), key=itemgetter(0))
    return [[p for _, p in group] for _, group in labelled]
