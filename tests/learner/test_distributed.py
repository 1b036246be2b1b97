"""Several processes train one model as one process would: the weights, the results, the predictions, the decisions."""

import functools
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
import weakref
from contextlib import nullcontext

import matplotlib
import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp
import torchmetrics
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset
from warmstart.callbacks import (
    EMA,
    SAM,
    SWA,
    ActivationStats,
    BatchSizeSchedule,
    BnFreeze,
    Callback,
    CancelBatch,
    ChannelsLast,
    CSVLogger,
    DetectAnomaly,
    EarlyStopping,
    FetchPreds,
    GradientAccumulation,
    GradientCheckpointing,
    GradientClip,
    GradientStats,
    LimitBatches,
    MemoryUse,
    MixedPrecision,
    MixUp,
    OverfitBatches,
    Profiler,
    ReduceLROnPlateau,
    SaveModel,
    ShowGraph,
    StopAfter,
    TerminateOnNaN,
    TorchScheduler,
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


def make_learn(bs, n=N, n_valid=61, data=None, model=None, loss_func=None, cls=Learner, **kwargs):
    """A learner on its share of the data, where there are several processes."""
    set_seed(0)
    model = (model or small_net)()  # made after the seed is set
    if data is None:
        valid = samples(n_valid, seed=1) if n_valid else None
        data = DataBunch.from_dsets(samples(n), valid, bs=bs, val_bs=8, device="cpu", seed=3)
    kwargs = {"lr": 1e-2, "opt_func": torch.optim.SGD, **kwargs}
    learn = cls(data, model, nn.CrossEntropyLoss() if loss_func is None else loss_func, **kwargs)
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
    return torch.tensor(pd.DataFrame(value).to_numpy(float)) if isinstance(value, list) else torch.as_tensor(value)


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
        distributed = [cb for cb in learn.cbs if hasattr(cb, "synced")]
        synced = []

        class See(Callback):
            def before_backward(self, learn):
                synced.extend(cb.synced for cb in distributed)

        learn.fit(1, cbs=[GradientAccumulation(32), See()])
        return learn.n_steps, synced

    alone, ranks = alone_and_together(train)
    assert alone == (3, [])
    assert ranks == [(3, [False, True] * 3)] * 2


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
        learn = make_learn(bs, data=data, model=lambda: nn.Linear(2, 2), metrics=accuracy)
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


def test_beside_a_loader_that_parts_its_items_itself_the_others_are_parted_once():
    def train(bs):
        train_dl, valid_dl = DataLoader(samples(64), bs), DataLoader(samples(61, seed=1), 8)
        if torch.distributed.is_initialized():
            train_dl = DataLoader(samples(64), bs, sampler=DistributedSampler(samples(64), shuffle=False))
        learn = make_learn(bs, data=DataBunch(train_dl, valid_dl, device="cpu"), metrics=accuracy)
        learn.fit(1)
        preds, targs = learn.get_preds()
        assert torch.equal(targs, samples(61, seed=1)[:][1])
        return outcome(learn) | {"preds": preds, "results": learn.validate()}

    check_same(*alone_and_together(train, 32))


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


def test_dict_batches():
    def train(bs):
        items = [{"input": x, "labels": y} for x, y in zip(*samples(80)[:], strict=True)]
        data = DataBunch.from_dsets(items, items[:21], bs=bs, val_bs=4, device="cpu", seed=0)
        learn = make_learn(bs, data=data, model=Named)
        learn.fit(2)
        return outcome(learn) | {"preds": learn.get_preds()[0]}

    check_same(*alone_and_together(train))


def test_several_targets():
    def train(bs):
        x, y = samples(60)[:]
        block = DataBlock(
            (Block, CategoryBlock(vocab=[0, 1, 2]), Block), n_inp=1, splitter=IndexSplitter(range(43, 60)),
            get_x=lambda i: x[i], get_y=[lambda i: int(y[i]), lambda i: x[i].mean()],
        )  # fmt: skip
        data = block.databunch(list(range(60)), bs=bs, val_bs=4, device="cpu", seed=0)
        learn = make_learn(bs, data=data, model=TwoHeads, loss_func=two_losses)
        learn.fit(2)
        (labels, means), (label_targs, mean_targs) = learn.get_preds()
        return outcome(learn) | {"preds": labels, "means": means, "targs": label_targs, "mean targs": mean_targs}

    check_same(*alone_and_together(train))


# ---- precision, blending, other ways to step


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision(dtype):
    def train(bs):
        learn = make_learn(bs, n=96)
        learn = learn.to_bf16() if dtype == "bf16" else learn.to_fp16()
        learn.fit(2, 0.1)
        return outcome(learn)

    check_same(*alone_and_together(train), atol=5e-3)


def test_a_step_that_overflows_on_one_rank_is_left_out_on_all():
    class Overflow(Callback):
        order = -42  # before the scaler multiplies

        def before_backward(self, learn):
            if learn.iter == 1 and learn.ranks.rank == learn.ranks.n - 1:
                learn.loss = learn.loss * float("inf")

    def train(bs):
        learn = make_learn(bs, n=96).to_fp16()
        learn.fit(1, cbs=Overflow())
        return learn.n_steps, learn.cbs[-1].scale, [p.isfinite().all().item() for p in learn.model.parameters()]

    alone, ranks = alone_and_together(train)
    assert ranks == [alone, alone] and alone[0] == 5 and all(alone[2])


def test_each_rank_blends_its_own_samples_by_the_same_share():
    class See(Callback):
        order = 11

        def before_batch(self, learn):
            if learn.training:
                self.shares.append(learn.loss_func.own)
                self.inputs.append(learn.xb[0].mean())

    def train(bs):
        see = See()
        see.shares, see.inputs = [], []
        learn = make_learn(bs, n=64)
        learn.fit(2, cbs=[MixUp(), see])
        return see.shares, torch.stack(see.inputs), outcome(learn)

    alone, (first, second) = alone_and_together(train)
    assert first[0] == second[0] == alone[0] and len(set(first[0])) == 8
    torch.testing.assert_close((first[1] + second[1]) / 2, alone[1])  # a batch blended with itself has its mean
    assert repr(first[2]) == repr(second[2])
    assert first[2]["losses"] == pytest.approx(alone[2]["losses"], rel=0.2)


@pytest.mark.parametrize("kind", ["SAM", "Lookahead", "unfreezing", "fine-tuning", "no validation set", "subclass"])
def test_other_ways_to_train(kind):
    def train(bs):
        kwargs = {
            "Lookahead": {"opt_func": lambda params, lr: Lookahead(torch.optim.SGD(params, lr), k=3)},
            "unfreezing": {"splitter": two_groups},
            "fine-tuning": {"splitter": two_groups},
            "no validation set": {"n_valid": 0},
        }
        cls = Halved if kind == "subclass" else Learner
        learn = make_learn(bs, **{"n": 96, **kwargs.get(kind, {})}, cls=cls)
        if kind == "fine-tuning":
            learn.fine_tune(2)
        else:
            if kind == "unfreezing":
                learn.freeze()
            learn.fit_one_cycle(3, 0.1, cbs={"SAM": SAM(0.0), "unfreezing": Unfreeze(1)}.get(kind))
        return outcome(learn)

    check_same(*alone_and_together(train))


def two_groups(model):
    return [list(model[:2].parameters()), list(model[2:].parameters())]


class Halved(Learner):
    def forward(self):
        return super().forward() / 2

    def compute_loss(self):
        return super().compute_loss() + self.model[0].weight.square().mean()


def test_sam_climbs_on_each_rank_by_itself():
    def train(bs):
        learn = make_learn(bs, n=96)
        learn.fit(2, cbs=SAM(0.05))
        return outcome(learn)

    alone, ranks = alone_and_together(train)
    assert repr(ranks[0]) == repr(ranks[1])
    assert ranks[0]["losses"] == pytest.approx(alone["losses"], rel=0.01)
    assert ranks[0]["losses"] != pytest.approx(alone["losses"], rel=1e-6)


def test_batchnorm_has_the_statistics_of_rank_0_on_all_ranks():
    def train(bs):
        learn = make_learn(bs, n=96, model=lambda: small_net(norm=True), metrics=accuracy)
        learn.fit(1, cbs=[ValidateEvery(2), EMA(0.5)])
        learn.fit(1, cbs=SWA(0.0))
        return outcome(learn)

    first, second = launch(train, [8])
    check_same(first, [first, second])
    assert second["weights"]["1.running_var"].std() > 0


def test_swa_renews_batchnorm_over_all_of_the_data():
    def train(bs):
        learn = make_learn(bs, n=96, model=lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3)))
        learn.fit(1, 0.0, cbs=SWA(0.0))
        return outcome(learn)

    ranks = launch(train, [8])
    mean = samples(96)[:][0].flatten(1).mean(0)
    torch.testing.assert_close(ranks[0]["weights"]["1.running_mean"], mean)
    torch.testing.assert_close(ranks[1]["weights"]["1.running_mean"], mean)


def test_synced_batchnorm_needs_an_accelerator():
    def train():
        try:
            make = make_learn(8).to_distributed
        except ValueError as error:
            return str(error)
        return make

    def on_cpu():
        set_seed(0)
        data = DataBunch.from_dsets(samples(40), bs=8, device="cpu", seed=0)
        learn = Learner(data, small_net(norm=True), nn.CrossEntropyLoss())
        try:
            learn.to_distributed(sync_bn=True)
        except ValueError as error:
            return str(error), learn.ranks.n, learn.data.train_dl.shard.n

    message = "sync_bn=True: torch's SyncBatchNorm works on accelerators only, and this is the CPU."
    assert launch(on_cpu) == [(message, 1, 1)] * 2
    data = DataBunch.from_dsets(samples(40), bs=8, device="cpu", seed=0)
    Learner(data, small_net(norm=True), nn.CrossEntropyLoss()).to_distributed(sync_bn=True)  # one process needs none


def test_parameters_that_a_step_does_not_use():
    class OneOfTwo(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([small_net(), small_net(), small_net()])

        def forward(self, x):
            return self.heads[join().rank](x)  # and nobody uses the last

    def train(accumulate):
        set_seed(0)
        data = DataBunch.from_dsets(samples(40), bs=4, device="cpu", seed=3)
        learn = Learner(data, OneOfTwo(), nn.CrossEntropyLoss(), opt_func=torch.optim.SGD)
        learn.progress.bar = learn.progress.table = False
        before = [p.clone() for p in learn.model.parameters()]
        learn.to_distributed(timeout=20, find_unused_parameters=True)
        learn.fit(1, 0.1, cbs=GradientAccumulation(100) if accumulate else None)
        moved = [not torch.equal(p, old) for p, old in zip(learn.model.parameters(), before, strict=True)]
        return moved, [p.detach() for p in learn.model.parameters()]

    for accumulate in (False, True):
        (moved, weights), (moved_too, weights_too) = launch(train, [accumulate])
        assert moved == moved_too == [True] * 8 + [False] * 4
        assert all(map(torch.equal, weights, weights_too))


def test_a_batch_may_be_left_out_by_all():
    class Skip(Callback):
        def after_loss(self, learn):
            if learn.training and learn.iter == 1:
                raise CancelBatch

    def train(bs):
        learn = make_learn(bs, n=64)
        learn.fit(2, cbs=Skip())
        return outcome(learn)

    check_same(*alone_and_together(train))


def test_fits_may_follow_each_other():
    def train(bs):
        learn = make_learn(bs, n=64, splitter=two_groups)
        learn.lr_find(num_it=10, show_plot=False)  # whose last step is left out
        learn.fit(1)
        learn.freeze()
        learn.fit(1)
        learn.unfreeze()
        learn.fit(1)
        return outcome(learn)

    check_same(*alone_and_together(train))


class MaskOfDropout(nn.Module):
    """Says what dropout has left of a row of ones."""

    def __init__(self):
        super().__init__()
        self.weight, self.masks = nn.Parameter(torch.ones(1)), []

    def forward(self, x):
        self.masks.append(F.dropout(torch.ones(64), 0.5, self.training).tolist())
        return x.flatten(1)[:, :3] * self.weight


def test_dropout_leaves_out_something_else_on_each_rank_and_afterwards_all_draw_the_same():
    def train(bs):
        learn = make_learn(bs, n=16, n_valid=0, model=MaskOfDropout)
        learn.fit(1)
        return learn.model.masks, torch.rand(1).item()

    (first, then), (second, then_too) = launch(train, [8])
    assert first != second and then == then_too


# ---- deciding


def test_the_learning_rate_finder_suggests_the_same():
    def find(bs):
        learn = make_learn(bs)
        found = learn.lr_find(num_it=60, show_plot=False)
        return found.valley, learn.recorder.lr_finder.losses, outcome(learn)["weights"]

    alone, (first, second) = alone_and_together(find)
    assert first[:2] == second[:2] and first[0] == alone[0]
    assert first[1] == pytest.approx(alone[1], rel=1e-5)
    assert all(torch.equal(first[2][name], alone[2][name]) for name in alone[2])  # nothing is changed


def test_early_stopping_saving_and_plateaus_are_decided_by_all(tmp_path):
    def train(bs, folder):
        learn = make_learn(bs, n=64, n_valid=29, metrics=accuracy, path=folder)
        learn.fit(30, 0.5, cbs=[EarlyStopping(patience=3), SaveModel("accuracy"), ReduceLROnPlateau(patience=2)])
        return outcome(learn)

    one, ranks = train(16, tmp_path / "one"), launch(train, [8, tmp_path / "two"])
    check_same(one, ranks)
    assert len(one["history"]["epoch"]) < 30 and one["lrs"][0] != one["lrs"][-1]
    saved = [torch.load(tmp_path / name / "models" / "model.pth")["model"]["0.weight"] for name in ("one", "two")]
    torch.testing.assert_close(*saved)


def test_a_time_is_over_for_all_at_once():
    class Slow(Callback):
        def before_batch(self, learn):
            if learn.ranks.rank == 1 and learn.iter == 4:
                time.sleep(0.6)

    def train(bs):
        learn = make_learn(bs)
        learn.fit(3, cbs=[StopAfter(seconds=0.5), Slow()])
        return learn.n_steps

    assert launch(train, [4]) == [5, 5]


# ---- results and predictions

METRICS = {
    "functions": lambda: [accuracy, rmse_of_first],
    "ours": lambda: [F1Score(average="macro"), Precision(average="micro"), BalancedAccuracy(), MatthewsCorrCoef(),
                     CohenKappa(), RocAuc(), APScore()],
    "of values": lambda: [First(R2Score()), First(SpearmanCorrCoef())],
    "own class": lambda: [Longest()],
    "torchmetrics": lambda: [torchmetrics.Accuracy("multiclass", num_classes=3),
                             torchmetrics.AUROC("multiclass", num_classes=3),
                             torchmetrics.F1Score("multiclass", num_classes=3, average="macro")],
    "a collection of torchmetrics": lambda: [torchmetrics.MetricCollection(
        [torchmetrics.Accuracy("multiclass", num_classes=3), torchmetrics.AUROC("multiclass", num_classes=3)])],
}  # fmt: skip


def rmse_of_first(pred, targ):
    return (pred[:, 0] - targ).square().mean()


class First:
    """A metric of this library's for values, of the first output."""

    def __init__(self, metric):
        self.metric, self.name = metric, metric.name
        self.reset, self.compute = metric.reset, metric.compute

    def update(self, pred, targ):
        self.metric.update(pred[:, 0], targ.float())


class Longest:
    """Depends on the order of the items, and knows nothing of other processes."""

    name = "longest"

    def reset(self):
        self.right = []

    def update(self, pred, targ):
        self.right += (pred.argmax(1) == targ).tolist()

    def compute(self):
        return max(map(len, "".join("1" if right else "0" for right in self.right).split("0")))


@pytest.mark.parametrize("kind", METRICS)
def test_metrics_are_those_of_one_process_exactly(kind):
    def validate(n_valid):
        learn = make_learn(8, n_valid=n_valid, metrics=METRICS[kind]())
        twice = learn.validate(), learn.validate()
        assert twice[0] == twice[1]
        return twice[0]

    for n_valid in (N, 5):  # of five, a rank has none
        alone = validate(n_valid)
        exact = "torchmetrics" not in kind  # which add up in float32
        for found in launch(validate, [n_valid]):
            assert found == (alone if exact else pytest.approx(alone, rel=1e-6))


def test_perplexity_and_rmse():
    def validate():
        set_seed(0)
        words = TensorDataset(torch.randint(5, (37, 4)), torch.randint(5, (37, 4)))
        data = DataBunch.from_dsets(words, words, bs=4, val_bs=8, device="cpu", seed=0)
        loss = CrossEntropyLoss(axis=-1)
        learn = Learner(data, nn.Sequential(nn.Embedding(5, 5)), loss, metrics=Perplexity()).to_distributed(timeout=20)
        values = TensorDataset(torch.randn(37, 2), torch.randn(37, 1))
        data = DataBunch.from_dsets(values, values, bs=4, val_bs=8, device="cpu", seed=0)
        other = Learner(data, nn.Linear(2, 1), nn.MSELoss(), metrics=rmse).to_distributed(timeout=20)
        return learn.validate(), other.validate()

    alone, *ranks = validate(), *launch(validate)
    assert ranks == [alone, alone]


def test_predictions_of_397_images_are_those_of_one_process_in_order(tmp_path):
    def predict(folder):
        learn = make_learn(8, n_valid=N, loss_func=CrossEntropyLoss())
        valid = learn.get_preds(with_input=True, with_loss=True, with_decoded=True)
        train = learn.get_preds("train", act=lambda raw: raw.argmax(1), reorder=False)
        odd = learn.get_preds(dl=[samples(n, n)[:] for n in (3, 5, 2)])
        saved, targs = learn.get_preds(save_preds=folder / "preds")
        return *valid, *train, *odd, saved.clone(), targs

    alone, ranks = predict(tmp_path / "one"), launch(predict, [tmp_path / "two"])
    for found in ranks:
        assert len(found) == len(alone) == 11 and all(map(torch.equal, found, alone))
    assert torch.equal(alone[0], samples(N, 1)[:][0]) and torch.equal(alone[2], samples(N, 1)[:][1])
    assert [file.name for file in (tmp_path / "two").iterdir()] == ["preds.npy"]


def image(i):
    return samples(60)[i][0]


def letter(i):
    return "abc"[samples(60)[i][1]]


def from_files(bs=8):
    block = DataBlock((Block, CategoryBlock(vocab=["a", "b", "c"])), splitter=IndexSplitter(range(43, 60)),
                      get_x=image, get_y=letter)  # fmt: skip
    return block.databunch(list(range(60)), bs=bs, val_bs=4, device="cpu", seed=0)


def test_items_are_predicted_and_interpreted_on_each_rank():
    def predict():
        learn = make_learn(8, data=from_files(), loss_func=CrossEntropyLoss())
        many = [str(prediction) for prediction in learn.batch_predict(list(range(11)))]
        one = str(learn.predict(3)) if learn.ranks.rank == 0 else None  # which asks nobody
        found = ClassificationInterpretation.from_learner(learn)
        return many, one, found.confusion_matrix().tolist(), found.top_losses()

    alone, (first, second) = predict(), launch(predict)
    assert first[0] == second[0] == alone[0] and first[1] == alone[1]
    assert first[2] == second[2] == alone[2]
    assert all(map(torch.equal, first[3], alone[3])) and all(map(torch.equal, second[3], alone[3]))


def test_there_is_nothing_to_predict_on_any_rank():
    def predict():
        try:
            make_learn(8).get_preds(dl=[])
        except ValueError as error:
            return str(error)

    assert launch(predict) == ["There is nothing to predict: the loader gave no batch."] * 2


# ---- systems


class Classifier(nn.Module):
    """Logs as Lightning's modules do."""

    def __init__(self):
        super().__init__()
        self.net = small_net()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("double_loss", 2 * loss)
        return loss

    def validation_step(self, batch, batch_idx):
        pred = self.net(batch[0])
        self.accuracy.update(pred, batch[1])
        self.log("right", self.accuracy)
        self.log("mean_label", batch[1].float().mean())
        return F.cross_entropy(pred, batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Adversarial(nn.Module):
    """Two optimizers stepped by hand."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.generator, self.critic = nn.Linear(2, 16), nn.Linear(16, 1)

    def training_step(self, batch, batch_idx):
        x = batch[0].flatten(1)
        gen_opt, critic_opt = self.optimizers()
        critic_loss = (self.critic(self.generator(x[:, :2]).detach()) - self.critic(x)).mean()
        critic_opt.zero_grad()
        self.manual_backward(critic_loss)
        critic_opt.step()
        gen_loss = -self.critic(self.generator(x[:, :2])).mean()
        gen_opt.zero_grad()
        self.manual_backward(gen_loss)
        gen_opt.step()
        self.log("rank", float(self.trainer.global_rank))
        self.log("first", float(self.trainer.is_global_zero))

    def configure_optimizers(self):
        return [torch.optim.SGD(self.generator.parameters(), 0.1), torch.optim.Adam(self.critic.parameters(), 0.1)]


@pytest.mark.parametrize("n_valid", [29, 5])  # of five, a rank has none
def test_a_system_logs_means_over_all_ranks(n_valid):
    def train(bs):
        learn = make_learn(bs, n=96, n_valid=n_valid, model=Classifier)
        learn.loss_func = None
        learn.fit(2)
        return outcome(learn) | {"results": learn.validate()}

    check_same(*alone_and_together(train))


def test_a_system_that_steps_by_itself():
    def train(bs):
        learn = make_learn(bs, n=96, n_valid=0, model=Adversarial)
        learn.fit(2)
        return outcome(learn)

    alone, ranks = alone_and_together(train)
    logged = [found["history"].pop(name) for found in ranks for name in ("rank", "first")]
    assert logged == [[0.5, 0.5]] * 4
    alone["history"].pop("rank"), alone["history"].pop("first")
    check_same(alone, ranks)


# ---- what is written and shown


class Logger(Callback):
    """For rank 0, where it does what asks all ranks elsewhere."""

    rank0_only = True

    def __init__(self):
        self.seen = []

    def after_epoch(self, learn):
        learn.save("logged", with_opt=False)
        self.seen.append((learn.ranks.n, len(learn.batch_predict([0, 1, 2]))))


def test_files_are_rank_0s_and_what_it_does_alone_waits_for_nobody(tmp_path, capfd):
    def train(folder):
        learn = make_learn(8, data=from_files(), loss_func=CrossEntropyLoss(), path=folder)
        learn.progress.table = True
        logger = Logger()
        with learn.no_bar():
            learn.fit(2, cbs=[CSVLogger(), SaveModel(), logger])
        file = learn.save("last")
        learn.load("last")
        learn.export()
        learn.show_results()
        return logger.seen, str(file), plt.get_fignums()

    first, second = launch(train, [tmp_path])
    assert first[0] == [(1, 3)] * 2 and second[0] == []
    assert first[1] == second[1] == str(tmp_path / "models" / "last.pth")
    names = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert names == ["export.pt", "history.csv", "history.json", "history.steps.csv", "models/last.pth",
                     "models/logged.pth", "models/model.pth"]  # fmt: skip
    assert len(pd.read_csv(tmp_path / "history.csv")) == 2
    printed = capfd.readouterr().out
    assert printed.count("train_loss") == 1, printed


# ---- mistakes


def error_of(make):
    try:
        return make()
    except (ValueError, RankError) as error:
        return f"{type(error).__name__}: {error}"


def test_one_learner_is_distributed_once():
    def twice():
        return error_of(lambda: make_learn(8).to_distributed())

    assert launch(twice) == ["ValueError: This learner is distributed already."] * 2


def test_other_data_on_another_rank_is_refused():
    def split():
        torch.manual_seed(join().rank)
        block = DataBlock((Block, CategoryBlock(vocab=[0, 1])), splitter=RandomSplitter(0.2), get_x=float,
                          get_y=lambda i: i % 2)  # fmt: skip
        data = block.databunch(list(range(50)), bs=4, device="cpu")
        return error_of(Learner(data, nn.Linear(1, 2), CrossEntropyLoss()).to_distributed)

    def fewer():
        data = DataBunch.from_dsets(samples(40 - join().rank), samples(9), bs=4, device="cpu", seed=0)
        return error_of(Learner(data, small_net(), CrossEntropyLoss()).to_distributed)

    def no_validation():
        data = DataBunch.from_dsets(samples(40), None if join().rank else samples(9), bs=4, device="cpu", seed=0)
        return error_of(Learner(data, small_net(), CrossEntropyLoss()).to_distributed)

    (message, same) = launch(split)
    assert message == same
    assert "Rank 1 has another training set than rank 0: other items. All processes have to make the same" in message
    assert "RandomSplitter(seed=42), or call set_seed before the data is made" in message
    assert "Rank 1 has another training set than rank 0: 39 items instead of 40" in launch(fewer)[0]
    assert "Rank 1 has no validation set, unlike rank 0. All" in launch(no_validation)[1]


def test_other_models_on_another_rank_are_refused_and_other_weights_are_those_of_rank_0():
    def other():
        data = DataBunch.from_dsets(samples(40), bs=4, device="cpu", seed=0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3 + join().rank))
        return error_of(Learner(data, model, CrossEntropyLoss()).to_distributed)

    def weights():
        data = DataBunch.from_dsets(samples(40), samples(9), bs=4, device="cpu", seed=0)
        torch.manual_seed(join().rank)
        return Learner(data, small_net(), CrossEntropyLoss()).to_distributed(timeout=20).get_preds()[0]

    assert all("Rank 1 has another model than rank 0" in message for message in launch(other))
    assert torch.equal(*launch(weights))


def test_too_few_items_for_a_batch_of_all():
    def train():
        return error_of(lambda: make_learn(8, n=15).fit(1))

    first, second = launch(train)
    assert first == second and "smaller than one batch of 16 items, 8 for each of 2 processes" in first


# ---- faults


@pytest.fixture
def short_roll_call(monkeypatch):
    monkeypatch.setattr(ranks_module, "ROLL_CALL", 1.0)


class InBatch(Callback):
    """Does something in batch 2 of a rank."""

    def __init__(self, rank, action):
        self.rank, self.action = rank, action

    def before_backward(self, learn):
        if learn.iter == 2 and learn.ranks.rank == self.rank:
            self.action(learn)


def test_nobody_speaks_before_all_processes_are_started(monkeypatch):
    """A fork of a process of which a thread is answering inherits its locks, and may wait for them forever."""
    stores, asked = [], []

    class Store(torch.distributed.TCPStore):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            stores.append(self)

    def start(*args, start=mp.start_processes, **options):
        processes = start(*args, **options)
        time.sleep(0.5)
        asked.append(stores[0].num_keys())
        return processes

    monkeypatch.setattr(torch.distributed, "TCPStore", Store)
    monkeypatch.setattr(mp, "start_processes", start)
    before = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).num_keys()
    stores.clear()
    assert launch(lambda: join().rank) == [0, 1] and asked == [before]
    stores.clear()  # and with it the store's thread, before another test forks


def test_an_error_on_one_rank_ends_all():
    def fail(learn):
        raise KeyError("label 7")

    def train():
        make_learn(8).fit(1, cbs=InBatch(1, fail))

    with pytest.raises(RankError, match=r"(?s)Rank 1 of 2 failed; the others have been ended.*KeyError: 'label 7'"):
        launch(train)


@pytest.mark.parametrize("fault", ["raises", "is killed"])
def test_a_rank_that_is_left_says_which_is_lost(fault, tmp_path, short_roll_call):
    def leave(learn):
        os.kill(os.getpid(), 9) if fault == "is killed" else os._exit(1)

    def train(rank, port):
        os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        try:
            make_learn(8).fit(1, cbs=InBatch(1, leave))
        except RankError as error:
            (tmp_path / str(rank)).write_text(str(error))

    run_as_ranks(train)
    message = (tmp_path / "0").read_text()
    assert "Rank 1 of 2 has ended or failed, so rank 0 cannot go on: its own message says why" in message


def run_as_ranks(work):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    processes = [multiprocessing.get_context("fork").Process(target=work, args=(rank, port)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode is not None, "it hangs"


def test_a_rank_that_hangs_is_named_after_the_timeout(short_roll_call):
    def train():
        set_seed(0)
        data = DataBunch.from_dsets(samples(80), bs=8, device="cpu", seed=0)
        learn = Learner(data, small_net(), nn.CrossEntropyLoss()).to_distributed(timeout=3)
        learn.progress.bar = learn.progress.table = False
        learn.fit(1, cbs=InBatch(1, lambda learn: time.sleep(60)))

    start = time.perf_counter()
    with pytest.raises(RankError, match=r"Rank 1 of 2 did not come to where rank 0 waited for it\. It hangs"):
        launch(train)
    assert time.perf_counter() - start < 15


def test_a_nan_on_one_rank_ends_the_fit_on_all_and_the_warning_names_it():
    class Spoil(Callback):
        order = -1000

        def after_loss(self, learn):
            if learn.training and learn.iter == 2 and learn.ranks.rank == 1:
                learn.loss = learn.loss * float("nan")

    def train():
        learn = make_learn(8)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            learn.fit(1, cbs=[TerminateOnNaN(), Spoil()])
        finite = all(p.isfinite().all() for p in learn.model.parameters())
        return learn.n_steps, finite, [str(warning.message) for warning in caught]

    first, second = launch(train)
    assert first[:2] == second[:2] == (2, True)
    for found in (first, second):
        assert any("not finite in batch 2 of epoch 0 on rank 1," in message for message in found[2])


def test_a_killed_worker_of_a_loader_says_what_to_do_and_no_rank_hangs():
    class Deadly(torch.utils.data.Dataset):
        n_read = 0

        def __len__(self):
            return 80

        def __getitem__(self, i):
            self.n_read += 1
            if self.n_read == 20 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.zeros(1, 4, 4), 0

    def train():
        data = DataBunch.from_dsets(Deadly(), bs=8, num_workers=1, device="cpu", seed=0)
        make_learn(8, data=data).fit(1)

    with pytest.raises(RankError, match=r"(?s)Rank 1 of 2 failed.*ended from outside, mostly"):
        launch(train)


def test_nothing_is_left_of_a_fit():
    def train():
        learn = make_learn(8)
        kept = []

        class Keep(Callback):
            def before_batch(self, learn):
                kept.extend(weakref.ref(cb.ddp) for cb in learn.cbs if hasattr(cb, "ddp"))

        learn.fit(1, n_batches=2, cbs=Keep())
        return [ref() is None for ref in kept], learn.run_through is None

    assert all(all(gone) and gone and free for gone, free in launch(train))


def test_one_process_is_not_changed():
    learn = make_learn(8)
    before = list(learn.cbs), learn.data
    with nullcontext(learn.to_distributed()) as same:
        assert same is learn and (list(learn.cbs), learn.data) == before and learn.ranks.n == 1


def test_all_callbacks_at_once_leave_the_ranks_in_agreement(tmp_path):
    def train(bs):
        body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        learn = make_learn(bs, n=64, n_valid=29, metrics=accuracy, splitter=two_groups, path=tmp_path,
                           model=lambda: nn.Sequential(body, nn.Flatten(), nn.Linear(64, 3)))  # fmt: skip
        learn.freeze()
        scheduler = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.99)
        learn.fit(3, cbs=[
            MixedPrecision(torch.bfloat16), GradientAccumulation(24), GradientClip(), SAM(0.01), EMA(0.5),
            ChannelsLast(), GradientCheckpointing([body]), MixUp(), TorchScheduler(scheduler), ValidateEvery(2),
            StopAfter(seconds=100), EarlyStopping(patience=100), SaveModel(), TerminateOnNaN(), DetectAnomaly(),
            ActivationStats(), GradientStats(), Profiler(), MemoryUse(), ShowGraph(), CSVLogger(), LimitBatches(4, 3),
            BnFreeze(body), Unfreeze(1), FetchPreds(), ReduceLROnPlateau(patience=100),
        ])  # fmt: skip
        found = outcome(learn)
        learn.fit(1)
        return found | {"after": outcome(learn)["weights"]}

    first, second = launch(train, [8])
    check_same(first, [first, second], atol=0)
    assert first["n_steps"] > 0 and first["history"]["epoch"] == [0, 1, 2]
