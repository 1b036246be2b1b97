"""Predictions on disk are those that would have been in memory."""

import numpy as np
import pytest
import torch
from torch import nn
from warmstart.data import DataBunch
from warmstart.learner import CrossEntropyLoss, Learner


@pytest.fixture
def learn(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(37, 4), torch.randint(0, 3, (37,))
    dataset = torch.utils.data.TensorDataset(x, y)
    data = DataBunch.from_dsets(dataset, dataset, bs=8, device="cpu", seed=0)
    return Learner(data, nn.Linear(4, 3), CrossEntropyLoss(), path=tmp_path)


@pytest.mark.parametrize("split", ["valid", "train"])
def test_the_file_holds_what_get_preds_returns(learn, tmp_path, split):
    expected, targs = learn.get_preds(split)
    preds, same_targs = learn.get_preds(split, save_preds=tmp_path / "folder" / "preds")
    torch.testing.assert_close(preds, expected)
    torch.testing.assert_close(same_targs, targs)
    np.testing.assert_allclose(np.load(tmp_path / "folder" / "preds.npy"), expected.numpy())
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["preds.npy"]


def test_any_loader_and_activation_will_do(learn, tmp_path):
    batches = [(torch.randn(n, 4), torch.zeros(n, dtype=torch.long)) for n in (3, 5)]
    preds, _ = learn.get_preds(dl=batches, act=lambda raw: raw.argmax(1), save_preds=tmp_path / "classes.npy")
    assert preds.dtype == torch.int64 and preds.shape == (8,)
    torch.testing.assert_close(preds, learn.model(torch.cat([x for x, _ in batches])).argmax(1))


def test_what_is_returned_can_be_changed_without_changing_the_file(learn, tmp_path):
    preds, _ = learn.get_preds(save_preds=tmp_path / "preds.npy")
    before = np.load(tmp_path / "preds.npy")
    preds += 1
    np.testing.assert_array_equal(np.load(tmp_path / "preds.npy"), before)


def test_an_interrupted_pass_leaves_the_old_file_and_nothing_else(learn, tmp_path):
    learn.get_preds(save_preds=tmp_path / "preds.npy")
    before = (tmp_path / "preds.npy").read_bytes()
    learn.model = nn.Sequential(learn.model, nn.Linear(7, 2))
    with pytest.raises(RuntimeError):
        learn.get_preds(save_preds=tmp_path / "preds.npy")
    assert (tmp_path / "preds.npy").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["preds.npy"]


def test_a_loader_without_batches_leaves_no_file(learn, tmp_path):
    with pytest.raises(ValueError, match="nothing to predict"):
        learn.get_preds(dl=[], save_preds=tmp_path / "preds.npy")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused(learn, tmp_path):
    with pytest.raises(ValueError, match="decode them from the file"):
        learn.get_preds(with_decoded=True, save_preds=tmp_path / "preds.npy")

    class Two(nn.Module):
        def forward(self, x):
            return x, x

    learn.model, learn.loss_func = Two(), lambda pred, targ: pred[0].mean()
    with pytest.raises(TypeError, match="one tensor per batch, and the model returned tuple"):
        learn.get_preds(save_preds=tmp_path / "preds.npy")
