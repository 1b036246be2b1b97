"""Predictions: the numbers are plain PyTorch's, in the order of the items, for one or many of them."""

import io
from dataclasses import dataclass
from functools import partial

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2
from warmstart.callbacks import Callback
from warmstart.data import (
    Block,
    CategoryBlock,
    DataBlock,
    DataBunch,
    EndSplitter,
    IndexSplitter,
    MultiCategoryBlock,
    RegressionBlock,
    Transform,
)
from warmstart.learner import CrossEntropyLoss, FocalLoss, Learner, MSELoss
from warmstart.vision import ImageBlock, MaskBlock, Normalize, Resize, get_image_files, parent_label

torch.set_num_threads(1)
matplotlib.use("Agg")

N, N_VALID = 23, 9


def as_items(x):
    """Vectors as items without labels: tuples, as the items of the data are."""
    return [(vector,) for vector in x.tolist()]


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def x():
    return numbers(N, 4)


@pytest.fixture
def y(x):
    return (x[:, 0] > 0).long() + (x[:, 1] > 0.5)


@pytest.fixture
def data(x, y):
    """23 vectors of 4 numbers with 3 classes, of which the last 9 validate, in batches of 4."""
    block = DataBlock((Block, CategoryBlock), splitter=IndexSplitter(range(N - N_VALID, N)))
    items = list(zip(x.tolist(), ["abc"[i] for i in y], strict=True))
    return block.databunch(items, bs=4, num_workers=0, device="cpu", seed=3)


def quiet(learn):
    learn.progress.bar = learn.progress.table = False
    return learn


@pytest.fixture
def learn(data):
    torch.manual_seed(0)
    return quiet(Learner(data, nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))))


def outputs(model, x):
    with torch.no_grad():
        return model.eval()(x)


# ---- get_preds


def test_predictions_are_probabilities_in_the_order_of_the_items_with_an_uneven_last_batch(learn, x, y):
    preds, targs = learn.get_preds()
    assert preds.allclose(outputs(learn.model, x[-N_VALID:]).softmax(1))
    assert targs.equal(y[-N_VALID:])


@dataclass
class Noise(Transform):
    def __call__(self, sample, rand):
        return sample if rand is None else (sample[0] + rand.uniform(4)[0], *sample[1:])


def test_the_training_set_is_predicted_whole_in_order_and_without_augmentation(x, y):
    splitter = IndexSplitter(range(N - N_VALID, N))
    block = DataBlock((Block, CategoryBlock), splitter=splitter, item_tfms=Noise())
    data = block.databunch(list(zip(x.tolist(), y.tolist(), strict=True)), bs=4, num_workers=0, device="cpu")
    assert not data.one_batch()[0].allclose(x[data.train_dl.items])
    learn = quiet(Learner(data, nn.Linear(4, 3)))
    preds, targs = learn.get_preds("train")
    assert preds.allclose(outputs(learn.model, x[:-N_VALID]).softmax(1))
    assert targs.equal(y[:-N_VALID])
    learn.fit(1)  # which shuffles
    assert learn.get_preds(split="train")[1].equal(y[:-N_VALID])


def test_everything_asked_for_comes_in_the_order_inputs_preds_targets_decoded_losses(learn, x, y):
    inputs, preds, targs, decoded, losses = learn.get_preds(with_input=True, with_loss=True, with_decoded=True)
    raw = outputs(learn.model, x[-N_VALID:])
    assert inputs.allclose(x[-N_VALID:]) and preds.allclose(raw.softmax(1)) and targs.equal(y[-N_VALID:])
    assert decoded.equal(raw.argmax(1))
    assert losses.allclose(F.cross_entropy(raw, y[-N_VALID:], reduction="none"))


def test_act_replaces_the_activation_and_gets_what_the_model_returned(learn, x):
    raw = outputs(learn.model, x[-N_VALID:])
    assert learn.get_preds(act=torch.sigmoid)[0].allclose(raw.sigmoid())
    assert learn.get_preds(act=lambda output: output)[0].allclose(raw)


class SeenItems(Callback):
    """The positions of the items, batch by batch."""

    def before_validate(self, learn):
        self.positions = []

    def after_batch(self, learn):
        self.positions += learn.dl.items


def test_a_shuffled_loader_is_put_in_order_unless_told_otherwise(learn, y):
    seen = SeenItems()
    learn.add_cb(seen)
    _, in_order = learn.get_preds(dl=learn.data.train_dl)
    assert seen.positions != sorted(seen.positions) and in_order.equal(y[sorted(seen.positions)])
    _, as_drawn = learn.get_preds(dl=learn.data.train_dl, reorder=False)
    assert as_drawn.equal(y[seen.positions])


def test_targets_are_none_where_there_are_no_labels(learn, x):
    preds, targs = learn.get_preds(dl=learn.data.test_dl(as_items(x)))
    assert targs is None
    assert preds.allclose(outputs(learn.model, x).softmax(1))


def test_items_may_come_one_by_one(learn, x):
    items = as_items(x)[:3]
    probs = [prediction.probs for prediction in learn.batch_predict(item for item in items)]
    torch.testing.assert_close(torch.stack(probs), outputs(learn.model, x[:3]).softmax(1))


def test_no_items_give_no_predictions_and_an_empty_loader_is_explained(learn):
    assert learn.batch_predict([]) == []
    with pytest.raises(ValueError, match="nothing to predict: the loader gave no batch"):
        learn.get_preds(dl=learn.data.test_dl([]))


class TwoInputsTwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.linear(a), self.linear(b).sum(1)


def two_losses(pred, targ, reduction="mean"):
    return F.cross_entropy(pred[0], targ[0], reduction=reduction) + F.mse_loss(pred[1], targ[1], reduction=reduction)


def test_several_inputs_outputs_and_targets_come_as_tuples(x, y):
    samples = [(a, -a, (b, a[2])) for a, b in zip(x, y, strict=True)]
    data = DataBunch(DataLoader(samples, 5), DataLoader(samples, 5), device="cpu")
    learn = quiet(Learner(data, TwoInputsTwoOutputs(), two_losses))
    (a, b), (logits, sums), (classes, values), losses = learn.get_preds(with_input=True, with_loss=True)
    raw = learn.model(x, -x)
    assert a.equal(x) and b.equal(-x) and classes.equal(y) and values.equal(x[:, 2])
    assert logits.allclose(raw[0]) and sums.allclose(raw[1])
    assert losses.allclose(two_losses(raw, (y, x[:, 2]), "none"))


class DictModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, ids, mask):
        return {"logits": self.linear(ids * mask)}


def dict_loss(pred, targ, reduction="mean"):
    return F.cross_entropy(pred["logits"], targ, reduction=reduction)


def test_batches_that_are_dicts_give_inputs_and_outputs_that_are_dicts(x, y):
    samples = [{"ids": a, "mask": torch.ones(4), "labels": b} for a, b in zip(x, y, strict=True)]
    data = DataBunch(DataLoader(samples, 5), DataLoader(samples, 5), device="cpu")
    learn = quiet(Learner(data, DictModel(), dict_loss))
    inputs, preds, targs, losses = learn.get_preds(with_input=True, with_loss=True)
    logits = outputs(learn.model.linear, x)
    assert inputs["ids"].equal(x) and inputs["mask"].equal(torch.ones(N, 4)) and targs.equal(y)
    assert preds["logits"].allclose(logits)
    assert losses.allclose(F.cross_entropy(logits, y, reduction="none"))
    assert learn.get_preds(act=lambda output: output["logits"].argmax(1))[0].equal(logits.argmax(1))


def test_batches_of_different_width_and_texts_come_as_lists_with_a_value_per_item():
    batches = [(torch.ones(2, 3), ["a", "b"], torch.tensor([0, 1])), (torch.ones(1, 5), ["c"], torch.tensor([1]))]

    class First(nn.Module):
        def forward(self, a, texts):
            return a.sum(1, keepdim=True) * torch.tensor([[1.0, 2.0]])

    learn = quiet(Learner(DataBunch(batches, batches, device="cpu"), First(), CrossEntropyLoss()))
    (a, texts), preds, targs = learn.get_preds(with_input=True)
    assert [tuple(row.shape) for row in a] == [(3,), (3,), (5,)]
    assert texts == ["a", "b", "c"]
    assert preds.shape == (3, 2) and targs.tolist() == [0, 1, 1]


def test_an_unknown_split_or_a_missing_validation_set_is_explained(learn, x, y):
    with pytest.raises(ValueError, match=r"split='test': 'train' or 'valid'; for other items pass dl=data\.test_dl"):
        learn.get_preds("test")
    alone = quiet(Learner(DataBunch([(x, y)], device="cpu"), nn.Linear(4, 3), CrossEntropyLoss()))
    with pytest.raises(ValueError, match="no validation set: pass split='train'"):
        alone.get_preds()
    assert alone.get_preds("train")[0].shape == (N, 3)


# ---- losses per item


LOSSES = {
    "ours": CrossEntropyLoss(label_smoothing=0.1),
    "another of ours": FocalLoss(),
    "a module": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])),
    "a function": F.cross_entropy,
    "a partial": partial(F.cross_entropy, label_smoothing=0.2),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_per_item_are_those_of_each_item_alone(data, x, y, loss):
    learn = quiet(Learner(data, nn.Linear(4, 3), loss))
    *_, losses = learn.get_preds(with_loss=True)
    raw = outputs(learn.model, x[-N_VALID:])
    assert losses.shape == (N_VALID,)
    if loss is not LOSSES["a module"]:  # whose mean is divided by the weights
        alone = [loss(raw[i : i + 1], y[-N_VALID:][i : i + 1]) for i in range(N_VALID)]
        assert losses.allclose(torch.stack(alone))
    assert learn.loss_func is loss and loss(raw, y[-N_VALID:]).ndim == 0


def test_losses_of_many_targets_are_averaged_by_item():
    batches = [(numbers(4, 3), numbers(4, 3, seed=1)), (numbers(2, 3), numbers(2, 3, seed=2))]
    learn = quiet(Learner(DataBunch(batches, batches, device="cpu"), nn.Identity(), MSELoss()))
    *_, losses = learn.get_preds(with_loss=True)
    assert losses.allclose(torch.cat([((x - y) ** 2).mean(1) for x, y in batches]))


def test_reduction_is_switched_off_inside_the_context_alone_also_after_an_error(learn):
    with pytest.raises(ZeroDivisionError), learn.loss_not_reduced():
        assert learn.loss_func.reduction == "none"
        raise ZeroDivisionError
    assert learn.loss_func.reduction == "mean"


def test_a_loss_without_reduction_is_explained(data):
    def total(pred, targ):
        reduction = F.cross_entropy(pred, targ)
        return reduction

    learn = quiet(Learner(data, nn.Linear(4, 3), total))
    with pytest.raises(TypeError, match="has no reduction to switch off"):
        learn.get_preds(with_loss=True)

    def deaf(pred, targ, reduction="mean"):
        return F.cross_entropy(pred, targ)

    learn.loss_func = deaf
    with pytest.raises(ValueError, match=r"shape \(\) for 4 items, although its reduction was 'none'"):
        learn.get_preds(with_loss=True)
    assert learn.loss_func is deaf


# ---- predict


def test_predict_says_what_the_item_is_as_what_number_and_how_sure(learn, x):
    label, index, probs = learn.predict(as_items(x)[20])
    expected = outputs(learn.model, x[20:21]).softmax(1)[0]
    assert probs.allclose(expected) and probs.shape == (3,)
    assert index == expected.argmax() and label == "abc"[index]


def test_predict_batch_predict_and_get_preds_agree(learn, x):
    preds, _ = learn.get_preds(dl=learn.data.test_dl(as_items(x)))
    many = learn.batch_predict(as_items(x))
    for i in (0, 7, N - 1):
        one = learn.predict(as_items(x)[i])
        assert one.decoded == many[i].decoded and one.index.equal(many[i].index)
        assert one.probs.allclose(preds[i]) and many[i].probs.allclose(preds[i])


VOCABULARIES = {"ints": [3, 1, 2], "bools": [True, False, True], "numpy": list(np.array(["x", "z", "y"]))}


@pytest.mark.parametrize("labels", VOCABULARIES.values(), ids=VOCABULARIES)
def test_labels_of_any_kind_come_back(x, labels):
    items = [(x[i].tolist(), labels[i % 3]) for i in range(12)]
    block = DataBlock((Block, CategoryBlock), splitter=IndexSplitter([9, 10, 11]))
    data = block.databunch(items, bs=4, num_workers=0, device="cpu")
    label, index, _ = quiet(Learner(data, nn.Linear(4, data.c))).predict(items[0])
    assert label in labels and label == data.vocab[index]


def test_missing_labels_have_a_name_of_their_own(x):
    items = [(x[i].tolist(), [None, "b"][i % 2]) for i in range(8)]
    block = DataBlock((Block, CategoryBlock(add_na=True)), splitter=IndexSplitter([6, 7]), get_x=first, get_y=second)
    model = nn.Linear(4, 2)
    nn.init.constant_(model.weight, 0)
    model.bias.data = torch.tensor([1.0, 0.0])
    learn = quiet(Learner(block.databunch(items, bs=2, num_workers=0, device="cpu"), model))
    assert learn.predict((x[0].tolist(), None)).decoded == "#na#"


def first(item):
    return item[0]


def second(item):
    return item[1] if item[1] is not None else float("nan")


def test_several_labels_are_a_list(x):
    items = [(x[i].tolist(), [["a"], ["a", "b"], []][i % 3]) for i in range(12)]
    block = DataBlock((Block, MultiCategoryBlock), splitter=IndexSplitter([9, 10, 11]))
    learn = quiet(Learner(block.databunch(items, bs=4, num_workers=0, device="cpu"), nn.Linear(4, 2)))
    for i in range(3):
        labels, mask, probs = learn.predict(items[i])
        expected = outputs(learn.model, x[i]).sigmoid()
        assert probs.allclose(expected) and mask.equal(expected > 0.5)
        assert labels == [name for name, p in zip("ab", expected, strict=True) if p > 0.5]


@pytest.mark.parametrize("n_out", [1, 2])
def test_a_regression_predicts_numbers(x, n_out):
    targets = [float(v) for v in x[:, 0]] if n_out == 1 else x[:, :2].tolist()
    block = DataBlock((Block, RegressionBlock), splitter=IndexSplitter([9, 10, 11]))
    items = list(zip(x.tolist(), targets, strict=True))
    learn = quiet(Learner(block.databunch(items, bs=4, num_workers=0, device="cpu"), nn.Linear(4, n_out)))
    value, _, raw = learn.predict(items[0])
    assert raw.allclose(outputs(learn.model, x[0]))
    assert value == pytest.approx(raw.item() if n_out == 1 else raw.tolist())


def test_several_targets_give_lists(x, y):
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.classes, self.number = nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, vector):
            return self.classes(vector), self.number(vector)

    class BothLosses:
        def __call__(self, pred, classes, number):
            return F.cross_entropy(pred[0], classes) + F.mse_loss(pred[1].squeeze(1), number)

        def decodes(self, pred):
            return pred.argmax(-1) if pred.shape[-1] == 3 else pred

    block = DataBlock((Block, CategoryBlock, RegressionBlock), n_inp=1, splitter=IndexSplitter([9, 10, 11]))
    items = list(zip(x.tolist(), ["abc"[i] for i in y], x[:, 0].tolist(), strict=True))
    learn = quiet(Learner(block.databunch(items, bs=4, num_workers=0, device="cpu"), TwoHeads(), BothLosses()))
    label, number = learn.predict(items[0]).decoded
    raw = outputs(learn.model, x[:1])
    assert label == "abc"[raw[0].argmax()] and number == pytest.approx(raw[1].item())
    (classes, values), (class_targs, number_targs) = learn.get_preds()
    assert classes.shape == (3, 3) and values.shape == (3, 1)
    assert class_targs.equal(y[9:12]) and number_targs.allclose(x[9:12, 0])


def test_a_loss_that_says_nothing_about_outputs_still_gives_the_likeliest_label(data, x):
    def my_loss(pred, targ):
        return F.cross_entropy(pred, targ)

    learn = quiet(Learner(data, nn.Linear(4, 3), my_loss))
    label, index, raw = learn.predict(as_items(x)[0])
    expected = outputs(learn.model, x[0])
    assert raw.allclose(expected) and label == "abc"[expected.argmax()] and index == expected.argmax()


def test_predicting_leaves_the_model_in_the_mode_it_was_in(learn, x):
    learn.model.train()
    learn.model[0].eval()
    learn.predict(as_items(x)[0])
    learn.get_preds()
    assert learn.model.training and learn.model[1].training and not learn.model[0].training


class PredictWithin(Callback):
    """Predicts in the middle of training, as a callback that shows progress does."""

    def __init__(self, item):
        self.item = item

    def after_batch(self, learn):
        if learn.training and learn.iter == 1:
            learn.predict(self.item)
            learn.batch_predict([self.item])

    def after_epoch(self, learn):
        learn.get_preds(with_loss=True)


def trained(data, cbs):
    torch.manual_seed(1)
    learn = quiet(
        Learner(data, nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), metrics=[])
    )
    learn.fit_one_cycle(2, 1e-2, cbs=cbs)
    return learn


def test_predicting_in_the_middle_of_a_fit_does_not_change_it(data, x):
    plain, interrupted = trained(data, []), trained(data, [PredictWithin(as_items(x)[0])])
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, interrupted.model.state_dict()[name]), name
    columns = ["epoch", "train_loss", "valid_loss"]
    pd.testing.assert_frame_equal(plain.recorder.history[columns], interrupted.recorder.history[columns])


def test_plain_loaders_do_not_say_what_an_item_is(x, y):
    batches = DataLoader(TensorDataset(x, y), 4)
    learn = quiet(Learner(DataBunch(batches, batches, device="cpu"), nn.Linear(4, 3), CrossEntropyLoss()))
    with pytest.raises(ValueError, match=r"^predict makes .* from a DataBlock.*learn\.get_preds\(dl=\[\(x,\)\]\)"):
        learn.predict(x[0])
    with pytest.raises(ValueError, match=r"^batch_predict makes .* from a DataBlock"):
        learn.batch_predict(x)
    with pytest.raises(ValueError, match="show_results needs a validation set from a DataBlock"):
        learn.show_results()
    assert learn.get_preds(dl=[(x,)])[0].allclose(outputs(learn.model, x).softmax(1))


# ---- pictures


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six red and six blue images of 24 × 20 pixels, with some noise."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for i in range(12):
        pixels = noise.integers(0, 60, (20, 24, 3), dtype=np.uint8)
        pixels[..., 0 if i % 2 else 2] += 180
        file = folder / ("red" if i % 2 else "blue") / f"{i:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


@pytest.fixture
def photo_learner(photos):
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=IndexSplitter([1, 4, 8, 11]),
        item_tfms=Resize(16),
        batch_tfms=Normalize((0.5,) * 3, (0.25,) * 3),
    )
    data = block.databunch(photos, bs=4, num_workers=0, device="cpu")
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return quiet(Learner(data, model))


def test_an_image_is_predicted_from_a_path_text_pil_array_tensor_or_bytes(photo_learner, photos):
    path = get_image_files(photos)[3]
    image = Image.open(path)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    sources = [path, str(path), image, np.asarray(image), v2.functional.pil_to_tensor(image), stream.getvalue()]
    expected = photo_learner.get_preds(dl=photo_learner.data.test_dl([path]))[0][0]
    for source in sources:
        assert photo_learner.predict(source).probs.allclose(expected), type(source)


def test_show_results_draws_a_picture_per_item_with_target_and_prediction_in_green_or_red(photo_learner, photos):
    photo_learner.show_results(max_n=3)
    assert plt.gcf().get_suptitle() == "target / prediction"
    axes = [ax for ax in plt.gcf().axes if ax.images]
    assert len(axes) == 3 and axes[0].images[0].get_array().shape == (16, 16, 3)
    for ax, position in zip(axes, [0, 1, 2], strict=True):
        path = photo_learner.data.valid_ds.items[position]
        predicted = photo_learner.predict(path).decoded
        assert ax.get_title() == f"{path.parent.name}\n{predicted}"
        assert ax.title.get_color() == ("green" if predicted == path.parent.name else "red")
        shown, wanted = ax.images[0].get_array(), photo_learner.data.valid_ds[position][0].permute(1, 2, 0) / 255
        assert np.allclose(shown, wanted, atol=1e-6)  # not normalised


def test_show_results_takes_items_from_all_over_the_validation_set(photo_learner):
    photo_learner.show_results(max_n=2)
    shown = [ax.get_title().split("\n")[0] for ax in plt.gcf().axes if ax.images]
    assert shown == [photo_learner.data.valid_ds.items[i].parent.name for i in (0, 2)]


def test_show_results_prints_a_table_of_what_cannot_be_drawn(learn, capsys):
    learn.show_results(max_n=4)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["input", "target", "prediction"] and len(rows) == 4
    targets = learn.data.valid_ds
    assert [row.split()[-2] for row in rows] == [targets.items[i * N_VALID // 4][1] for i in range(4)]


def test_several_labels_of_a_picture_stand_below_each_other(photos, capsys):
    def name(path):
        return path.stem

    block = DataBlock(
        (ImageBlock, CategoryBlock, CategoryBlock(vocab=[f"{i:02}" for i in range(12)])),
        n_inp=1,
        get_items=get_image_files,
        get_y=[parent_label, name],
        splitter=IndexSplitter([1, 8]),
        item_tfms=Resize(16),
    )
    data = block.databunch(photos, bs=4, num_workers=0, device="cpu")
    data.show_batch(max_n=2)
    for ax in plt.gcf().axes[:2]:
        colour, number = ax.get_title().split("\n")
        assert (photos / colour / f"{number}.png").exists()


# ---- test-time augmentation


@pytest.fixture
def noisy(x, y):
    """A learner whose training adds noise to each item."""
    torch.manual_seed(0)
    block = DataBlock((Block, CategoryBlock), splitter=IndexSplitter(range(N - N_VALID, N)), item_tfms=Noise())
    items = list(zip(x.tolist(), y.tolist(), strict=True))
    return quiet(Learner(block.databunch(items, bs=4, num_workers=0, device="cpu", seed=3), nn.Linear(4, 3)))


def test_tta_blends_the_plain_predictions_with_the_mean_over_augmented_ones(noisy, x, y):
    preds, targs = noisy.tta(n=3, beta=0.25)
    seen = [augmented_items(noisy, epoch) for epoch in range(3)]
    assert not seen[0].equal(seen[1]) and not seen[0].allclose(x[-N_VALID:])
    augmented = torch.stack([outputs(noisy.model, items).softmax(1) for items in seen]).mean(0)
    assert preds.allclose(0.75 * augmented + 0.25 * outputs(noisy.model, x[-N_VALID:]).softmax(1))
    assert targs.equal(y[-N_VALID:])
    assert preds.equal(noisy.tta(n=3, beta=0.25)[0])


def augmented_items(learn, epoch):
    dl = learn.data.augmented_dl()
    dl.set_epoch(epoch)
    return torch.cat([batch[0] for batch in dl])


def test_tta_takes_new_items_and_ignores_augmentation_where_beta_is_one(noisy, x):
    test_dl = noisy.data.test_dl([(values, "") for values in x[:5].tolist()])
    preds, targs = noisy.tta(test_dl, beta=1)
    assert preds.allclose(outputs(noisy.model, x[:5]).softmax(1)) and targs is None


def test_tta_needs_items_that_can_be_augmented_and_sensible_numbers(noisy):
    with pytest.raises(ValueError, match=r"Only items of a DataBlock .*test_dl"):
        noisy.tta(DataLoader(TensorDataset(torch.zeros(4, 4), torch.zeros(4)), 2))
    with pytest.raises(ValueError, match="n is 1 or more"):
        noisy.tta(n=0)


def test_tta_refuses_targets_that_move_with_their_image():
    block = DataBlock((ImageBlock, MaskBlock(["a", "b"])), splitter=EndSplitter(0.5))
    items = [(Image.new("RGB", (8, 8)), torch.zeros(8, 8, dtype=torch.uint8)) for _ in range(8)]
    learn = quiet(Learner(block.databunch(items, bs=4, num_workers=0, device="cpu"), nn.Conv2d(3, 2, 1)))
    with pytest.raises(ValueError, match=r"cropped at random, and MaskBlock's move with their image.*Use get_preds"):
        learn.tta()


def test_show_results_does_not_guess_which_part_of_one_tensor_answers_which_target(photos):
    block = DataBlock((ImageBlock, CategoryBlock, RegressionBlock), get_y=[parent_label, lambda file: 1.0], n_inp=1,
                      item_tfms=Resize(8))  # fmt: skip
    data = block.databunch(get_image_files(photos), bs=2, num_workers=0, device="cpu", seed=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
    learn = quiet(Learner(data, model, lambda pred, kind, number: (pred[:, 2] - number).abs().mean()))
    with pytest.raises(ValueError, match="one tensor for 2 targets"):
        learn.show_results()
