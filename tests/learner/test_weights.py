"""Saving and loading weights: training goes on as if there had been no break, and what does not fit is named."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from warmstart.data import DataBunch
from warmstart.learner import SGD, CrossEntropyLoss, Learner, set_seed
from warmstart.learner.files import FileError

torch.set_num_threads(1)


def make_data():
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=numbers)
    samples = TensorDataset(x, (x[:, 0] > 0).long())
    return DataBunch.from_dsets(samples, samples, bs=16, device="cpu", seed=7)


def make_model(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 2))


def make_learner(path, model=None, **options):
    learn = Learner(make_data(), model or make_model(), CrossEntropyLoss(), path=path, **options)
    learn.progress.bar = learn.progress.table = False
    return learn


def state(learn):
    return {name: value.clone() for name, value in learn.model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_goes_on_bit_identically_after_save_and_load(tmp_path):
    whole = make_learner(tmp_path)
    whole.fit(2)
    whole.save("halfway")
    set_seed(1)
    whole.fit(2)

    resumed = make_learner(tmp_path).load("halfway")
    set_seed(1)
    resumed.fit(2)
    assert same(state(resumed), state(whole))


def test_without_the_optimizer_only_the_weights_are_loaded(tmp_path):
    learn = make_learner(tmp_path)
    learn.fit(1)
    learn.save("model", with_opt=False)
    again = make_learner(tmp_path)
    again.load("model", with_opt=False)
    assert same(state(again), state(learn)) and again.opt is None

    optimizer = learn.opt
    learn.load("model", with_opt=False)
    assert learn.opt is optimizer


def test_a_file_without_optimizer_state_starts_the_optimizer_afresh_with_a_warning(tmp_path):
    learn = make_learner(tmp_path)
    learn.save("untrained")
    learn.fit(1)
    with pytest.warns(UserWarning, match=r"untrained\.pth has no optimizer state: the optimizer starts afresh"):
        learn.load("untrained")
    assert learn.opt is None
    learn.fit(1)


def test_save_says_where_the_file_is(tmp_path):
    learn = make_learner(str(tmp_path), model_dir="weights")
    assert learn.save("v1.2") == tmp_path / "weights" / "v1.2.pth"
    assert learn.save(tmp_path / "elsewhere" / "model.pth") == tmp_path / "elsewhere" / "model.pth"
    assert (tmp_path / "elsewhere" / "model.pth").exists()
    assert learn.save("model.pt") == tmp_path / "weights" / "model.pt"


def test_a_plain_state_dict_is_read(tmp_path):
    model = make_model()
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    learn = make_learner(tmp_path, model_dir=".")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn.load("plain")
    assert same(state(learn), model.state_dict())


def test_weights_of_another_architecture_are_reported_by_name_and_change_nothing(tmp_path):
    make_learner(tmp_path).save("narrow")
    wide = make_learner(tmp_path, make_model(width=16))
    before = state(wide)
    with pytest.raises(ValueError, match=r"of another architecture.*shape \(0\.weight: \(8, 4\) there, \(16, 4\) here"):
        wide.load("narrow")
    assert same(state(wide), before)

    deeper = make_learner(tmp_path, nn.Sequential(*make_model(), nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"2 are missing \(5\.weight, 5\.bias\)"):
        deeper.load("narrow")
    shallower = make_learner(tmp_path, make_model()[:4])
    with pytest.raises(ValueError, match=r"2 are unknown here \(4\.weight, 4\.bias\)"):
        shallower.load("narrow")


def test_the_state_of_another_optimizer_is_reported_and_changes_nothing(tmp_path):
    adam = make_learner(tmp_path)
    adam.fit(1)
    adam.save("adam")

    sgd = make_learner(tmp_path, opt_func=SGD)
    before = state(sgd)
    with pytest.raises(
        ValueError, match=r"holds the state of AdamW over groups of \[6\].*SGD over \[6\].*with_opt=False"
    ):
        sgd.load("adam")
    assert same(state(sgd), before)

    grouped = make_learner(
        tmp_path, splitter=lambda model: [list(model[:3].parameters()), list(model[3:].parameters())]
    )
    with pytest.raises(ValueError, match=r"AdamW over \[4, 2\]"):
        grouped.load("adam")
    grouped.load("adam", with_opt=False)
    assert same(state(grouped), state(adam))


def test_a_file_that_holds_no_weights_is_reported(tmp_path):
    learn = make_learner(tmp_path, model_dir=".")
    torch.save({"epoch": 3, "state_dict": learn.model.state_dict()}, tmp_path / "lightning.pth")
    with pytest.raises(FileError, match=r"it holds \['epoch', 'state_dict'\].*save that part alone"):
        learn.load("lightning")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(FileError, match="it holds a Tensor"):
        learn.load("tensor")
    learn.export("model.pth")
    with pytest.raises(FileError, match=r"it is an exported learner, which load_learner\(\) reads"):
        learn.load("model")


def test_a_file_that_ends_in_pt_is_read_as_it_is(tmp_path):
    model = make_model()
    torch.save(model.state_dict(), tmp_path / "sd.pt")
    learn = make_learner(tmp_path).load(tmp_path / "sd.pt")
    assert same(learn.model.state_dict(), model.state_dict())


def test_a_missing_file_is_reported_with_those_that_exist(tmp_path):
    learn = make_learner(tmp_path)
    learn.save("best")
    with pytest.raises(FileNotFoundError, match=r"bets\.pth does not exist; its folder has \['best\.pth'\]"):
        learn.load("bets")
    with pytest.raises(FileNotFoundError, match=r"bets\.pt does not exist\."):
        learn.load(tmp_path / "bets.pt")


def test_a_crash_while_saving_keeps_the_last_weights(tmp_path, monkeypatch):
    learn = make_learner(tmp_path)
    learn.save("model")
    before = state(learn)
    learn.fit(1)
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", lambda content, file: (file.write(b"PK"), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            learn.save("model")
    learn.load("model", with_opt=False)
    assert same(state(learn), before)


def test_kept_state_puts_model_and_optimizer_back(tmp_path):
    learn = make_learner(tmp_path)
    learn.fit(1)
    before, momenta = state(learn), learn.opt.state_dict()["state"][0]["exp_avg"].clone()
    with learn.kept_state():
        learn.fit(1)
        assert not same(state(learn), before)
    assert same(state(learn), before)
    assert learn.opt.state_dict()["state"][0]["exp_avg"].equal(momenta)


def test_kept_state_puts_back_that_there_was_no_optimizer_also_after_an_error(tmp_path):
    learn = make_learner(tmp_path)
    with pytest.raises(ZeroDivisionError), learn.kept_state():
        learn.fit(1)
        raise ZeroDivisionError
    assert learn.opt is None
