"""How much each token of a text counts for what a network says of it: integrated gradients.

    values, average, score = integrated_gradients(model, embedding, x, lambda output: output[:, 1])

Sundararajan, Taly, Yan 2017, "Axiomatic attribution for deep networks", arXiv:1703.01365. The text is compared with one
of average words: each token's vector goes in a straight line from the mean of all words' vectors to its own, the
gradients on the way are averaged, and multiplied by the way. So the parts add up to the whole (their axiom of
completeness). The paper compares with vectors of zeros; from those a transformer needs twice as many steps, for its
normalisation turns the smallest vector into one of full size.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..callbacks.evaluating import evaluating
from ..learner.stages import changed
from .sentence_encoder import SentenceEncoder

__all__ = ["integrated_gradients"]

N_STEPS = 32  # on the way, to begin with
MOST_STEPS = 1024
TOLERATED = 0.01  # of the sum of all parts' sizes, that they may differ from the whole
AT_ONCE = 2**13  # tokens whose gradients are held in memory

Score = Callable[[Tensor], Tensor]  # of the model's output (bs, …) the number that is explained, (bs,)


def integrated_gradients(model: nn.Module, embedding: nn.Embedding, x: Tensor, score: Score,
                         given: Tensor | None = None) -> tuple[Tensor, float, float]:  # fmt: skip
    """What each token of the text `x`, `(n,)` int64, adds to the score: `(n,)` float32 on the CPU. Then the score of a
    text of average words, and that of the text, whose difference they add up to.

    `model` takes `(bs, n)`, and looks tokens up in `embedding`. Where `given`, `(n,)` bool, a token is the same in both
    texts; so are those before the last `max_len` of a `SentenceEncoder`, which lets any text fit in memory. They, and
    those that the model does not read, add 0. Steps are doubled until parts and whole differ by less than 1 % of the
    parts' sizes, at most to 1024.
    """
    given = torch.zeros(len(x), dtype=torch.bool) if given is None else given.cpu().clone()
    reads = next((module for module in model.modules() if isinstance(module, SentenceEncoder)), None)
    if reads is not None:
        given[: max(0, len(x) - reads.max_len)] = True
    way = _Way(embedding.weight.detach().mean(0), given.to(x.device))
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(_fixed_weights(model))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # whose LSTM has no gradients while it evaluates
        if reads is not None:
            stack.enter_context(changed(reads, "cuts_gradients", False))
        stack.callback(embedding.register_forward_hook(way).remove)
        average, whole = (way.scores(model, x, torch.tensor([at]), score).item() for at in (0.0, 1.0))
        n_steps = N_STEPS
        values = _mean_gradient(model, way, x, score, n_steps)
        while not _add_up(values, whole - average) and n_steps < MOST_STEPS:
            n_steps *= 2
            values = _mean_gradient(model, way, x, score, n_steps)
    return values, average, whole


def _add_up(values: Tensor, whole: float) -> bool:
    return abs(values.sum().item() - whole) <= TOLERATED * values.abs().sum().item()


def _mean_gradient(model: nn.Module, way: "_Way", x: Tensor, score: Score, n_steps: int) -> Tensor:
    """Gradients in the middle of `n_steps` steps of equal length, averaged, times the way: of each token, `(n,)`."""
    total = torch.zeros(len(x))
    places = (torch.arange(n_steps) + 0.5) / n_steps
    for part in places.split(max(1, AT_ONCE // len(x))):
        scores = way.scores(model, x, part, score)
        if not way.vectors:  # all tokens are given
            return total
        for (begin, change), gradient in zip(way.changes, torch.autograd.grad(scores.sum(), way.vectors), strict=True):
            total[begin : begin + len(change)] += (gradient.sum(0) * change).sum(-1).float().cpu()
    return total / n_steps


class _Way:
    """A hook of an embedding that moves words between the average one and what they are; those that are given stay.

    `vectors` are the moved words of the last pass, `(bs, seq, emb_sz)` for each piece of the text, `changes` where it
    begins, and by how much its words differ from what they come from, `(seq, emb_sz)`.
    """

    def __init__(self, average: Tensor, given: Tensor):
        self.average, self.given = average, given

    def scores(self, model: nn.Module, x: Tensor, at: Tensor, score: Score) -> Tensor:
        """The scores `(bs,)` of the text at these places of the way: 0 are average words, 1 is the text itself."""
        self.at, self.n_read, self.vectors, self.changes = at.to(x.device)[:, None, None], 0, [], []
        return score(model(x.expand(len(at), -1)))

    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        begin, self.n_read = self.n_read, self.n_read + output.shape[1]
        given = self.given[begin : self.n_read, None]
        if given.all():
            return output
        change = (output - self.average).detach().masked_fill(given, 0)
        moved = (output.detach() + (self.at.type_as(change) - 1) * change).requires_grad_()
        self.changes.append((begin, change[0]))
        self.vectors.append(moved)
        return moved


@contextmanager
def _fixed_weights(model: nn.Module) -> Iterator[None]:
    """Inside, weights need no gradients: what leads to none of the vectors is not kept."""
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in trained:
            p.requires_grad_(False)
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
