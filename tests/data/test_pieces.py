"""Batch transforms in pieces: the same result as at once."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from warmstart.data import pieces
from warmstart.data.pieces import apply_to_batch
from warmstart.data.randomness import Randomness
from warmstart.data.transforms import Transform, apply_transforms, as_transforms
from warmstart.vision import ImageBlock, Normalize, aug_transforms, imagenet_stats
from warmstart.vision.positions import as_boxes, as_points


@dataclass
class Add(Transform):
    """Adds each item's own random number, and notes how many items it saw at a time."""

    seen: list
    by_item: bool = True

    order: ClassVar[int] = 0

    def __call__(self, sample, rand):
        self.seen.append(len(sample[0]))
        return (sample[0] + rand.uniform(1), *sample[1:])


@given(n=st.integers(1, 40), which=st.lists(st.booleans(), min_size=1, max_size=5))
def test_pieces_give_what_the_whole_batch_gives_in_any_mixture_of_steps(n, which):
    batch, rand = (torch.zeros(n, 1), torch.arange(n)), Randomness(1, 2, list(range(n)))
    steps = [Add([], by_item) for by_item in which]
    for a, b in zip(apply_to_batch(steps, batch, rand), apply_transforms(steps, batch, rand), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (2, 5)])
def test_pieces_of_any_type_and_shape_become_a_whole(shape, dtype):
    batch, rand = (torch.zeros(20, 1), torch.randint(9, (20, *shape)).to(dtype)), Randomness(0, 0, list(range(20)))
    _, result = apply_to_batch([Add([]), Add([])], batch, rand)
    assert result.dtype == dtype and torch.equal(result, batch[1])


def test_only_steps_by_item_see_pieces_and_only_where_several_follow_each_other():
    seen = [[] for _ in range(4)]
    steps = [Add(seen[0]), Add(seen[1]), Add(seen[2], by_item=False), Add(seen[3])]
    apply_to_batch(steps, (torch.zeros(40, 1),), Randomness(0, 0, list(range(40))))
    assert seen == [[8] * 5, [8] * 5, [40], [40]]


def test_as_many_items_as_there_are_threads_are_in_a_piece_at_least(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 24)
    seen = []
    apply_to_batch([Add(seen), Add([])], (torch.zeros(40, 1),), Randomness(0, 0, list(range(40))))
    assert seen == [24, 16]


@pytest.mark.parametrize("training", [True, False])
def test_photos_masks_points_and_boxes_are_augmented_the_same_in_pieces(training, monkeypatch):
    monkeypatch.setattr(pieces, "ITEMS", 3)
    gen, canvas = torch.Generator().manual_seed(0), (40, 48)
    boxes = torch.tensor([[4.0, 5, 20, 30], [10, 10, 40, 35]]).expand(8, 2, 4).clone()
    batch = (
        tv_tensors.Image(torch.randint(256, (8, 3, *canvas), generator=gen, dtype=torch.uint8)),
        tv_tensors.Mask(torch.randint(5, (8, *canvas), generator=gen)),
        as_points(torch.rand(8, 4, 2, generator=gen) * 40, canvas),
        as_boxes(boxes, canvas),
    )
    tfms = as_transforms(
        [*aug_transforms(size=32, max_hue=0.1), *ImageBlock.batch_tfms, Normalize.from_stats(*imagenet_stats)]
    )
    rand = Randomness(3, 1, list(range(8))) if training else None
    for a, b in zip(apply_to_batch(tfms, batch, rand), apply_transforms(tfms, batch, rand), strict=True):
        assert type(a) is type(b) and a.dtype == b.dtype
        assert torch.equal(a.as_subclass(torch.Tensor), b.as_subclass(torch.Tensor))
        assert getattr(a, "canvas_size", None) == getattr(b, "canvas_size", None)


def test_a_batch_that_changes_as_one_stays_one(monkeypatch):
    monkeypatch.setattr(pieces, "ITEMS", 2)
    images = tv_tensors.Image(torch.rand(6, 3, 16, 16))
    tfms = aug_transforms(batch=True)
    rand = Randomness(0, 0, list(range(6)))
    assert torch.equal(apply_to_batch(tfms, (images,), rand)[0], apply_transforms(tfms, (images,), rand)[0])
