"""Where the time goes: planted delays are found, by their share; nothing is left behind."""

import time

import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from warmstart.callbacks import Callback, CancelFit, CancelTrain
from warmstart.callbacks.profiler import Profiler
from warmstart.callbacks.timings import STAGES
from warmstart.data import DataBunch
from warmstart.data.loaders import DeviceLoader
from warmstart.learner import Learner

DELAY = 0.01  # seconds, where an undisturbed batch of these networks takes a tenth of it


class SlowLoader(list):
    def __iter__(self):
        for batch in super().__iter__():
            time.sleep(DELAY)
            yield batch


class SlowLayer(nn.Linear):
    def forward(self, x):
        time.sleep(DELAY)
        return super().forward(x)


class SlowGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        time.sleep(DELAY)
        return grad


class SlowCallback(Callback):
    def after_loss(self, learn):
        time.sleep(DELAY)


class SlowSGD(torch.optim.SGD):
    def step(self, closure=None):
        time.sleep(DELAY)
        return super().step(closure)


class SlowBatch:
    """A batch that takes its time to be moved."""

    def to(self, device):
        time.sleep(DELAY)
        return torch.randn(8, 4)


def slow_loss(pred, targ):
    time.sleep(DELAY)
    return nn.functional.cross_entropy(pred, targ)


def slow_backward_loss(pred, targ):
    return nn.functional.cross_entropy(SlowGradient.apply(pred), targ)


def batches(n):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(n)]


def profiled(train=None, model=None, loss_func=None, cbs=(), opt_func=torch.optim.SGD, n_epoch=1, **kwargs):
    """A profiler that has watched 13 batches."""
    data = DataBunch(batches(13) if train is None else train, batches(2), device="cpu")
    learn = Learner(data, model or nn.Linear(4, 3), loss_func or nn.CrossEntropyLoss(), opt_func)
    learn.progress.bar = learn.progress.table = False
    profiler = Profiler(**kwargs)
    learn.fit(n_epoch, cbs=[profiler, *cbs])
    return profiler


@pytest.mark.parametrize(
    ("stage", "planted"),
    [
        ("data", {"train": SlowLoader(batches(13))}),
        ("transfer", {"train": [(SlowBatch(), torch.zeros(8).long())] * 13}),
        ("forward", {"model": SlowLayer(4, 3)}),
        ("loss", {"loss_func": slow_loss}),
        ("backward", {"loss_func": slow_backward_loss}),
        ("step", {"opt_func": SlowSGD}),
        ("callbacks", {"cbs": [SlowCallback()]}),
    ],
)
def test_a_planted_delay_is_found_in_its_stage(stage, planted):
    for _ in range(3):  # a machine that halts for as long as all delays together does not do so again and again
        table = profiled(**planted).table
        if table["share"][stage] > 0.6:
            break
    assert table.index.tolist() == STAGES
    assert table["share"].idxmax() == stage and table["share"][stage] > 0.6
    assert table["ms"][stage] >= 1000 * DELAY and table["seconds"][stage] >= 10 * DELAY


def test_shares_add_up_and_the_warmup_is_left_out():
    profiler = profiled(n_epoch=2, warmup=5)
    table = profiler.table
    assert profiler.n_batches == 26 - 5 and set(table["calls"]) == {21}
    assert table["share"].sum() == pytest.approx(1)
    assert table["ms"].tolist() == pytest.approx((1000 * table["seconds"] / 21).tolist())


def test_batches_count_where_the_last_is_left_early_and_where_a_loader_prepares_none():
    class Leave(Callback):
        def after_batch(self, learn):
            if learn.training and learn.iter == 7:
                raise CancelTrain

    class Prepared(DeviceLoader):
        def __iter__(self):
            return iter(self.dl)

    profiler = profiled(train=Prepared(batches(13), torch.device("cpu")), cbs=[Leave()])
    assert profiler.n_batches == 8 - 3 and profiler.table["calls"]["forward"] == 5


def test_a_slow_start_is_left_out():
    class SlowStart(Callback):
        def before_batch(self, learn):
            time.sleep(10 * DELAY if learn.training and learn.train_iter < 3 else 0)

    assert profiled(cbs=[SlowStart()]).seconds["callbacks"] < 10 * DELAY


def test_validation_is_left_out():
    class SlowValidation(Callback):
        def after_pred(self, learn):
            time.sleep(0 if learn.training else 20 * DELAY)

    profiler = profiled(cbs=[SlowValidation()], n_epoch=2)
    assert sum(profiler.seconds.values()) < 20 * DELAY and profiler.callback_seconds["SlowValidation"] < 20 * DELAY


def test_the_slow_callback_is_named():
    profiler = profiled(cbs=[SlowCallback()])
    assert max(profiler.callback_seconds, key=profiler.callback_seconds.__getitem__) == "SlowCallback"
    assert profiler.callback_seconds["SlowCallback"] >= 10 * DELAY
    assert "SlowCallback (1" in profiler.report()


def test_times_add_up_to_those_of_the_epoch():
    profiler, begin = Profiler(warmup=0), time.perf_counter()
    data = DataBunch(SlowLoader(batches(13)), device="cpu")
    learn = Learner(data, SlowLayer(4, 3), nn.CrossEntropyLoss())
    learn.progress.bar = learn.progress.table = False
    learn.fit(1, cbs=profiler)
    whole = time.perf_counter() - begin
    assert 0.8 * whole < sum(profiler.seconds.values()) < whole


class Stop(Callback):
    def __init__(self, error):
        self.error = error

    def before_step(self, learn):
        if learn.iter == 2:
            raise self.error


@pytest.mark.parametrize("error", [None, CancelFit(), ValueError("planted")])
def test_nothing_is_left_behind_however_a_fit_ends(make_learn, error):
    learn = make_learn()
    own = learn.forward = lambda: nn.Linear.__call__(learn.model, learn.xb[0])  # somebody else's, which stays
    try:
        learn.fit(1, cbs=[Profiler()] if error is None else [Profiler(), Stop(error)])
    except ValueError as raised:
        assert raised is error
    assert learn.forward is own
    assert not {"compute_loss", "backward", "step", "zero_grad"} & vars(learn).keys()
    assert "prepare" not in vars(learn.data.train_dl)


def test_training_is_the_same_with_it(make_learn):
    plain, watched = make_learn(), make_learn()
    plain.fit_one_cycle(2)
    watched.fit_one_cycle(2, cbs=Profiler())
    assert plain.recorder.losses == watched.recorder.losses
    assert plain.recorder.history["valid_loss"].equals(watched.recorder.history["valid_loss"])


def test_callbacks_keep_their_order_and_errors(make_learn):
    heard = []

    class First(Callback):
        order = -200

        def before_batch(self, learn):
            heard.append("first")

    class Last(Callback):
        def before_batch(self, learn):
            heard.append("last")

        after_pred = None

    make_learn(train=(8,), valid=None).fit(1, cbs=[Profiler(), Last(), First()])
    assert heard == ["first", "last"]


def test_the_report_fits_a_terminal_and_gives_advice():
    report = profiled(train=SlowLoader(batches(13))).report()
    lines = report.splitlines()
    assert max(map(len, lines)) <= 80 and repr(report) == str(report)
    assert lines[0].startswith("10 training batches") and [line.split()[0] for line in lines[3:11]] == STAGES
    advice = " ".join(" ".join(lines[11:]).split())
    assert "of the time goes to data: read it with more workers" in advice


def test_without_anything_to_complain_about_the_report_says_so():
    report = profiled(model=SlowLayer(4, 3)).report()
    assert "goes to the model, forward and backward. Nothing else" in " ".join(report.split())


def test_before_a_batch_was_measured_there_is_nothing_to_read():
    profiler = profiled(warmup=13)
    for read in (lambda: profiler.table, profiler.report, profiler.plot):
        with pytest.raises(ValueError, match="more than warmup=13 batches"):
            read()


def test_plot_draws_the_table():
    profiler = profiled()
    profiler.plot()
    ax = plt.gca()
    assert [label.get_text() for label in ax.get_yticklabels()] == STAGES
    assert [bar.get_width() for bar in ax.patches] == profiler.table["ms"].tolist()
    assert isinstance(profiler.table, pd.DataFrame)
