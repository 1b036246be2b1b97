"""Where a body has its maps of each resolution: what a U-Net's skip connections carry across.

>>> _, skips, output = find_skips(create_body(resnet34, pretrained=False))    # which gets an image of 64 pixels
>>> [(skip.path, skip.n_channels, skip.size) for skip in skips]
[('2', 64, 32), ('4', 64, 16), ('5', 128, 8), ('6', 256, 4)]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from ..callbacks.hooks import Hooks
from .dry_run import dry_run

__all__ = ["Skip", "Skips", "find_skips"]

Calls = dict[str, list["Skip | None"]]  # a map, or None for all else, for each call of a module, by its path

LEVEL = 1.5  # by how much a map is smaller that is of another resolution: convolutions without padding shrink it, too
STEP = 2.5  # by how much a part may make a map smaller: more, and it has left out a resolution


@dataclass(frozen=True)
class Skip:
    """The output of `body.get_submodule(path)`: a square map of `n_channels`, `size` pixels high and wide.

    `channels_last`: it is `(bs, h, w, c)`, as windowed transformers have it inside, and not `(bs, c, h, w)`.
    """

    path: str
    n_channels: int
    size: int
    channels_last: bool = False


class Skips(NamedTuple):
    """The size of the image that a body got, maps that can be taken from it, from fine to coarse, and its output."""

    image_size: int
    skips: list[Skip]
    output: Skip


def find_skips(body: nn.Module, n_in: int = 3, size: int | None = None) -> Skips:
    """The last map of each resolution before `body` goes to a smaller one.

    They are found by sending a black image of `size` pixels through the body (by default the first that it accepts) and
    looking at the parts that it consists of. A part that leaves out a resolution is looked into: the stages of
    `blocks`, say, or the layers of a `features`. One that halves the map is not: what is inside of a block belongs to
    it. Layers that run more than once are no place to take a map from.

    Raises ValueError for a body whose output is no map (bs, c, h, w), as that of a vision transformer.
    """
    image_size, calls = _trace(body, n_in, size)
    output = calls.pop("")[0]
    if output is None or output.channels_last:
        raise ValueError(
            f"A U-Net needs a body that returns maps (bs, c, h, w), and {type(body).__name__} does not: take a "
            "convolutional network, or cut=<function from the network to a body that does>."
        )
    skips, last, smallest = [], None, image_size
    for part in _parts(calls, "", image_size):
        if part.size < output.size:  # what pools the whole map, to weigh channels, say
            continue
        if LEVEL * part.size <= smallest and last is not None:
            skips.append(last)
        if part.size <= smallest:
            last, smallest = part, part.size
    return Skips(image_size, skips, output)


def _trace(body: nn.Module, n_in: int, size: int | None) -> tuple[int, Calls]:
    """The size of the black image that went through, and what each module gave for it."""

    def forward(image: Tensor) -> Any:
        calls: Calls = {}
        paths = {module: path for path, module in body.named_modules()}

        def note(module: nn.Module, input: Any, output: Any) -> None:
            calls.setdefault(paths[module], []).append(_as_skip(paths[module], output))

        with Hooks(paths, note):
            body(image)
        return image.shape[-1], calls

    return cast(Any, dry_run(body, n_in, size, forward))


def _as_skip(path: str, output: Any) -> Skip | None:
    """`output` if it is a map of a square image."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return None
    _, a, b, c = output.shape
    if b == c:
        return Skip(path, a, b)
    return Skip(path, c, a, channels_last=True) if a == b else None


def _parts(calls: Calls, path: str, size: int) -> Iterator[Skip]:
    """The maps of the parts of the module at `path`, which gets one of `size`; a part that leaves one out is opened."""
    for child in _children(calls, path):
        whole = calls[child][0] if len(calls[child]) == 1 else None
        is_step = whole is not None and size <= STEP * whole.size
        inner = [] if is_step else list(_parts(calls, child, size))
        parts = inner or [skip for skip in [whole] if skip]
        yield from parts
        size = parts[-1].size if parts else size


def _children(calls: Calls, path: str) -> list[str]:
    """The modules right below `path` that are called; containers that are not, as `nn.ModuleList`, do not count."""
    return [child for child in calls if child and child != path and _caller(calls, child) == path]


def _caller(calls: Calls, path: str) -> str:
    """The path of the module around the one at `path` that is called itself; "" is the body."""
    while path:
        path = path.rpartition(".")[0]
        if path in calls:
            return path
    return ""
