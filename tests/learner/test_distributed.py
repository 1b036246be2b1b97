"""Several processes train one model as one process would: the weights, the results, the predictions, the decisions."""

import sys
from contextlib import nullcontext

import matplotlib
import pandas as pd
import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from warmstart.callbacks import (
    EMA,
    SAM,
    SWA,
    BatchSizeSchedule,
    Callback,
    CancelBatch,
    ChannelsLast,
    CSVLogger,
    EarlyStopping,
    GradientAccumulation,
    GradientClip,
    LimitBatches,
    MixUp,
    OverfitBatches,
    ReduceLROnPlateau,
    SaveModel,
    StopAfter,
    TerminateOnNaN,
    Unfreeze,
    ValidateEvery,
)
from warmstart.data import Block, CategoryBlock, DataBlock, DataBunch, IndexSplitter, RandomSplitter
from warmstart.learner import (
    APScore,
    BalancedAccuracy,
    ClassificationInterpretation,
    CohenKappa,
    CrossEntropyLoss,
    F1Score,
    Learner,
    Lookahead,
    MatthewsCorrCoef,
    Perplexity,
    Precision,
    R2Score,
    RankError,
    RocAuc,
    SpearmanCorrCoef,
    accuracy,
    launch,
    rmse,
    set_seed,
)
from warmstart.learner import ranks as ranks_module
from warmstart.learner.ranks import join

matplotlib.use("Agg")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:EMA", "ignore:This CPU has no", "ignore:.*sets the learning rate"),
]
N = 397


def samples(n=N, seed=0):
    """Small images of three classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 4, 4, generator=generator)
    score = x.sum((1, 2, 3)) + torch.randn(n, generator=generator)
    return TensorDataset(x, (score > -2).long() + (score > 2))


def small_net(norm=False):
    layers = [nn.Conv2d(1, 4, 3), *([nn.BatchNorm2d(4)] if norm else []), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers)


def make_learn(bs, n=N, n_valid=61, data=None, model=None, loss_func=None, **kwargs):
    """A learner on its share of the data, where there are several processes."""
    set_seed(0)
    model = small_net() if model is None else model
    if data is None:
        valid = samples(n_valid, seed=1) if n_valid else None
        data = DataBunch.from_dsets(samples(n), valid, bs=bs, val_bs=8, device="cpu", seed=3)
    kwargs = {"lr": 1e-2, "opt_func": torch.optim.SGD, **kwargs}
    learn = Learner(data, model, nn.CrossEntropyLoss() if loss_func is None else loss_func, **kwargs)
    learn.progress.bar = learn.progress.table = False
    return learn.to_distributed(timeout=30)


def outcome(learn):
    """What came of training: to compare with what one process comes to."""
    return {
        "weights": {name: value.detach().clone() for name, value in learn.model.state_dict().items()},
        "losses": learn.recorder.losses,
        "lrs": learn.recorder.lrs,
        "sizes": learn.recorder.sizes,
        "history": learn.recorder.history.drop(columns="time").to_dict("list"),
        "steps": learn.recorder.step_rows,
        "n_steps": learn.n_steps,
    }


def check_same(one, ranks, atol=1e-6):
    """The ranks came to the same, to the bit, and to what one process came to."""
    for found in ranks:
        assert repr(found) == repr(ranks[0])
        for name, value in found["weights"].items():
            torch.testing.assert_close(value, ranks[0]["weights"][name], atol=0, rtol=0)
    for key in one:
        torch.testing.assert_close(_numbers(ranks[0][key]), _numbers(one[key]), atol=atol, rtol=atol, msg=key)


def _numbers(value):
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    return value if isinstance(value, (torch.Tensor, int)) else torch.tensor(pd.DataFrame(value).to_numpy(float))


def alone_and_together(train, bs=8, n=2):
    """`train(bs)` in this process, and in several of a part of the batch each."""
    return train(bs * n), launch(train, [bs], n)


# ---- the same training


@pytest.mark.parametrize("n", [2, 3])
def test_20_steps_lead_to_the_weights_of_one_process(n):
    def train(bs):
        learn = make_learn(bs, opt_func=torch.optim.AdamW, metrics=[accuracy, F1Score()])
        learn.fit_one_cycle(2, cbs=StopAfter(steps=20))
        return outcome(learn)

    one, ranks = alone_and_together(train, 12, n)
    assert one["n_steps"] == 20
    check_same(one, ranks)


def with_batches_of(sizes):
    """Data of batches of these sizes, of one process."""
    return DataBunch([samples(n, seed)[:] for seed, n in enumerate(sizes)], [samples(9, 50)[:]], device="cpu")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(samples(60))


CALLBACKS = {
    "clipping": lambda bs: GradientClip(0.1),
    "accumulation": lambda bs: GradientAccumulation(48),
    "accumulation with something left over": lambda bs: GradientAccumulation(160),
    "accumulation, clipped": lambda bs: [GradientAccumulation(100), GradientClip(0.1)],
    "EMA": lambda bs: EMA(0.9),
    "SWA": lambda bs: SWA(0.3),
    "StopAfter": lambda bs: StopAfter(steps=30),
    "LimitBatches": lambda bs: LimitBatches(5, 3),
    "OverfitBatches": lambda bs: OverfitBatches(3),
    "ValidateEvery": lambda bs: ValidateEvery(10),
    "EMA, validated within an epoch": lambda bs: [EMA(0.9), ValidateEvery(10)],
    "BatchSizeSchedule": lambda bs: BatchSizeSchedule({1: 2 * bs}),
    "TerminateOnNaN": lambda bs: TerminateOnNaN(),
    "ChannelsLast": lambda bs: [ChannelsLast(), GradientAccumulation(160)],
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_do_what_they_do_in_one_process(name):
    def train(bs):
        learn = make_learn(bs, n=120, n_valid=29, metrics=accuracy)
        learn.fit_one_cycle(3, 0.1, cbs=CALLBACKS[name](bs))
        return outcome(learn)

    check_same(*alone_and_together(train))


def test_gradients_that_accumulate_do_not_wait_for_each_other():
    def train(bs):
        learn = make_learn(bs, n=96)
        waits, per_step = [], []

        class Count(Callback):
            def before_backward(self, learn):
                waits.append(learn.cbs[-2].synced if learn.ranks.n > 1 else None)

            def after_step(self, learn):
                per_step.append(len(waits))

        learn.fit(1, cbs=[GradientAccumulation(32), Count()])
        found = next((cb for cb in learn.cbs if type(cb).__name__ == "DistributedTraining"), None)
        return per_step, found is not None

    alone, ranks = alone_and_together(train)
    assert alone == ([2, 4, 6], False)
    assert ranks == [([2, 4, 6], True)] * 2


@pytest.mark.parametrize("n_items", [33, 50, 47])
def test_no_sample_of_an_uneven_last_batch_is_lost_or_doubled(n_items):
    def train(bs):
        dl = DataLoader(samples(n_items), bs, shuffle=True)
        learn = make_learn(bs, data=DataBunch(dl, [samples(9, 5)[:]], device="cpu"), metrics=accuracy)
        seen = []

        class See(Callback):
            def before_batch(self, learn):
                if learn.training and not learn.dl.spare:
                    seen.extend(learn.xb[0].sum((1, 2, 3)).tolist())

        learn.fit(2, cbs=See())
        return seen, learn.recorder.sizes, learn.recorder.losses

    ranks = launch(train, [8])
    expected = sorted(samples(n_items)[:][0].sum((1, 2, 3)).tolist())
    assert sorted(x for seen, _, _ in ranks for x in seen) == sorted(expected * 2)
    assert ranks[0][1:] == ranks[1][1:] and sum(ranks[0][1]) == 2 * n_items


def test_uneven_last_batches_count_by_their_samples():
    def train(bs):
        block = DataBlock((Block, CategoryBlock(vocab=[0, 1])), splitter=IndexSplitter(range(33, 40)),
                          get_x=lambda i: [i / 40, 1.0], get_y=lambda i: int(i > 17))  # fmt: skip
        data = block.databunch(list(range(40)), bs=bs, val_bs=3, drop_last=False, device="cpu", seed=0)
        learn = make_learn(bs, data=data, model=nn.Linear(2, 2), metrics=accuracy)
        learn.fit(2, 0.5, cbs=GradientAccumulation(20))
        learn.fit(2, 0.5)
        return outcome(learn)

    for n in (2, 3):  # of three, two have no item of the last batch
        check_same(*alone_and_together(train, 4, n))


def test_loaders_of_ones_own_are_shared():
    def train(kind):
        dls = {"batches": with_batches_of([6, 6, 5]).train_dl, "stream": DataLoader(Stream(), 5)}
        data = DataBunch(dls[kind], with_batches_of([9]).train_dl, device="cpu")
        learn = make_learn(1, data=data)
        learn.fit(1)
        return learn.recorder.sizes, outcome(learn)

    assert [sizes for sizes, _ in launch(train, ["batches"])] == [[12, 5]] * 2
    ranks = launch(train, ["stream"])
    assert ranks[0][0] == [10] * 6
    assert torch.equal(ranks[0][1]["weights"]["0.weight"], ranks[1][1]["weights"]["0.weight"])


def test_dict_batches_and_several_targets():
    def train(bs, kind):
        x, y = samples(80)[:]
        if kind == "dict":
            items, model, loss = [{"input": a, "labels": b} for a, b in zip(x, y, strict=True)], Named(), None
        else:
            items, model, loss = [(a, b, a.mean()) for a, b in zip(x, y, strict=True)], TwoHeads(), two_losses
        data = DataBunch.from_dsets(items, items[:21], bs=bs, val_bs=4, device="cpu", seed=0)
        if kind == "several":
            data = DataBunch(*(WithTwoTargets(dl) for dl in data.dls), device="cpu")
        learn = make_learn(bs, data=data, model=model, loss_func=loss)
        learn.fit(2)
        return outcome(learn)

    for kind in ("dict",):
        check_same(train(16, kind), launch(train, [8, kind]))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net()

    def forward(self, input):
        return self.net(input)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = small_net(), nn.Sequential(nn.Flatten(), nn.Linear(16, 1))

    def forward(self, x):
        return self.first(x), self.second(x)


def two_losses(pred, label, mean):
    return F.cross_entropy(pred[0], label) + F.mse_loss(pred[1][:, 0], mean)
