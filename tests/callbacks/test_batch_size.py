"""Batches that grow: their sizes, the order of their items, the schedule of the fit, and the data afterwards."""

import pytest
import torch
from torch.utils.data import TensorDataset
from warmstart.callbacks import BatchSizeSchedule, Callback, LimitBatches, OverfitBatches, StopAfter, combined_cos
from warmstart.data import DataBunch

from .conftest import batches


def from_dsets(num_workers=0, bs=8):
    """40 items for training; a batch's first number says which item it is."""
    ((x, y),) = batches(40)
    x[:, 0] = torch.arange(40)
    dataset = TensorDataset(x, y)
    return DataBunch.from_dsets(dataset, dataset, bs=bs, num_workers=num_workers, device="cpu", seed=3)


class Log(Callback):
    """The items of each training batch, by epoch."""

    def __init__(self):
        self.epochs = []

    def before_train(self, learn):
        self.epochs.append([])

    def before_batch(self, learn):
        if learn.training:
            self.epochs[-1].append(learn.xb[0][:, 0].int().tolist())

    @property
    def sizes(self):
        return [[len(items) for items in epoch] for epoch in self.epochs]

    @property
    def items(self):
        return [sum(epoch, []) for epoch in self.epochs]  # noqa: RUF017


@pytest.fixture
def fitted(make_learn):
    """The log of a fit, of 4 epochs unless told, with these callbacks."""

    def fit(*cbs, n_epoch=4, data=None):
        learn, log = make_learn(), Log()
        learn.data = from_dsets() if data is None else data
        learn.fit_one_cycle(n_epoch, 0.1, cbs=[*cbs, log])
        return learn, log

    return fit


def test_each_epoch_has_the_batch_size_that_was_last_named(fitted):
    _, log = fitted(BatchSizeSchedule({0: 10, 2: 20}))
    assert log.sizes == [[10] * 4] * 2 + [[20] * 2] * 2
    _, log = fitted(BatchSizeSchedule({3: 16, 1: 4}))
    assert log.sizes == [[8] * 5, [4] * 10, [4] * 10, [16] * 2]  # the last 8 items are dropped, as ever


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_items_come_in_the_order_they_would_have_anyway(fitted, num_workers):
    _, plain = fitted()
    learn, log = fitted(BatchSizeSchedule({0: 5, 1: 20, 3: 10}), data=from_dsets(num_workers))
    assert log.items == plain.items and len({str(items) for items in log.items}) == 4
    learn.fit(1, cbs=(after := Log()))
    learn_plain, _ = fitted()
    learn_plain.fit(1, cbs=(after_plain := Log()))
    assert after.epochs == after_plain.epochs


def test_the_schedule_of_the_fit_spends_the_same_share_on_every_epoch(fitted):
    learn, _ = fitted(BatchSizeSchedule({0: 10, 1: 20}), n_epoch=2)
    cycle = combined_cos(0.25, 0.1 / 25, 0.1, 0.1 / 1e5)
    assert learn.recorder.lrs == pytest.approx([cycle(pct) for pct in (0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 6 / 8)])
    assert learn.recorder.sizes == [10] * 4 + [20] * 2


@pytest.mark.parametrize("n_epoch", [1, 4])
def test_the_data_has_its_own_loader_again_after_the_fit(make_learn, n_epoch):
    learn, data, cb = make_learn(), from_dsets(), BatchSizeSchedule({0: 10, 2: 20})
    learn.data, own = data, data.train_dl
    for _ in range(2):
        learn.fit(n_epoch, cbs=cb)
        assert data.train_dl is own and data.bs == 8
    assert [len(x) for x, _ in own] == [8] * 5


@pytest.mark.parametrize("event", ["before_fit", "before_epoch", "after_loss", "after_epoch", "after_fit"])
@pytest.mark.parametrize("order", [-100, 0])
def test_and_after_errors(make_learn, event, order):
    def fail(self, learn):
        raise KeyboardInterrupt

    fails = type("Fails", (Callback,), {event: fail, "order": order})()
    learn, data = make_learn(), from_dsets()
    learn.data, own = data, data.train_dl
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, cbs=[BatchSizeSchedule({0: 10, 1: 20}), fails])
    assert data.train_dl is own


def test_limits_hold_for_batches_of_any_size(fitted):
    learn, log = fitted(BatchSizeSchedule({1: 20}), LimitBatches(1), n_epoch=2)
    assert log.sizes == [[8], [20]] and learn.data.train_dl.limit is None
    _, log = fitted(BatchSizeSchedule({0: 20}), StopAfter(3))
    assert log.sizes == [[20, 20], [20]]
    learn, log = fitted(BatchSizeSchedule({0: 20}), OverfitBatches(1), n_epoch=2)
    assert log.epochs[0] == log.epochs[1] and len(log.epochs[0]) == 1 and learn.data.train_dl.replay is None


def test_the_learning_rate_finder_takes_the_datas_own_batches(make_learn):
    learn, log = make_learn(cbs=BatchSizeSchedule({0: 40})), Log()
    learn.data = from_dsets()
    with learn.added_cbs(log):
        learn.lr_find(num_it=10, show_plot=False)
    assert {len(items) for epoch in log.epochs for items in epoch} == {8}


@pytest.mark.parametrize("sizes", [{}, {0: 0}, {-1: 8}, {0.5: 8}, {0: 8.5}, {"0": 8}])
def test_sizes_are_whole_numbers_by_epoch(sizes):
    with pytest.raises(ValueError, match=r"are no batch sizes by epoch: as in \{0: 16, 2: 64\}"):
        BatchSizeSchedule(sizes)


def test_what_cannot_be_batched_is_found_before_training(learn, fitted):
    with pytest.raises(TypeError, match="Only a DataLoader with a batch_size can have another: list has its own"):
        learn.fit(1, cbs=BatchSizeSchedule({0: 16}))
    with pytest.raises(ValueError, match="bs=41: there are fewer items, and the loader drops an incomplete batch"):
        fitted(BatchSizeSchedule({0: 8, 3: 41}))
