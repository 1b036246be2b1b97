"""The recipe for masks and images as targets: it learns, is shown, and comes back from its file."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from warmstart.callbacks import BnFreeze
from warmstart.data import DataBlock, DataBunch, IndexSplitter
from warmstart.learner import CrossEntropyLoss, DiceMulti, MSELoss, foreground_acc, load_learner, set_seed
from warmstart.vision import (
    ImageBlock,
    MaskBlock,
    Normalize,
    Resize,
    aug_transforms,
    efficientnet_lite0,
    get_image_files,
    imagenet_stats,
    resnet18,
    unet_learner,
    xresnet18,
)

CODES = ["nothing", "disc", "unknown"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """16 images of a bright disc, and beside each its mask (1 in the disc, void at its rim) and a small copy."""
    folder, numbers = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for name in ("images", "masks", "small"):
        (folder / name).mkdir()
    for i in range(16):
        (y, x), radius = numbers.integers(10, 22, 2), numbers.integers(5, 9)
        distance = np.hypot(*(np.mgrid[:32, :40] - np.array([y, x])[:, None, None]))
        pixels = numbers.integers(0, 30, (32, 40, 3)) + 120 * (distance < radius)[..., None]
        image = Image.fromarray(pixels.astype(np.uint8))
        image.save(folder / "images" / f"{i:02}.png")
        image.resize((20, 16)).save(folder / "small" / f"{i:02}.png")
        mask = np.where(abs(distance - radius) < 0.7, 2, distance < radius).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{i:02}.png")
    return folder


def mask_of(file):
    return file.parents[1] / "masks" / file.name


def small_of(file):
    return file.parents[1] / "small" / file.name


def mask_data(folder, **options):
    block = DataBlock(
        (ImageBlock, MaskBlock(CODES, void="unknown")), get_items=get_image_files, get_y=mask_of,
        splitter=IndexSplitter([0, 1, 2, 3]), **options,
    )  # fmt: skip
    return block.databunch(folder / "images", bs=4, num_workers=0, device="cpu", seed=0)


def image_data(folder, mode="RGB", batch_tfms=None):
    block = DataBlock(
        (ImageBlock(mode), ImageBlock(mode)), get_items=get_image_files, get_x=small_of, n_inp=1,
        splitter=IndexSplitter([0, 1, 2, 3]), item_tfms=Resize((32, 40)), batch_tfms=batch_tfms,
    )  # fmt: skip
    return block.databunch(folder / "images", bs=4, num_workers=0, device="cpu", seed=0)


def tiny(pretrained=False):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def quiet(learn):
    learn.progress.bar = learn.progress.table = False
    return learn


def accuracy_without_void(pred, targ):
    return foreground_acc(pred, targ, bkg_idx=2)


# ---- masks


def test_masks_are_learned_without_their_void_pixels(shapes):
    set_seed(0)
    data = mask_data(shapes, batch_tfms=aug_transforms(max_warp=0, max_rotate=0))
    metrics = [accuracy_without_void, DiceMulti(ignore_index=2)]
    learn = quiet(unet_learner(data, tiny, pretrained=False, metrics=metrics))
    assert learn.loss_func == CrossEntropyLoss(axis=1, ignore_index=2)
    learn.fit_one_cycle(15, 1e-2)
    results = learn.validate()
    assert results["accuracy_without_void"] > 0.95 and results["dice_multi"] > 0.9


def first_stages(network):
    return network.features[:4]


MODELS = {
    "torchvision's": ({"arch": resnet18, "cut": 6}, {}),
    "timm's": ({"arch": "test_resnet", "self_attention": True}, {}),
    "ours": ({"arch": efficientnet_lite0, "blur": True, "cut": first_stages}, {"first_stages": first_stages}),
    "ours without weights": ({"arch": xresnet18, "cut": 4, "norm": "weight", "y_range": (-9, 9)}, {}),
    "own": ({"arch": tiny, "last_cross": False, "bottle": True}, {"tiny": tiny}),
}  # fmt: skip


@pytest.mark.parametrize(("options", "own"), MODELS.values(), ids=MODELS)
def test_a_learner_of_any_network_trains_predicts_and_comes_back_identical(shapes, tmp_path, options, own):
    if isinstance(options["arch"], str):
        pytest.importorskip("timm")
    learn = quiet(unet_learner(mask_data(shapes), pretrained=False, path=tmp_path, **options))
    learn.fit(1)
    files = get_image_files(shapes / "images")
    preds, _ = learn.get_preds(dl=learn.data.test_dl(files))
    assert preds.shape == (16, 3, 32, 40) and preds.sum(1).allclose(torch.ones(16, 32, 40))

    again = quiet(load_learner(learn.export(), custom=own))
    assert again.get_preds(dl=again.data.test_dl(files))[0].equal(preds)
    one = again.predict(files[0])
    assert one.index.equal(preds[0].argmax(0)) and one.decoded.shape == (32, 40)
    assert [[p.shape for p in group] for group in again.groups] == [[p.shape for p in group] for group in learn.groups]
    again.data = mask_data(shapes)
    again.fine_tune(1)


def test_results_are_shown(shapes):
    from matplotlib import pyplot as plt

    learn = unet_learner(mask_data(shapes), tiny, pretrained=False)
    learn.show_results(max_n=4)
    axes = [ax for ax in plt.gcf().axes if ax.images]
    assert len(axes) == 4 and all(len(ax.images) == 4 for ax in axes)  # photo and mask, twice
    plt.close("all")


def test_the_number_of_outputs_is_asked_for_where_the_data_does_not_say(shapes):
    block = DataBlock((ImageBlock, MaskBlock), get_items=get_image_files, get_y=mask_of)
    data = block.databunch(shapes / "images", bs=4, num_workers=0, device="cpu", seed=0)
    with pytest.raises(AttributeError, match="n_out="):
        unet_learner(data, tiny, pretrained=False)
    assert unet_learner(data, tiny, pretrained=False, n_out=3).model.decoder.last[1][0].out_channels == 3


def test_channels_come_from_the_images_or_from_n_in(shapes):
    assert unet_learner(image_data(shapes, "L"), tiny, pretrained=False).model.body[0].in_channels == 1
    with pytest.raises(ValueError, match="n_in=1, but the images have 3 channels"):
        unet_learner(mask_data(shapes), tiny, pretrained=False, n_in=1)
    batches = DataLoader(TensorDataset(torch.rand(8, 5, 16, 16), torch.randint(2, (8, 16, 16))), 4)
    data = DataBunch(batches, batches, device="cpu")
    learn = quiet(unet_learner(data, tiny, pretrained=False, n_in=5, n_out=2, loss_func=CrossEntropyLoss(axis=1)))
    learn.fit(1)
    assert learn.get_preds()[0].shape == (8, 2, 16, 16)


# ---- images


def test_images_are_predicted_from_smaller_ones(shapes):
    set_seed(0)
    learn = quiet(unet_learner(image_data(shapes), tiny, pretrained=False, norm="weight"))
    assert learn.loss_func == MSELoss() and learn.model.decoder.last[1][0].out_channels == 3
    before = learn.validate()["valid_loss"]
    learn.fit_one_cycle(35, 5e-3)
    after, ((_, images),) = learn.validate()["valid_loss"], learn.data.valid_dl
    assert after < 0.1 * before and after < 0.25 * images.var()


def test_predicted_images_are_shown_and_come_back_from_a_file(shapes, tmp_path):
    from matplotlib import pyplot as plt

    data = image_data(shapes, batch_tfms=Normalize(*imagenet_stats))
    learn = quiet(unet_learner(data, tiny, pretrained=False, y_range=(0, 1), path=tmp_path))
    file = get_image_files(shapes / "images")[0]
    decoded, index, probs = learn.predict(file)
    assert decoded.shape == (3, 32, 40) and decoded.equal(index) and decoded.equal(probs)
    assert decoded.min() >= 0 and decoded.max() <= 1
    x, y = learn.data.one_batch()
    assert x.min() < -1 and y.min() >= 0 and y.max() <= 1  # only what the body sees is normalised
    learn.show_results(max_n=2)
    axes = [ax for ax in plt.gcf().axes if ax.images]
    assert [len(ax.images) for ax in axes] == [3, 3]  # input, target, prediction
    plt.close("all")
    again = load_learner(learn.export(), custom={"tiny": tiny, "small_of": small_of})
    assert again.predict(file).decoded.equal(decoded)


# ---- pretrained bodies


def pretrained_tiny(pretrained=True):
    torch.manual_seed(0)
    return tiny()


pretrained_tiny.normalisation = ((0.5,) * 3, (0.25,) * 3)


def test_a_pretrained_body_starts_frozen_and_keeps_its_batchnorm_statistics(shapes):
    learn = quiet(unet_learner(mask_data(shapes), pretrained_tiny))
    assert not any(p.requires_grad for p in learn.model.body.parameters())
    assert all(p.requires_grad for p in learn.model.decoder.parameters())
    before = {name: value.clone() for name, value in learn.model.body.state_dict().items()}
    learn.fit(1)
    assert all(value.equal(before[name]) for name, value in learn.model.body.state_dict().items())
    learn.unfreeze()
    learn.fit(1, 1e-4)
    changed = {name for name, value in learn.model.body.state_dict().items() if not value.equal(before[name])}
    assert changed == {name for name, _ in learn.model.body.named_parameters()}  # and no statistics
    assert not any(
        isinstance(cb, BnFreeze) for cb in unet_learner(mask_data(shapes), pretrained_tiny, bn_freeze=False).cbs
    )


def test_images_are_normalised_as_the_weights_expect_and_a_given_normalisation_warns(shapes):
    learn = unet_learner(mask_data(shapes), pretrained_tiny)
    assert [t for t in learn.data.batch_tfms if isinstance(t, Normalize)] == [Normalize((0.5,) * 3, (0.25,) * 3)]
    with pytest.warns(UserWarning, match="but the weights expect") as caught:
        unet_learner(mask_data(shapes, batch_tfms=Normalize(*imagenet_stats)), pretrained_tiny)
    assert caught[0].filename == __file__


def test_groups_are_those_of_the_architecture_and_the_decoder(shapes):
    learn = unet_learner(mask_data(shapes), efficientnet_lite0, pretrained=False)
    sizes = [len(list(part.parameters())) for part in (learn.model.body, learn.model.decoder)]
    assert [len(group) for group in learn.groups] == sizes
    assert len(unet_learner(mask_data(shapes), resnet18, pretrained=False).groups) == 3
    single = unet_learner(mask_data(shapes), tiny, pretrained=False, splitter=lambda model: [list(model.parameters())])
    assert len(single.groups) == 1
