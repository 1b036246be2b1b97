"""A model parted over processes trains as a whole one does: the weights, the results, the callbacks, the files."""

import sys
from functools import partial

import pytest
import torch
from torch import nn, optim
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from warmstart.callbacks import (
    EMA,
    SAM,
    SWA,
    ActivationStats,
    BnFreeze,
    Callback,
    ChannelsLast,
    DetectAnomaly,
    GradientAccumulation,
    GradientCheckpointing,
    GradientClip,
    GradientStats,
    LimitBatches,
    MixedPrecision,
    MixUp,
    Profiler,
    SaveModel,
    StopAfter,
    TerminateOnNaN,
    Unfreeze,
    ValidateEvery,
)
from warmstart.data import DataBunch
from warmstart.learner import (
    Lamb,
    Lars,
    Learner,
    Lookahead,
    RankError,
    accuracy,
    launch,
    load_learner,
    set_seed,
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:EMA", "ignore:This CPU has no", "ignore:.*sets the learning rate"),
]


def samples(n=160, seed=0):
    """Small images of three classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 4, 4, generator=generator)
    score = x.sum((1, 2, 3)) + torch.randn(n, generator=generator)
    return TensorDataset(x, (score > -2).long() + (score > 2))


class Residual(nn.Module):
    """A block of a size that two processes cannot part evenly."""

    def __init__(self, linear=None):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(7), linear or nn.Linear(7, 7)

    def forward(self, x):
        return x + self.linear(self.norm(x)).tanh()


def net():
    stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 7))
    return nn.Sequential(stem, nn.Sequential(Residual(), Residual()), nn.Linear(7, 3))


def net_with_batchnorm():
    model = net()
    model[0][1] = nn.BatchNorm2d(4)
    return model


def three_groups(model):
    return [list(part.parameters()) for part in model]


def make_learn(bs, model=net, opt_func=optim.AdamW, parted="to_fsdp", n=160, n_valid=29, **kwargs):
    """A learner on its part of data and model, where there are several processes."""
    set_seed(0)
    data = DataBunch.from_dsets(samples(n), samples(n_valid, seed=1), bs=bs, val_bs=8, device="cpu", seed=3)
    learn = Learner(data, model(), nn.CrossEntropyLoss(), opt_func, lr=1e-2, metrics=accuracy, **kwargs)
    learn.progress.bar = learn.progress.table = False
    return getattr(learn, parted)(timeout=30) if parted else learn


def weights(learn):
    state = learn.model.state_dict()
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).clone() for name, value in state.items()
    }


def outcome(learn):
    history = learn.recorder.history.drop(columns="time").to_dict("list")
    return {
        "weights": weights(learn),
        "losses": torch.tensor(learn.recorder.losses),
        "history": {name: torch.tensor(column, dtype=torch.double) for name, column in history.items()},
        "n_steps": learn.n_steps,
    }


def check_same(one, ranks, atol=1e-6):
    """The ranks came to the same, to the bit, and to what one process came to."""
    for found in ranks:
        torch.testing.assert_close(found, ranks[0], atol=0, rtol=0)
    torch.testing.assert_close(ranks[0], one, atol=atol, rtol=atol)


def alone_and_together(train, *args, bs=8, n=2):
    """`train(bs, …)` in this process, and in several of a part of the batch each."""
    return train(bs * n, *args), launch(train, [bs, *args], n)


# ---- the same training


@pytest.mark.parametrize("n", [2, 3])
def test_20_steps_lead_to_the_weights_of_one_process(n):
    def train(bs):
        learn = make_learn(bs)
        learn.fit_one_cycle(2, cbs=StopAfter(steps=20))
        return outcome(learn)

    one, ranks = alone_and_together(train, bs=8 if n == 2 else 4, n=n)
    assert one["n_steps"] == 20
    check_same(one, ranks)


def test_each_process_holds_its_part_of_parameters_gradients_and_optimizer():
    def train(bs):
        parts = {}

        class Look(Callback):
            def before_step(self, learn):
                parts["gradients"] = [p.grad for p in learn.model.parameters()]

        learn = make_learn(bs)
        learn.fit(1, cbs=Look())
        parts["parameters"] = list(learn.model.parameters())
        parts["averages"] = [state["exp_avg"] for state in learn.opt.state.values()]
        assert all(isinstance(value, DTensor) for values in parts.values() for value in values)
        return {name: [value.to_local().shape for value in values] for name, values in parts.items()}

    first, second = launch(train, [8])
    whole = [p.shape for p in net().parameters()]
    for name in first:
        for one, other, shape in zip(first[name], second[name], whole, strict=True):
            assert one[0] + other[0] == shape[0] and one[0] - other[0] in (0, 1)
            assert one[1:] == other[1:] == shape[1:]


def test_after_evaluation_the_parameters_are_parted_still():
    def look(bs):
        learn = make_learn(bs)
        learn.prepare_optimizer()
        opt, x = learn.opt, samples(2)[:][0]
        for evaluate in (learn.validate, learn.get_preds, learn.summary, lambda: learn.model(x)):
            with torch.no_grad():
                evaluate()
            assert all(isinstance(p, DTensor) for p in learn.model.parameters())
        assert learn.groups and learn.opt is opt
        return str(learn.summary())

    assert "FSDP" not in launch(look, [8])[0]


@pytest.mark.parametrize("n", [2, 3])
def test_results_and_predictions_are_those_of_all_items_in_their_order(n):
    def evaluate(bs):
        learn = make_learn(bs, n=397, n_valid=57)  # in 8 batches, which three processes cannot part evenly
        preds, targs = learn.get_preds("train")
        return learn.validate(), preds, targs, learn.get_preds(with_loss=True)

    one, ranks = alone_and_together(evaluate, n=n)
    assert torch.equal(one[2], samples(397)[:][1])
    check_same(one, ranks)


OPTIMIZERS = {
    "SGD": partial(optim.SGD, momentum=0.9, nesterov=True),
    "Adam, not fused": partial(optim.Adam, fused=False),
    "RMSprop": optim.RMSprop,
    "Adagrad": optim.Adagrad,
    "NAdam": optim.NAdam,
    "RAdam": optim.RAdam,
    "Lamb": Lamb,
    "Lars": Lars,
    "Lookahead": lambda params, lr: Lookahead(optim.AdamW(params, lr=lr)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_do_what_they_do_in_one_process(name):
    def train(bs):
        learn = make_learn(bs, opt_func=OPTIMIZERS[name])
        learn.fit(1, 1e-3, cbs=StopAfter(steps=8))
        return outcome(learn)

    check_same(*alone_and_together(train))


class ValidateWithin(Callback):
    """Evaluates in the middle of an epoch, as a callback may."""

    def after_batch(self, learn):
        if learn.training and learn.iter == 3:
            learn.validate()


CALLBACKS = {
    "clipping": lambda: GradientClip(0.1),
    "clipping by the largest": lambda: GradientClip(0.1, norm_type=float("inf")),
    "clipping of values": lambda: GradientClip(None, max_value=0.01),
    "accumulation with something left over": lambda: [GradientAccumulation(60), GradientClip(0.1)],
    "EMA": lambda: [EMA(0.9), ValidateEvery(4), ValidateWithin()],
    "SWA": lambda: SWA(0.3),
    "ChannelsLast": lambda: ChannelsLast(),
    "GradientCheckpointing": lambda: GradientCheckpointing(),
    "those that look": lambda: [ActivationStats(), DetectAnomaly(), GradientStats(), TerminateOnNaN(), Profiler()],
    "LimitBatches": lambda: LimitBatches(5, 2),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_do_what_they_do_in_one_process(name):
    def train(bs):
        learn = make_learn(bs, opt_func=optim.SGD)
        learn.fit_one_cycle(2, 0.1, cbs=CALLBACKS[name]())
        return outcome(learn)

    check_same(*alone_and_together(train))


def test_norms_of_gradients_are_those_of_whole_ones():
    def train(bs):
        clip, stats = GradientClip(1.0), GradientStats()
        make_learn(bs, opt_func=optim.SGD).fit(1, cbs=[clip, stats, StopAfter(steps=5)])
        return clip.norm, torch.tensor(stats.norms.to_numpy())

    one, ranks = alone_and_together(train)
    assert type(ranks[0][0]) is torch.Tensor
    check_same(one, ranks)


AS_WHOLE_COPIES = {  # with what differs from one process in the same way
    "MixUp": (net, lambda learn: MixUp()),
    "bfloat16": (net, lambda learn: MixedPrecision(torch.bfloat16)),
    "float16, whose first steps overflow": (net, lambda learn: MixedPrecision(torch.float16)),
    "BatchNorm": (net_with_batchnorm, lambda learn: SWA(0.5)),
    "BatchNorm that is frozen": (net_with_batchnorm, lambda learn: BnFreeze(learn.model, max_lr=1)),
}


@pytest.mark.parametrize("name", AS_WHOLE_COPIES)
def test_a_parted_model_comes_to_what_whole_copies_come_to(name):
    model, make_cb = AS_WHOLE_COPIES[name]

    def train(parted):
        learn = make_learn(8, model, optim.SGD, parted)
        learn.fit_one_cycle(2, 0.1, cbs=make_cb(learn))
        return outcome(learn)

    check_same(launch(train, ["to_distributed"])[0], launch(train, ["to_fsdp"]))


def test_sharpness_aware_minimisation_is_refused():
    with pytest.raises(RankError, match="SAM asks for gradients that parted parameters never have"):
        launch(lambda: make_learn(8).fit(1, cbs=SAM()))


def test_frozen_groups_stay_as_they_are_and_learning_rates_differ():
    def train(bs):
        learn = make_learn(bs, splitter=three_groups)
        before = weights(learn)
        learn.freeze()
        learn.fit(1)
        unchanged = [name for name, value in weights(learn).items() if torch.equal(value, before[name])]
        learn.fit(1, slice(1e-4, 1e-2), cbs=Unfreeze(0))
        learn.fine_tune(1, 1e-2)
        return outcome(learn), unchanged, [group["lr"] for group in learn.opt.param_groups]

    one, ranks = alone_and_together(train)
    assert ranks[0][1] == one[1] and len(one[1]) == len(list(net()[:2].parameters()))
    assert ranks[0][2] == one[2]
    check_same(one[0], [found for found, *_ in ranks])


def test_looking_for_a_learning_rate_puts_everything_back():
    def look(bs):
        learn = make_learn(bs)
        learn.fit(1)
        opt, before = learn.opt, (weights(learn), str(learn.opt.state_dict()))
        suggested = learn.lr_find(num_it=15, show_plot=False)
        assert learn.opt is opt and str(learn.opt.state_dict()) == before[1]
        torch.testing.assert_close(weights(learn), before[0], atol=0, rtol=0)
        learn.fit(1)
        return outcome(learn), suggested.valley

    check_same(*alone_and_together(look))


def test_a_compiled_model():
    def train(bs):
        learn = make_learn(bs).compile(backend="eager")
        learn.fit(1, cbs=StopAfter(steps=5))
        return outcome(learn)

    check_same(*alone_and_together(train))


# ---- models of all kinds


class System(nn.Module):
    """Trains by a step of its own, which calls itself; by hand, if it says so."""

    def __init__(self, automatic):
        super().__init__()
        self.automatic_optimization = automatic
        self.body, self.head = net(), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y) + self.head.weight.square().sum() / 100
        if not self.automatic_optimization:
            opt = self.optimizers()
            opt.zero_grad()
            self.manual_backward(loss)
            opt.step()
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("error", (self(batch[0]).argmax(1) != batch[1]).float().mean())

    def configure_optimizers(self):
        return optim.Adam(self.parameters(), lr=1e-2)


@pytest.mark.parametrize("automatic", [True, False])
def test_a_system_trains_by_its_own_step(automatic):
    def train(bs):
        set_seed(0)
        data = DataBunch.from_dsets(samples(), samples(29, seed=1), bs=bs, val_bs=8, device="cpu", seed=3)
        learn = Learner(data, System(automatic))
        learn.progress.bar = learn.progress.table = False
        learn.to_fsdp(timeout=30).fit(2)
        return outcome(learn), learn.validate()

    check_same(*alone_and_together(train), atol=3e-6)


class Tied(nn.Module):
    """The first layer's weight is used in a block again, and another block is used three times."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 7), nn.Linear(7, 3)
        self.widen = nn.Linear(7, 16)
        again = nn.Linear(16, 7)
        again.weight = self.first.weight
        block = Residual()
        self.blocks = nn.ModuleList([Residual(nn.Sequential(nn.Linear(7, 16), again)), block, block, block])

    def forward(self, x):
        x = self.first(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class OneLayer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.linear, self.scale = nn.Linear(16, 3), nn.Parameter(torch.ones(shape))

    def forward(self, x):
        return self.linear(x.flatten(1)) * self.scale


MODELS = {"with shared parameters": Tied, "without blocks, of which one rank has nothing": partial(OneLayer, (1,))}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    def train(bs):
        learn = make_learn(bs, MODELS[name])
        n_params = len(list(learn.model.parameters()))
        learn.fit(2)
        return outcome(learn), n_params

    check_same(*alone_and_together(train))


def test_a_parameter_that_is_a_scalar_is_refused_by_torch():
    with pytest.raises(RankError, match="Change scale to a 1D tensor"):
        launch(make_learn, [8, partial(OneLayer, ())])


def test_which_modules_are_put_together_can_be_said_in_any_order():
    def chosen(bs):
        learn = make_learn(bs, parted=None)
        model = learn.model
        learn.to_fsdp([model, model[1], model[1][0]])
        parted = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
        learn.fit(1)
        return outcome(learn), parted

    (one, _), ranks = alone_and_together(chosen)
    assert ranks[0][1] == ["", "1", "1.0"]
    check_same(one, [found for found, _ in ranks])


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda model: [model.blocks[0]], "Residual cannot be parted by itself: it has a parameter in common"),
        (lambda model: [nn.Linear(2, 2)], "Linear to be parted by itself is no part of this learner's model"),
    ],
)
def test_modules_that_cannot_be_parted_by_themselves_are_refused(choose, message):
    def part():
        learn = make_learn(8, Tied, parted=None)
        learn.to_fsdp(choose(learn.model))

    with pytest.raises(RankError, match=message):
        launch(part)


def test_a_learner_is_parted_once():
    with pytest.raises(RankError, match="This learner is distributed already"):
        launch(lambda: make_learn(8).to_distributed())


# ---- files


def test_files_hold_whole_tensors_and_are_loaded_alone_and_together(tmp_path):
    def train(bs, folder, read):
        learn = make_learn(bs, path=folder)
        if read:
            learn.load("weights")
        else:
            learn.fit(1, cbs=SaveModel(fname="best", with_opt=True))
            learn.save("weights")
            kept = weights(learn)
            learn.fit(1)
            learn.load("weights")
            torch.testing.assert_close(weights(learn), kept, atol=0, rtol=0)
        state = [state["exp_avg"] for state in learn.opt.state.values()]
        assert {type(value) for value in state} == {torch.Tensor if learn.ranks.n == 1 else DTensor}
        learn.fit(1)
        return outcome(learn)["weights"]

    together = launch(train, [8, tmp_path, False])
    content = torch.load(tmp_path / "models" / "weights.pth", weights_only=True)
    assert {type(value) for value in content["model"].values()} == {torch.Tensor}
    assert content["opt"]["state"][0]["exp_avg"].shape == (4, 1, 3, 3)
    assert (tmp_path / "models" / "best.pth").is_file()
    check_same(train(16, tmp_path, True), together)
    check_same(together[0], launch(train, [8, tmp_path, True]), atol=0)


def test_an_exported_learner_is_loaded_in_one_process(tmp_path):
    def train(bs):
        learn = make_learn(bs, path=tmp_path)
        learn.fit(1)
        learn.export()
        return learn.get_preds()[0]

    preds = launch(train, [8])[0]
    learn = load_learner(tmp_path / "export.pt", custom={"Sequential": net})
    valid = DataBunch.from_dsets(samples(16), samples(29, seed=1), bs=8, device="cpu")
    torch.testing.assert_close(learn.get_preds(dl=valid.valid_dl)[0], preds, atol=1e-6, rtol=1e-6)


def test_in_one_process_nothing_changes():
    learn = make_learn(8)
    assert {type(p) for p in learn.model.parameters()} == {nn.Parameter} and len(learn.cbs) == 3
