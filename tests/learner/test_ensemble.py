"""Ensembles: the mean of what their learners say by themselves, of texts, vectors and pictures."""

import random

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from warmstart.data import (
    Block,
    CategoryBlock,
    DataBlock,
    DataBunch,
    EndSplitter,
    IndexSplitter,
    MultiCategoryBlock,
    RandomSplitter,
    RegressionBlock,
)
from warmstart.learner import BCEWithLogitsLoss, Ensemble, Learner, MSELoss, accuracy, set_seed
from warmstart.text import AWD_LSTM, TextDataBunch, text_classifier_learner

torch.set_num_threads(1)


class VectorBlock(Block):
    """A tuple of numbers."""

    def encode(self, value):
        return torch.tensor(value)


class PlacedBlock(RegressionBlock):
    """A number that lies somewhere in an image."""

    is_spatial = True


def items(n=20, n_labels=2):
    """Vectors, each with a number that says what it is."""
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=numbers)
    return [(tuple(row.tolist()), "abc"[i % n_labels], ["ab"[i % 2]], float(row[0])) for i, row in enumerate(x)]


def learner(seed=0, block=None, get_y=1, splitter=None, n_out=2, source=None, **options):
    block = DataBlock((VectorBlock, block or CategoryBlock()), get_x=first, get_y=lambda item: item[get_y],
                      splitter=splitter or EndSplitter(0.4))  # fmt: skip
    data = block.databunch(source or items(), bs=4, num_workers=0, device="cpu", seed=0)
    torch.manual_seed(seed)
    learn = Learner(data, nn.Linear(3, n_out), **options)
    learn.progress.bar = learn.progress.table = False
    return learn


def first(item):
    return item[0]


def test_probabilities_are_averaged_in_the_order_of_the_items():
    learners = [learner(seed) for seed in range(3)]
    ensemble = Ensemble(learners)
    for split in ("valid", "train"):
        preds, targs = ensemble.get_preds(split)
        found = [learn.get_preds(split) for learn in learners]
        torch.testing.assert_close(preds, sum(p for p, _ in found) / 3)
        assert targs.equal(found[0][1]) and preds.sum(1).allclose(torch.ones(len(preds)))
    assert repr(ensemble) == "Ensemble(Linear, Linear, Linear)"


def test_new_items_are_predicted_by_all():
    learners = [learner(seed) for seed in range(2)]
    ensemble, new = Ensemble(learners), items(7)
    preds, targs = ensemble.get_preds(items=new)
    torch.testing.assert_close(preds, sum(learn.get_preds(dl=learn.data.test_dl(new))[0] for learn in learners) / 2)
    assert targs is None
    assert ensemble.get_preds(items=new, with_labels=True)[1].tolist() == [0, 1, 0, 1, 0, 1, 0]
    for one, many, probs in zip(map(ensemble.predict, new), ensemble.batch_predict(new), preds, strict=True):
        assert one.decoded == many.decoded == "ab"[probs.argmax()] and one.index == many.index == probs.argmax()
        torch.testing.assert_close(one.probs, probs)
        torch.testing.assert_close(many.probs, probs)
    assert ensemble.batch_predict([]) == []


@pytest.mark.parametrize("thresh", [0.5, 0.2])
def test_of_several_labels_those_above_the_threshold_are_said(thresh):
    learners = [learner(seed, MultiCategoryBlock(), 2, loss_func=BCEWithLogitsLoss(thresh)) for seed in range(2)]
    for item in items(6):
        probs = sum(learn.predict(item).probs for learn in learners) / 2
        found = Ensemble(learners).predict(item)
        torch.testing.assert_close(found.probs, probs)
        assert found.decoded == [label for label, p in zip("ab", probs, strict=True) if p > thresh]


def test_numbers_are_averaged_as_they_are():
    learners = [learner(seed, RegressionBlock(), 3, n_out=1, loss_func=MSELoss()) for seed in range(2)]
    found = Ensemble(learners).predict(items()[0])
    expected = sum(learn.predict(items()[0]).probs for learn in learners) / 2
    torch.testing.assert_close(found.probs, expected)
    assert float(found.decoded) == pytest.approx(expected.item())


def test_a_certain_answer_stays_certain():
    learners = [learner(seed) for seed in range(2)]
    for learn in learners:
        nn.init.zeros_(learn.model.weight)
        learn.model.bias.data = torch.tensor([200.0, -200.0])
    decoded, index, probs = Ensemble(learners).predict(items()[0])
    assert (decoded, int(index), probs.tolist()) == ("a", 0, [1.0, 0.0])


def test_plain_loaders_can_be_averaged():
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    learners = [Learner(DataBunch.from_dsets(TensorDataset(x, y), TensorDataset(x, y), bs=4, device="cpu"),
                        nn.Linear(3, 2), nn.CrossEntropyLoss()) for _ in range(2)]  # fmt: skip
    preds, targs = Ensemble(learners).get_preds()
    torch.testing.assert_close(preds, sum(learn.model(x).softmax(1) for learn in learners).detach() / 2)
    assert targs.equal(y)


def test_without_a_validation_set_another_is_asked_for():
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    learn = Learner(
        DataBunch.from_dsets(TensorDataset(x, y), bs=4, device="cpu"), nn.Linear(3, 2), nn.CrossEntropyLoss()
    )
    with pytest.raises(ValueError, match="There is no validation set"):
        Ensemble([learn, learn]).get_preds()


def test_what_does_not_agree_is_refused():
    with pytest.raises(ValueError, match="two learners or more, got 1"):
        Ensemble([learner()])
    with pytest.raises(ValueError, match=r"Learner 1 has the labels \['b', 'a'\], learner 0 \['a', 'b'\]: the mean"):
        Ensemble([learner(), learner(block=CategoryBlock(["b", "a"], sort=False))])
    with pytest.raises(ValueError, match=r"Learner 1 has the labels .*'c'"):
        Ensemble([learner(), learner(source=items(n_labels=3), n_out=3)])
    with pytest.raises(ValueError, match=r"The learners' outputs differ in shape, \[\(8, 2\), \(8, 3\)\]"):
        Ensemble([learner(), learner(n_out=3)]).get_preds()


def test_another_split_or_order_is_refused_and_items_are_the_way_out():
    swapped = items()
    swapped[-2:] = swapped[-1], swapped[-2]
    for other in (learner(splitter=RandomSplitter(0.4, seed=1)), learner(splitter=IndexSplitter([1, 2])),
                  learner(source=swapped)):  # fmt: skip
        ensemble = Ensemble([learner(), other])
        with pytest.raises(
            ValueError, match=r"Learner 1 has other (items in its valid set|targets) than learner 0: spl"
        ):
            ensemble.get_preds()
        assert len(ensemble.get_preds(items=items(5))[0]) == 5


def test_files_of_other_names_are_other_items():
    def named(names):
        block = DataBlock((VectorBlock, CategoryBlock), get_x=lambda name: (1.0, 2.0, 3.0), get_y=lambda name: name[0],
                          splitter=EndSplitter(0.5))  # fmt: skip
        return Learner(block.databunch(names, bs=2, num_workers=0, device="cpu"), nn.Linear(3, 2))

    one, other = named(["a1", "b1", "a2", "b2"]), named(["a1", "b1", "a3", "b3"])
    assert len(Ensemble([one, one]).get_preds()[0]) == 2
    with pytest.raises(ValueError, match="Learner 1 has other items in its valid set"):
        Ensemble([one, other]).get_preds()


def test_places_in_an_image_have_no_mean():
    learners = [learner(seed, PlacedBlock(), 3, n_out=1, loss_func=MSELoss()) for seed in range(2)]
    with pytest.raises(ValueError, match="PlacedBlock's have places in an image"):
        Ensemble(learners).batch_predict(items(2))


def test_a_forward_and_a_backward_reader_are_averaged():
    draw = random.Random(0)
    filler = ["the film", "was", "long", "and had", "a plot", "with", "some", "people"]
    rows = [(" ".join([*draw.choices(filler, k=draw.randint(1, 9)), "not good" if i % 2 else "good"]), "bf"[i % 2 == 0])
            for i in range(160)]  # fmt: skip
    df = pd.DataFrame(rows, columns=["text", "label"]).assign(is_valid=[i >= 120 for i in range(160)])
    learners = []
    for backwards in (False, True):
        set_seed(0)
        data = TextDataBunch.from_df(df, valid_col="is_valid", seed=0, bs=16, backwards=backwards, num_workers=0,
                                     device="cpu")  # fmt: skip
        config = {"emb_sz": 16, "n_hid": 24, "n_layers": 2}
        learn = text_classifier_learner(data, AWD_LSTM, config, drop_mult=0.2, pretrained=False, metrics=accuracy)
        learn.progress.bar = learn.progress.table = False
        learn.fit_one_cycle(5, 2e-2)
        learners.append(learn)
    forwards, backwards = learners
    ensemble = Ensemble(learners)
    preds, targs = ensemble.get_preds()
    torch.testing.assert_close(preds, (forwards.get_preds()[0] + backwards.get_preds()[0]) / 2)
    assert targs.tolist() == [int(label == "f") for label in df.label[120:]]
    assert accuracy(preds, targs) > 0.9
    text = "the film was long and not good"
    assert ensemble.predict(text).decoded == ensemble.batch_predict([text])[0].decoded == "b"
    torch.testing.assert_close(
        ensemble.predict(text).probs, (forwards.predict(text).probs + backwards.predict(text).probs) / 2
    )
