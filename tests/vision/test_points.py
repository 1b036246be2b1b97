import json

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from warmstart.data import DataBlock, EndSplitter, ItemError
from warmstart.data.portable import describe, restore
from warmstart.learner import Learner, MSELoss, load_learner
from warmstart.vision import ImageBlock, Normalize, PointBlock, Resize, aug_transforms, imagenet_stats

matplotlib.use("Agg")

HEIGHT, WIDTH = 32, 48


def scene(i: int) -> tuple[Image.Image, list[list[float]]]:
    """A red and a blue disk on a dark ground, and the places of their middles."""
    random = np.random.default_rng(i)
    places = random.uniform(6, [WIDTH - 6, HEIGHT - 6], (2, 2))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    picture = random.uniform(0, 30, (HEIGHT, WIDTH, 3))
    for (x0, y0), channel in zip(places, (0, 2), strict=True):
        picture[np.hypot(x - x0, y - y0) < 4, channel] = 250
    return Image.fromarray(picture.astype(np.uint8)), places.tolist()


def scenes(n: int = 12, items=None, **options):
    tfms = {k: options.pop(k) for k in ("item_tfms", "batch_tfms") if k in options}
    block = DataBlock((ImageBlock, options.pop("block", PointBlock)), splitter=EndSplitter(0.25), **tfms)
    items = [scene(i) for i in range(n)] if items is None else items
    return block.databunch(items, **{"bs": 3, "num_workers": 0, "device": "cpu", "seed": 0, **options})


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


# ---- the block


@pytest.mark.parametrize("value", [[[3, 4], [5.5, 6]], np.array([[3, 4], [5.5, 6]]), torch.tensor([[3, 4], [5.5, 6]])])
def test_points_are_floats_whatever_they_come_as(value):
    points = PointBlock().encode(value)
    assert isinstance(points, tv_tensors.KeyPoints) and points.dtype == torch.float32
    assert points.tolist() == [[3, 4], [5.5, 6]]


def test_one_point_needs_no_list():
    assert PointBlock().encode((3, 4)).tolist() == [[3, 4]]


def test_a_model_needs_two_outputs_for_each_point():
    assert PointBlock().n_out is None and PointBlock(5).n_out == 10
    data = scenes()
    assert data.c == 4 and data.targets[0] == PointBlock(2)
    assert Learner(data, nn.Flatten()).loss_func == MSELoss()


def test_points_are_from_minus_one_to_one_for_the_model_and_in_pixels_for_people():
    data = scenes(item_tfms=Resize((16, 24), "squish"), shuffle=False)
    images, points = data.one_batch()
    assert type(points) is Tensor and points.shape == (3, 2, 2)
    pixels = torch.tensor([scene(i)[1] for i in range(3)])
    torch.testing.assert_close(points, pixels / torch.tensor([WIDTH / 2, HEIGHT / 2]) - 1)
    decoded = torch.stack([points for _, points in data.decode((images, points))])
    torch.testing.assert_close(decoded, pixels / 2)


def test_augmented_points_lie_on_their_disks():
    data = scenes(24, batch_tfms=[*aug_transforms(size=(40, 52)), Normalize.from_stats(*imagenet_stats)], bs=18)
    for image, points in data.decode(data.one_batch()):
        for (x, y), channel in zip(points.tolist(), (0, 2), strict=True):
            if 0 < x < 52 and 0 < y < 40:
                assert image[channel, int(y), int(x)] > 0.6


def test_transforms_of_torchvision_move_a_batch_of_points():
    data = scenes(batch_tfms=v2.RandomHorizontalFlip(p=1), shuffle=False)
    _, points = data.one_batch()
    pixels = torch.tensor([scene(i)[1] for i in range(3)])
    expected = torch.stack([1 - 2 * pixels[..., 0] / WIDTH, 2 * pixels[..., 1] / HEIGHT - 1], -1)
    torch.testing.assert_close(points, expected, rtol=0, atol=2.001 / WIDTH)  # it counts from the middle of a pixel


def test_points_that_leave_the_image_stay_outside():
    data = scenes(4, items=[(scene(i)[0], [[1, 1]]) for i in range(4)], item_tfms=Resize(20), bs=3)
    _, points = data.one_batch()
    assert (points.abs() > 1).any()


@pytest.mark.parametrize("point", [(-1, 5), (5, 32.5), (48.1, 5), (5, -0.1)])
def test_points_outside_of_their_image_are_an_error_that_names_the_item(point):
    items = [scene(i) for i in range(4)]
    items[1] = (items[1][0], [[3, 4], point])
    message = rf"PlaceOnImage failed on item 1 of 3 .*point 1 lies outside of its image, at x = {point[0]:g}.*48 wide"
    with pytest.raises(ItemError, match=message):
        scenes(items=items).one_batch()


def test_points_on_the_edges_are_inside():
    _, points = scenes(items=[(scene(i)[0], [[0, 0], [WIDTH, HEIGHT]]) for i in range(4)]).one_batch()
    assert points.abs().eq(1).all()


def test_another_number_of_points_is_found_before_training():
    items = [scene(i) for i in range(4)]
    items[2] = (items[2][0], [[3, 4]])
    with pytest.raises(ItemError, match=r"encode failed on item 2 of 3 .*PointBlock\(n=2\) got 1 points.*use boxes"):
        scenes(items=items)


def test_what_are_no_points_is_refused():
    for value in ([1, 2, 3], [[1, 2, 3]], 5.0):
        with pytest.raises(ValueError, match=r"points are \(n, 2\)"):
            PointBlock().encode(value)
    for value in ("here", [[1, "a"]], [[1, 2], [3]]):
        with pytest.raises(TypeError, match="needs a list of points"):
            PointBlock().encode(value)
    with pytest.raises(ValueError, match="leave out the items that lack one"):
        PointBlock().encode([[1, float("nan")]])


def test_a_description_makes_the_block_again():
    assert restore(json.loads(json.dumps(describe(PointBlock(3))))) == PointBlock(3)


# ---- from pictures to predictions


class Net(nn.Sequential):
    """Where the pixels of the two colours are, on average, and a line through that."""

    def __init__(self):
        super().__init__(nn.AdaptiveAvgPool2d((8, 12)), nn.Flatten(), nn.Linear(3 * 8 * 12, 4))


def test_a_network_learns_to_point_and_says_so(tmp_path):
    torch.manual_seed(0)
    data = scenes(160, bs=20, batch_tfms=aug_transforms(max_warp=0, max_lighting=0))
    learn = Learner(data, Net())
    with learn.no_bar(), learn.no_logging():
        before = learn.validate()["valid_loss"]
        learn.fit(20, 0.02)
        assert learn.validate()["valid_loss"] < before / 4
    pred = learn.predict((scene(200)[0],))
    assert pred.decoded.shape == (2, 2) and (pred.decoded - torch.tensor(scene(200)[1])).abs().max() < 6
    assert learn.batch_predict([(scene(200)[0],)])[0].decoded.equal(pred.decoded)
    in_pixels = (torch.as_tensor(pred.index).view(2, 2) + 1) * torch.tensor([WIDTH / 2, HEIGHT / 2])
    torch.testing.assert_close(pred.decoded, in_pixels)
    preds, targs = learn.get_preds()
    assert preds.shape == (40, 4) and targs.shape == (40, 2, 2)
    learn.show_results(2)
    learn.export(tmp_path / "points.pt")
    loaded = load_learner(tmp_path / "points.pt", custom={"Net": Net})
    assert loaded.predict((scene(200)[0],)).decoded.equal(pred.decoded)
    plt.close("all")


# ---- drawing


def dots(ax):
    return [collection.get_offsets().tolist() for collection in ax.collections]


def test_points_are_drawn_where_they_are_in_the_picture(ax):
    block = PointBlock(1)
    ImageBlock().draw(torch.rand(3, 20, 40), ax)
    block.draw(torch.tensor([[0.5, 0.5]]), ax)  # the middle of the first pixel
    assert dots(ax) == [[[0, 0]]] and ax.get_xlim() == (-0.5, 39.5)
    assert block.text(torch.tensor([[1.25, 3.0]])) == "(1.25, 3)"


def test_target_and_prediction_are_drawn_in_two_colours(ax):
    ImageBlock().draw(torch.rand(3, 20, 40), ax)
    PointBlock(1).draw_result(torch.tensor([[20.0, 10]]), torch.tensor([[30.0, 10]]), ax)
    assert dots(ax) == [[[19.5, 9.5]], [[29.5, 9.5]]]
    first, second = (collection.get_facecolor().tolist() for collection in ax.collections)
    assert first != second
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["target", "prediction"]


def test_show_batch_draws_images_with_points():
    data = scenes()
    data.show_batch(3)
    assert [len(ax.collections) for ax in plt.gcf().axes][:3] == [1, 1, 1]
    plt.close("all")
