import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from warmstart.data.packing import DTYPES, pack, unpack


def again(*values):
    packed = pack(values)
    assert packed is not None
    return unpack(bytearray(packed))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@given(shape=st.lists(st.integers(0, 4), max_size=4), seed=st.integers(0, 99))
def test_tensors_of_any_type_and_shape_come_back(dtype, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    value = torch.randint(0, 2, (*shape, dtype.itemsize), dtype=torch.uint8, generator=generator).view(dtype)[..., 0]
    (result,) = again(value)
    assert type(result) is torch.Tensor and result.dtype == dtype and result.shape == value.shape
    assert result.contiguous().view(-1).view(torch.uint8).equal(value.contiguous().view(-1).view(torch.uint8))


@given(st.permutations(range(4)))
def test_the_order_of_axes_in_memory_is_kept(order):
    value = torch.arange(360).view(3, 4, 5, 6).permute(order)
    (result,) = again(value)
    assert result.equal(value) and result.stride() == value.stride()
    cut = value[1:, :2]
    assert sorted(range(4), key=lambda axis: -again(cut)[0].stride(axis)) == sorted(
        range(4), key=lambda axis: -cut.stride(axis)
    )


def test_images_masks_boxes_and_points_stay_what_they_are():
    boxes = tv_tensors.BoundingBoxes([[1.0, 2, 3, 4]], format="CXCYWH", canvas_size=(7, 9))
    points = tv_tensors.KeyPoints([[1.5, 2.5]], canvas_size=(7, 9))
    image = tv_tensors.Image(torch.arange(24, dtype=torch.uint8).view(2, 4, 3).permute(2, 0, 1))
    mask, label = tv_tensors.Mask(torch.tensor([[1, 2]])), torch.tensor(3)
    values = (image, mask, boxes, points, label)
    results = again(*values)
    assert [type(result) for result in results] == [type(value) for value in values]
    assert all(result.equal(value) for result, value in zip(results, values, strict=True))
    assert results[2].format == boxes.format and results[2].canvas_size == results[3].canvas_size == (7, 9)


def test_what_comes_back_may_be_changed():
    packed = bytearray(pack([torch.zeros(3), torch.ones(3)]))
    first, second = unpack(packed)
    first += 5
    assert first.tolist() == [5, 5, 5] and second.tolist() == [1, 1, 1]


def test_other_values_have_no_bytes():
    class Mine(torch.Tensor):
        pass

    for value in (3, "a", None, [torch.zeros(1)], torch.zeros(2).to_sparse(), torch.zeros(1).as_subclass(Mine),
                  torch.zeros(1, requires_grad=True), torch.zeros(1, device="meta")):  # fmt: skip
        assert pack([torch.zeros(1), value]) is None


@given(st.data())
def test_damaged_bytes_are_refused_or_give_tensors(data):
    packed = bytearray(pack([torch.arange(10), tv_tensors.KeyPoints([[1.0, 2]], canvas_size=(3, 4))]))
    for place in data.draw(st.lists(st.integers(0, len(packed) - 1), min_size=1, max_size=3)):
        packed[place] = data.draw(st.integers(0, 255))
    cut = packed[: data.draw(st.integers(0, len(packed)))]
    for damaged in (packed, cut):
        try:
            assert all(isinstance(value, torch.Tensor) for value in unpack(damaged))
        except ValueError as error:
            assert "no packed values" in str(error)
