import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from warmstart import data
from warmstart.data import Block, CategoryBlock, ColReader, FuncLabeller, Transform, parent_label
from warmstart.data.getters import ItemName
from warmstart.data.portable import Portable, describe, restore
from warmstart.data.randomness import seeded_generators
from warmstart.data.transforms import as_transforms


def through_json(obj, custom=None):
    return restore(json.loads(json.dumps(describe(obj))), custom)


def label_of(item):
    return item[0]


@dataclass
class Blur(Transform):
    radius: float

    def __call__(self, sample, rand):
        return sample


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(plain)
def test_plain_values_come_back_as_they_were(value):
    again = through_json(value)
    assert again == value and type(again) is type(value)


def test_paths_enums_dtypes_and_scalars_come_back():
    values = [Path("a/b"), InterpolationMode.BICUBIC, v2.AutoAugmentPolicy.CIFAR10, torch.float16]
    assert through_json(values) == values
    assert through_json([np.int64(3), np.float64(0.5), np.str_("a"), torch.tensor(2)]) == [3, 0.5, "a", 2]


OBJECTS = [
    data.Block(),
    data.CategoryBlock(vocab=["ant", "bee"], add_na=True),
    data.CategoryBlock(vocab=[1, 2, "3"], sort=False),
    data.MultiCategoryBlock(vocab=["a", "b"]),
    data.MultiCategoryBlock(encoded=True, vocab=["a", "b"]),
    data.RegressionBlock(n_out=2),
    data.AttrGetter("stem"),
    data.ItemGetter(3),
    data.ItemGetter("name"),
    data.RegexLabeller(r"/([^/]+)_\d+.jpg$"),
    data.ColReader(["a", 1], Path("images"), ".png", None),
    data.ColReader("tags", label_delim=" "),
    data.FuncLabeller(data.parent_label),
    ItemName(data.RegexLabeller("(a)")),
    data.RandomSplitter(0.3, 42),
    data.TrainTestSplitter(0.3, ["a", "b"], 1),
    data.GrandparentSplitter("train", "val"),
    data.FuncSplitter(data.parent_label),
    data.IndexSplitter([1, 2]),
    data.MaskSplitter([True, False]),
    data.ColSplitter("is_valid"),
    data.FileSplitter(Path("valid.txt")),
    data.RandomSubsetSplitter(10, 0.5, 3),
    data.EndSplitter(0.1),
    data.KFoldSplitter(4, 2, 1),
    data.DataBlock((Block, CategoryBlock(["a"])), data.get_image_files, None, data.parent_label, data.RandomSplitter()),
]


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: type(obj).__name__)
def test_objects_of_this_library_come_back_equal(obj):
    again = through_json(obj)
    assert again == obj and type(again) is type(obj)


def test_every_portable_of_this_package_is_tried_above():
    tried = {type(obj) for obj in OBJECTS}
    exported = {obj for name in data.__all__ if isinstance(obj := getattr(data, name), type)}
    assert {kind for kind in exported if issubclass(kind, Portable)} - tried == {Transform}


@pytest.mark.parametrize("function", [parent_label, data.get_files, data.get_image_files])
def test_functions_of_this_library_come_back_themselves(function):
    assert through_json(function) is function


V2 = [
    v2.Resize(8), v2.CenterCrop(8), v2.RandomCrop(8, padding=2), v2.RandomResizedCrop(8, scale=(0.5, 1)), v2.RGB(),
    v2.RandomHorizontalFlip(0.7), v2.RandomRotation(20), v2.RandomAffine(10, (0.1, 0.2), (0.8, 1.2), 5), v2.Pad(2),
    v2.RandomPerspective(), v2.ElasticTransform(), v2.ColorJitter(0.3, 0.2, 0.1, 0.05), v2.GaussianBlur(3),
    v2.RandomGrayscale(0.5), v2.Grayscale(3), v2.RandomErasing(1.0), v2.RandomApply([v2.RandomInvert(1.0)], 0.5),
    v2.RandomChoice([v2.RandomInvert(1.0), v2.Resize(4)]), v2.RandAugment(), v2.AutoAugment(), v2.TrivialAugmentWide(),
    v2.ToDtype(torch.float32, scale=True), v2.RandomShortestSize([6, 8]), v2.GaussianNoise(),
]  # fmt: skip


@pytest.mark.parametrize("tfm", V2, ids=lambda tfm: type(tfm).__name__)
def test_transforms_of_torchvision_come_back_and_do_the_same(tfm):
    (wrapped,) = as_transforms(tfm)
    again = through_json(wrapped)
    assert repr(again) == repr(wrapped)
    image = tv_tensors.Image(torch.arange(3 * 48 * 40).view(3, 48, 40).mul(7).byte())
    image = v2.functional.to_dtype(image, scale=True) if isinstance(tfm, v2.GaussianNoise) else image
    results = []
    for transform in (tfm, again.transform):
        with seeded_generators(1):
            results.append(transform(image))
    assert torch.equal(*results)


def test_a_transform_of_torchvision_that_forgets_its_arguments_is_handed_in_by_name():
    erasing = v2.RandomErasing(value="random")
    assert describe(erasing)["custom"] == "RandomErasing"
    assert through_json(erasing, {"RandomErasing": erasing}) is erasing


def test_what_is_yours_comes_back_by_its_name():
    assert through_json(label_of, {"label_of": label_of}) is label_of
    assert through_json(FuncLabeller(label_of), {"label_of": len}) == FuncLabeller(len)
    (function,) = as_transforms(label_of)
    assert through_json(function, {"label_of": label_of}) == function


def test_a_dataclass_of_yours_keeps_its_fields():
    assert through_json(Blur(2.5), {"Blur": Blur}) == Blur(2.5)
    other = Blur(9.0)
    assert through_json(Blur(2.5), {"Blur": other}) is other


def test_what_is_yours_and_not_handed_in_is_named():
    for obj in (label_of, Blur(1.0)):
        with pytest.raises(KeyError, match=r"label_of|Blur"):
            through_json(obj)


def test_a_lambda_cannot_be_described():
    with pytest.raises(ValueError, match="A lambda cannot be exported: it has no name"):
        describe(ColReader(0, pref=lambda x: x))  # type: ignore[arg-type]


def test_a_method_of_a_type_of_python_is_handed_in_by_its_name():
    own = {}
    assert restore(json.loads(json.dumps(describe(str.split, own))), own) is str.split
    assert own == {"split": str.split}


def test_two_functions_of_one_name_cannot_be_told_apart():
    def clash():
        def label_of(item):
            return item[1]

        return label_of

    with pytest.raises(ValueError, match="Two different objects are called 'label_of'"):
        describe([label_of, clash()])


OUTSIDE = [
    {"class": "os.system", "fields": {"command": "true"}},
    {"class": "builtins.eval", "fields": {}},
    {"class": "data.getters.os.system", "fields": {}},
    {"class": "data.portable.Path", "fields": {}},
    {"class": "data.portable.Portable", "fields": {}},
    {"class": "data.lazy.LazyModule", "fields": {"name": "os"}},
    {"class": "data.getters.parent_label", "fields": {"item": "a/b"}},
    {"class": "__main__.main", "fields": {}},
    {"class": "tests.data.test_portable.Blur", "fields": {"radius": 1.0}},
    {"class": "setup.main", "fields": {}},
    {"class": "", "fields": {}},
    {"class": "data.getters.RegexLabeller.__class__", "fields": {}},
    {"function": "data.getters.os"},
    {"function": "data.getters.get_files.__globals__"},
    {"function": "data.getters"},
    {"function": "..data.getters.parent_label"},
    {"v2": "functional", "fields": {}},
    {"v2": "__builtins__", "fields": {}},
    {"v2": "InterpolationMode", "fields": {}},
    {"enum": "os", "value": 1},
    {"dtype": "load"},
    {"import": "os"},
    {},
]


@pytest.mark.parametrize("spec", OUTSIDE, ids=lambda spec: json.dumps(spec)[:50])
def test_nothing_outside_this_library_can_be_named(spec):
    with pytest.raises(ValueError, match="was the file written by another version"):
        restore(spec)


def test_a_class_defined_by_the_user_is_no_class_of_this_library():
    with pytest.raises(ValueError, match=r"has no '.*Blur'"):
        restore({"class": f"{Blur.__module__}.Blur", "fields": {"radius": 1.0}})


words = ["class", "function", "fields", "v2", "custom", "list", "tuple", "dict", "path", "enum", "dtype", "value"]
specs = st.recursive(st.none() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.sampled_from(words), s))


@given(specs)
def test_any_other_description_fails_cleanly(spec):
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        assert not callable(restore(spec))
