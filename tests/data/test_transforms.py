from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torchvision
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from warmstart.data import ItemError, Transform
from warmstart.data.randomness import Randomness
from warmstart.data.transforms import apply_transforms, as_transforms, decode_transforms

image = tv_tensors.Image(torch.arange(48, dtype=torch.uint8).view(3, 4, 4))
label = torch.tensor(7)


@dataclass
class Add(Transform):
    amount: float

    def __call__(self, sample, rand):
        return tuple(value + self.amount for value in sample)

    def decode(self, sample):
        return tuple(value - self.amount for value in sample)


@dataclass
class Double(Transform):
    order: ClassVar[int] = -1

    def __call__(self, sample, rand):
        return tuple(value * 2 for value in sample)

    def decode(self, sample):
        return tuple(value / 2 for value in sample)


@dataclass
class Noise(Transform):
    def __call__(self, sample, rand):
        return sample if rand is None else tuple(value + rand.uniform(1).item() for value in sample)


def negative(x):
    return -x


def apply(tfms, sample, rand=None):
    return apply_transforms(as_transforms(tfms), sample, rand)


def test_transforms_run_by_their_order_then_as_given():
    assert apply([Add(3), Double(), Add(1)], (1.0,)) == (6.0,)
    assert [t.name for t in as_transforms([Add(3), Double(), Add(1)])] == ["Double", "Add", "Add"]


def test_decoding_goes_backwards():
    tfms = as_transforms([Add(3), Double()])
    assert decode_transforms(tfms, apply_transforms(tfms, (1.0, 5.0), None)) == (1.0, 5.0)


def test_each_transform_has_its_own_numbers():
    rand = Randomness(0, 0, [0])
    (once,) = apply([Noise()], (0.0,), rand)
    (twice,) = apply([Noise(), Noise()], (0.0,), rand)
    assert 0 < once < 1 and twice not in (once, 2 * once)
    assert apply([Noise(), Noise()], (0.0,)) == (0.0,)


def test_one_transform_none_and_nested_lists_are_welcome():
    assert as_transforms(None) == as_transforms([]) == []
    assert as_transforms(Double()) == [Double()]
    assert as_transforms([Add(1), [Add(2), (Add(3),)]]) == [Add(1), Add(2), Add(3)]


def test_a_function_gets_the_first_input_alone():
    assert apply(negative, (1, 2)) == (-1, 2)
    assert apply(nn.ReLU(), (torch.tensor(-1.0), 2)) == (0.0, 2)
    assert str(as_transforms([negative, nn.ReLU()])) == "[negative, ReLU]"


def test_transforms_of_torchvision_get_the_whole_sample():
    flipped, same = apply(v2.RandomHorizontalFlip(p=1.0), (image, label), Randomness(0, 0, [0]))
    assert torch.equal(flipped, image.flip(-1)) and same is label
    assert apply(v2.Resize(2), (image,))[0].shape == (3, 2, 2)
    assert repr(as_transforms(v2.Resize(2))).startswith("[Resize(size=[2]")


def test_a_composition_of_torchvision_is_taken_apart():
    tfms = as_transforms(v2.Compose([v2.Resize(2), v2.Compose([v2.RandomHorizontalFlip()]), Double()]))
    assert [t.name for t in tfms] == ["Double", "Resize", "RandomHorizontalFlip"]


NOT_RANDOM = {"CenterCrop", "ClampBoundingBoxes", "ClampKeyPoints", "Compose", "ConvertBoundingBoxFormat",
              "ConvertImageDtype", "FiveCrop", "Grayscale", "Identity", "Lambda", "LinearTransformation", "Normalize",
              "PILToTensor", "Pad", "RGB", "Resize", "SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode",
              "TenCrop", "ToDtype", "ToImage", "ToPILImage", "ToPureTensor", "ToTensor", "Transform",
              "UniformTemporalSubsample"}  # fmt: skip


def test_every_transform_of_torchvision_is_known_as_random_or_not():
    kinds = [kind for kind in vars(v2).values() if isinstance(kind, type) and issubclass(kind, v2.Transform)]
    for kind in kinds:
        transform = as_transforms(kind.__new__(kind))[0] if kind is not v2.Compose else None
        assert transform is None or transform.is_random != (kind.__name__ in NOT_RANDOM), kind


@pytest.mark.parametrize(
    "transform",
    [v2.RandomInvert(p=1.0), v2.ColorJitter(0.5), v2.GaussianNoise(), v2.RandomApply([v2.RGB()]), v2.JPEG(9)],
)
def test_random_transforms_of_torchvision_leave_validation_alone(transform):
    (same,) = apply(transform, (image,))
    assert same is image


@pytest.mark.parametrize("wrong", [3, "Resize", [v2.Resize(2), None]])
def test_what_is_no_transform_is_named(wrong):
    with pytest.raises(TypeError, match=r"A transform is a Transform, .* or a function, not (3|'Resize'|None)"):
        as_transforms(wrong)


@pytest.mark.parametrize("kind", [Double, v2.Resize])
def test_a_class_is_no_transform_yet(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__} is a class: pass an instance, {kind.__name__}\("):
        as_transforms([kind])


def test_old_transforms_of_torchvision_are_pointed_to_the_new_ones():
    with pytest.raises(TypeError, match=r"old transforms: pass torchvision\.transforms\.v2\.RandomRotation"):
        as_transforms(torchvision.transforms.RandomRotation(5))


# ---- of torchvision


def test_torchvisions_normalisation_comes_last_and_is_undone_for_showing():
    @dataclass
    class Light(Transform):
        order: ClassVar[int] = 40

        def __call__(self, sample, rand):
            return tuple(value.clamp(0, 1) for value in sample)

    tfms = as_transforms([v2.Normalize([0.5], [0.1]), Light(), Add(0.0)])
    assert [tfm.name for tfm in tfms] == ["Add", "Light", "Normalize"]
    picture = tv_tensors.Image(torch.rand(2, 1, 4, 4))
    (result,) = apply_transforms(tfms, (picture,), None)
    assert result.min() < -1 and result.max() > 1
    torch.testing.assert_close(decode_transforms(tfms, (tv_tensors.Image(result),))[0], picture)


@pytest.mark.parametrize("flip", [v2.RandomHorizontalFlip(1), v2.RandomVerticalFlip(1)])
def test_points_stay_on_their_pixels_when_torchvision_mirrors(flip):
    picture = torch.zeros(1, 6, 8)
    picture[0, 1, 2] = 1
    middle = tv_tensors.KeyPoints([[2.5, 1.5]], canvas_size=(6, 8))
    moved, point = apply(flip, (tv_tensors.Image(picture), middle), Randomness(0, 0, [0]))
    _, y, x = moved.nonzero()[0].tolist()
    assert isinstance(point, tv_tensors.KeyPoints) and point.tolist() == [[x + 0.5, y + 0.5]]


def test_a_transform_of_a_batch_that_fails_is_named():
    def odd(x):
        raise RuntimeError("no such thing")

    with pytest.raises(ItemError, match="batch transform odd failed: RuntimeError: no such thing"):
        apply(odd, (image, label))
