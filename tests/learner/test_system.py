"""Models with a training step of their own: plain modules, and Lightning's demo modules as they are."""

import copy

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ExponentialLR, StepLR
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau
from torch.utils.data import DataLoader, TensorDataset
from warmstart.callbacks import (
    EMA,
    SAM,
    Callback,
    GradientAccumulation,
    GradientClip,
    MixedPrecision,
    MixUp,
    TorchScheduler,
    ValidateEvery,
)
from warmstart.data import DataBunch
from warmstart.learner import Learner
from warmstart.learner.system_optimizers import SeveralOptimizers, configured_optimizers


class Classifier(nn.Module):
    """Imports nothing of any framework, but logs and configures as Lightning's modules do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("double_loss", 2 * loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.accuracy.update(self(x), y)
        self.log("accuracy", self.accuracy)
        self.log_dict({"n": len(y)}, batch_size=1)
        return {"loss": F.cross_entropy(self(x), y)}


class WithOptimizer(Classifier):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.5)


class Adversarial(nn.Module):
    """Two optimizers stepped by hand, as a GAN does."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.generator, self.critic = nn.Linear(2, 4), nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        gen_opt, critic_opt = self.optimizers()
        fake = self.generator(torch.ones(len(x), 2))
        critic_loss = (self.critic(fake.detach()) - self.critic(x)).mean()
        critic_opt.zero_grad()
        self.manual_backward(critic_loss)
        critic_opt.step()
        gen_loss = -self.critic(self.generator(torch.ones(len(x), 2))).mean()
        gen_opt.zero_grad()
        self.manual_backward(gen_loss)
        gen_opt.step()
        self.log("critic_loss", critic_loss)
        self.log("gen_loss", gen_loss)

    def configure_optimizers(self):
        gen_opt = torch.optim.Adam(self.generator.parameters(), lr=1e-2)
        critic_opt = torch.optim.SGD(self.critic.parameters(), lr=2e-2)
        return [gen_opt, critic_opt], [StepLR(gen_opt, 1)]


def loader(n=32, seed=0, bs=8):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    y = (x.sum(1) > -1).long() + (x.sum(1) > 1).long()
    return DataLoader(TensorDataset(x, y), bs)


def make_learn(system, valid=True, **kwargs):
    learn = Learner(DataBunch(loader(), loader(20, 1) if valid else None, device="cpu"), system, **kwargs)
    learn.progress.bar = learn.progress.table = False
    return learn


# ---- a plain module


def test_a_training_step_trains_as_the_same_loss_does():
    system, plain = make_learn(Classifier()), make_learn(Classifier().net, loss_func=nn.CrossEntropyLoss())
    system.fit_one_cycle(3, 0.01)
    plain.fit_one_cycle(3, 0.01)
    assert system.recorder.losses == plain.recorder.losses
    assert list(system.recorder.history["valid_loss"]) == pytest.approx(list(plain.recorder.history["valid_loss"]))


def test_what_it_logs_is_averaged_by_sample_into_columns_of_the_history():
    learn = make_learn(Classifier())
    learn.fit(2, 0.1)
    history = learn.recorder.history
    assert list(history["double_loss"]) == pytest.approx(list(2 * history["train_loss"]))
    assert list(history["n"]) == pytest.approx([20 / 3] * 2)  # batches of 8, 8 and 4, each counted once
    x, y = (torch.cat(values) for values in zip(*loader(20, 1), strict=True))
    right = learn.model(x).argmax(1) == y
    assert history["accuracy"].iloc[-1] == pytest.approx(right.float().mean().item())
    assert list(history.columns) == ["epoch", "train_loss", "double_loss", "valid_loss", "accuracy", "n", "time"]


def test_validate_gives_what_the_validation_step_logs():
    results = make_learn(Classifier()).validate()
    assert set(results) == {"valid_loss", "accuracy", "n"}


def test_it_uses_the_optimizer_that_it_configures_at_its_own_rate():
    learn = make_learn(WithOptimizer())
    learn.fit(1)
    assert type(learn.opt) is torch.optim.SGD and set(learn.recorder.lrs) == {0.3}
    learn.fit_one_cycle(1, 0.05)
    assert max(learn.recorder.lrs[4:]) == pytest.approx(0.05)
    learn.fit(1)
    assert set(learn.recorder.lrs[8:]) == {0.3} and learn.opt.param_groups[0]["momentum"] == 0.5


def test_it_predicts_through_its_forward():
    learn = make_learn(Classifier())
    preds, targs = learn.get_preds()
    x, y = (torch.cat(values) for values in zip(*loader(20, 1), strict=True))
    torch.testing.assert_close(preds, learn.model(x))
    torch.testing.assert_close(targs, y)
    torch.testing.assert_close(learn.run_batch((x,)), learn.model(x))


def test_the_model_is_left_as_it_was():
    system = Classifier()
    before = set(vars(system))
    learn = make_learn(system)
    learn.fit(1)
    learn.validate()
    learn.lr_find(show_plot=False, num_it=10)
    assert set(vars(system)) == before

    system.net = nn.Linear(3, 3)  # which fits no batch
    with pytest.raises(RuntimeError):
        learn.fit(1)
    assert set(vars(system)) == before
    copy.deepcopy(system)


def test_batches_of_any_form_reach_the_step_as_they_came():
    class Look(nn.Linear):
        def training_step(self, batch, batch_idx):
            seen.append((batch, batch_idx))
            return self.weight.sum()

    x = torch.randn(2, 4)
    for batch in (x, (x, x), [x, x], {"image": x, "label": x}, (x, x, x)):
        seen = []
        learn = Learner(DataBunch([batch], device="cpu"), Look(4, 3))
        learn.progress.table = False
        learn.fit(1)
        assert type(seen[0][0]) is type(batch) and seen[0][1] == 0
        torch.testing.assert_close(seen[0][0], batch)


def test_a_step_that_returns_none_skips_its_batch():
    class Skips(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if batch_idx % 2 else None

    learn = make_learn(Skips())
    learn.fit(1)
    assert learn.n_steps == len(learn.recorder.losses) == 2


def test_hooks_are_called_in_lightnings_order():
    class Hooked(Classifier):
        def __getattr__(self, name):
            if name.startswith("on_"):
                return lambda *args: called.append(name)
            return super().__getattr__(name)

    called = []
    make_learn(Hooked()).fit(1, cbs=[])
    assert called[:5] == ["on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start",
                          "on_after_backward"]  # fmt: skip
    assert called[5:8] == ["on_before_optimizer_step", "on_before_zero_grad", "on_train_batch_end"]
    assert called[-3:] == ["on_validation_end", "on_train_end", "on_fit_end"]
    assert called.count("on_train_batch_start") == 4 and called.count("on_validation_batch_end") == 3
    called.clear()
    make_learn(Hooked()).get_preds()
    assert called == []


def test_it_reads_its_trainer():
    class Reads(WithOptimizer):
        def training_step(self, batch, batch_idx):
            trainer = self.trainer
            facts.append((trainer.current_epoch, trainer.global_step, trainer.max_epochs, trainer.num_training_batches))
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            totals.append(self.trainer.estimated_stepping_batches)
            return super().configure_optimizers()

    facts, totals = [], []
    learn = make_learn(Reads())
    learn.fit(2)
    assert facts[0] == (0, 0, 2, 4) and facts[-1] == (1, 7, 2, 4) and totals == [8]

    class Asks(Classifier):
        def training_step(self, batch, batch_idx):
            return self.trainer.strategy

    with pytest.raises(AttributeError, match="unlike a Trainer, has no 'strategy'"):
        make_learn(Asks()).fit(1)


# ---- with callbacks


CBS = [EMA(0.5), SAM(), GradientClip(), GradientAccumulation(16), MixedPrecision(torch.bfloat16), MixedPrecision(),
       ValidateEvery(3)]  # fmt: skip


@pytest.mark.filterwarnings("ignore:This CPU has no", "ignore:EMA")
@pytest.mark.parametrize("cb", CBS, ids=repr)
def test_callbacks_do_for_a_system_what_they_do_for_a_model(cb):
    system, plain = make_learn(Classifier()), make_learn(Classifier().net, loss_func=nn.CrossEntropyLoss())
    system.fit(2, 0.01, cbs=cb)
    plain.fit(2, 0.01, cbs=copy.deepcopy(cb))
    torch.testing.assert_close(system.recorder.losses, plain.recorder.losses)
    torch.testing.assert_close(list(system.model.net.parameters()), list(plain.model.parameters()))


def test_what_needs_a_loss_function_says_so():
    with pytest.raises(ValueError, match="the learner needs a loss_func"):
        make_learn(Classifier()).fit(1, cbs=MixUp())
    with pytest.raises(TypeError, match="measures itself: call self"):
        make_learn(Classifier(), metrics=lambda pred, targ: pred.mean())


def test_a_system_without_validation_is_not_validated():
    class NoValidation(nn.Linear):
        def training_step(self, batch, batch_idx):
            return self(batch[0]).square().mean()

    learn = make_learn(NoValidation(4, 2))
    learn.fit(1)
    assert "valid_loss" not in learn.recorder.history
    with pytest.raises(ValueError, match="NoValidation has no validation_step"):
        learn.validate()


def test_files_of_a_system_hold_all_its_optimizers(tmp_path):
    learn = make_learn(Adversarial(), valid=False, path=tmp_path)
    learn.fit(2)
    learn.save("both")
    other = make_learn(Adversarial(), valid=False, path=tmp_path).load("both")
    learn.fit(1)
    other.fit(1)
    assert other.recorder.losses == learn.recorder.losses[8:]


# ---- optimizers of its own


def test_several_optimizers_are_stepped_by_hand_as_written_out():
    learn = make_learn(Adversarial(), valid=False)
    learn.fit(2)
    assert isinstance(learn.opt, SeveralOptimizers) and learn.n_steps == 16
    model = Adversarial()
    (gen_opt, critic_opt), _ = model.configure_optimizers()
    for x, _ in [*loader(), *loader()]:
        critic_opt.zero_grad()
        (model.critic(model.generator(torch.ones(8, 2)).detach()) - model.critic(x)).mean().backward()
        critic_opt.step()
        gen_opt.zero_grad()
        (-model.critic(model.generator(torch.ones(8, 2))).mean()).backward()
        gen_opt.step()
    torch.testing.assert_close(list(learn.model.parameters()), list(model.parameters()))
    assert set(learn.recorder.history) == {"epoch", "train_loss", "critic_loss", "gen_loss", "time"}


def test_the_learning_rate_finder_counts_a_batch_of_a_system_that_steps_by_hand():
    learn = make_learn(Adversarial(), valid=False)
    before = copy.deepcopy(learn.model.state_dict())
    (suggested,) = learn.lr_find(1e-4, 1e-1, num_it=10, stop_div=False, show_plot=False)
    assert learn.recorder.lr_finder.lrs == pytest.approx([1e-4 * 10 ** (i / 3) for i in range(10)])
    assert suggested in learn.recorder.lr_finder.lrs and learn.opt is None
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())


def test_steps_by_hand_are_announced_with_the_optimizer_that_steps():
    class Who(Callback):
        def before_step(self, learn):
            stepping.append(type(learn.opt).__name__)

    stepping = []
    make_learn(Adversarial(), valid=False).fit(1, cbs=[Who(), GradientClip(0.1), EMA(0.5)])
    assert stepping == ["SGD", "Adam"] * 4


@pytest.mark.parametrize("cb", [GradientAccumulation(16), SAM()])
def test_callbacks_that_change_the_step_refuse_systems_that_step_by_hand(cb):
    with pytest.raises(ValueError, match=r"Adversarial steps its optimizers by itself .* do it in its training_step"):
        make_learn(Adversarial(), valid=False).fit(1, cbs=cb)


class Forms(Classifier):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def configure_optimizers(self):
        opt = torch.optim.SGD(self.parameters(), lr=0.4)
        halving = ExponentialLR(opt, 0.5)
        return {
            "two lists": ([opt], [halving]),
            "dict": {"optimizer": opt, "lr_scheduler": halving},
            "by step": {"optimizer": opt, "lr_scheduler": {"scheduler": halving, "interval": "step", "frequency": 2}},
            "list of dicts": [{"optimizer": opt, "lr_scheduler": {"scheduler": halving, "interval": "epoch"}}],
            "plateau": {
                "optimizer": opt, "monitor": "double_loss", "lr_scheduler": TorchPlateau(opt, "max", 0.5, patience=0),
            },
        }[self.form]  # fmt: skip


@pytest.mark.parametrize("form, rates", [("two lists", [0.4] * 4 + [0.2] * 4), ("dict", [0.4] * 4 + [0.2] * 4),
                                         ("by step", [0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05]),
                                         ("list of dicts", [0.4] * 4 + [0.2] * 4)])  # fmt: skip
def test_schedulers_in_every_form_are_stepped_when_they_ask(form, rates):
    learn = make_learn(Forms(form))
    learn.fit(2)
    assert learn.recorder.lrs == pytest.approx(rates)


def test_a_scheduler_that_monitors_gets_what_it_names():
    learn = make_learn(Forms("plateau"))
    learn.fit(3)  # the monitored loss falls, which is worse for mode "max"
    assert learn.recorder.lrs[::4] == pytest.approx([0.4, 0.4, 0.2])


def test_a_schedule_of_the_fit_replaces_its_own():
    learn = make_learn(Forms("two lists"))
    learn.fit_flat_cos(2, 0.01)
    assert max(learn.recorder.lrs) == 0.01


class OptimizersSeen(Callback):
    """The learning rate and momentum of each parameter group before each batch is done."""

    def __init__(self):
        self.rates, self.momenta = [], []

    def after_batch(self, learn):
        groups = learn.opt.param_groups
        self.rates.append(tuple(group["lr"] for group in groups))
        self.momenta.append(tuple(group["betas"][0] if "betas" in group else group["momentum"] for group in groups))


def test_each_optimizer_has_a_schedule_from_its_own_rate():
    learn = make_learn(Adversarial(), valid=False)
    learn.fit_one_cycle(2, cbs=(seen := OptimizersSeen()))
    gen, critic = zip(*seen.rates, strict=True)
    assert max(gen) == pytest.approx(1e-2) and gen[0] == pytest.approx(1e-2 / 25)
    assert critic == pytest.approx([2 * lr for lr in gen])
    learn.fit_flat_cos(1, cbs=(seen := OptimizersSeen()))
    assert seen.rates[0] == pytest.approx((1e-2, 2e-2))


def test_rates_may_be_given_for_each_optimizer():
    learn = make_learn(Adversarial(), valid=False)
    learn.fit(1, [0.3, 0.4], cbs=(seen := OptimizersSeen()))
    assert set(seen.rates) == {(0.3, 0.4)}
    learn.fit_one_cycle(2, [0.3, 0.4], cbs=(seen := OptimizersSeen()))
    assert max(seen.rates) == pytest.approx((0.3, 0.4))
    learn.fit(1, 0.5, cbs=(seen := OptimizersSeen()))
    assert set(seen.rates) == {(0.5, 0.5)}
    with pytest.raises(ValueError, match="lr has 3 values for 2 layer groups"):
        learn.fit(1, [1, 2, 3])


def test_momentum_stays_as_configured_unless_it_is_given():
    learn = make_learn(Adversarial(), valid=False)
    learn.fit_one_cycle(2, cbs=(seen := OptimizersSeen()))
    assert set(seen.momenta) == {(0.9, 0.0)}
    learn.fit_one_cycle(2, moms=(0.8, 0.5, 0.8), cbs=(seen := OptimizersSeen()))  # of Adam and of SGD
    assert seen.momenta[0] == pytest.approx((0.8, 0.8)) and min(seen.momenta) == pytest.approx((0.5, 0.5))
    assert learn.opt.param_groups[0]["betas"][0] == 0.9 and learn.opt.param_groups[1]["momentum"] == 0


def test_only_what_is_toggled_gets_gradients_and_what_is_frozen_stays_frozen():
    class Toggles(Adversarial):
        def training_step(self, batch, batch_idx):
            gen_opt, _ = self.optimizers()
            self.toggle_optimizer(gen_opt)
            self.manual_backward(self.critic(self.generator(torch.ones(8, 2))).mean())
            grads.append((self.generator.weight.grad, self.generator.bias.grad, self.critic.weight.grad))
            if len(grads) == 2:
                raise ZeroDivisionError
            self.untoggle_optimizer(gen_opt)
            trains.append([name for name, p in self.named_parameters() if p.requires_grad])

    grads, trains = [], []
    learn = make_learn(Toggles(), valid=False)
    learn.model.generator.bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError):
        learn.fit(1)
    assert [grad is None for grad in grads[0]] == [False, True, True]
    expected = ["generator.weight", "critic.weight", "critic.bias"]
    assert trains == [expected]
    assert [name for name, p in learn.model.named_parameters() if p.requires_grad] == expected


def test_anything_else_than_an_optimizer_is_refused_by_what_is_usual():
    assert configured_optimizers(None) == (None, [])
    opt = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    assert configured_optimizers([opt])[0] is opt
    with pytest.raises(TypeError, match="It returns an optimizer, a list of them, two lists"):
        configured_optimizers({"optimiser": opt})
    with pytest.raises(TypeError, match="no LRScheduler"):
        configured_optimizers(([opt], ["StepLR"]))
    assert isinstance(configured_optimizers(([opt], [StepLR(opt, 1)]))[1][0], TorchScheduler)


def test_a_graph_can_be_kept_for_a_second_backward_pass():
    class Twice(Adversarial):
        def training_step(self, batch, batch_idx):
            loss = self.critic(batch[0]).square().mean()
            _, opt = self.optimizers()
            opt.zero_grad()
            self.manual_backward(loss, retain_graph=True)
            self.manual_backward(loss)
            grads.append(self.critic.weight.grad.clone())

    grads = []
    learn = make_learn(Twice(), valid=False)
    learn.fit(1)
    x, _ = next(iter(loader()))
    model = Adversarial()
    (once,) = torch.autograd.grad(model.critic(x).square().mean(), model.critic.weight)
    torch.testing.assert_close(grads[0], 2 * once)


def test_what_is_logged_is_averaged_and_nothing_else():
    class Sums(Classifier):
        def training_step(self, batch, batch_idx):
            self.log("n", 1.0, reduce_fx="sum")

    with pytest.raises(ValueError, match=r"reduce_fx='sum'\): what is logged is averaged"):
        make_learn(Sums()).fit(1)


# ---- Lightning's own modules


@pytest.fixture
def demos():
    return pytest.importorskip("lightning.pytorch.demos", reason="lightning is a dependency of development")


@pytest.mark.parametrize("name", ["BoringModel", "ManualOptimBoringModel"])
def test_lightnings_boring_model_trains_to_what_lightning_makes_of_it(demos, name, tmp_path):
    import lightning.pytorch as pl
    from lightning.pytorch.demos import boring_classes

    def parts():
        torch.manual_seed(0)
        dataset = boring_classes.RandomDataset(32, 16)
        return getattr(boring_classes, name)(), DataLoader(dataset, 4), DataLoader(dataset, 4)

    model, train, valid = parts()
    trainer = pl.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(model, train, valid)
    theirs = model
    model, train, valid = parts()
    learn = Learner(DataBunch(train, valid, device="cpu"), model)
    learn.progress.table = False
    learn.fit(3)
    torch.testing.assert_close(learn.model.state_dict(), theirs.state_dict())


def test_lightnings_transformer_learns_a_sequence(demos):
    torch.manual_seed(0)
    tokens = (torch.arange(9) + torch.arange(24)[:, None]).remainder(12).view(12, 2, 9)
    data = DataBunch([(t[:1, :-1], t[:1, 1:]) for t in tokens], device="cpu")
    learn = Learner(data, demos.LightningTransformer(vocab_size=12))
    learn.progress.table = False
    learn.fit(6, cbs=[GradientClip(), EMA(0.5), GradientAccumulation(2)])
    losses = learn.recorder.history["train_loss"]
    assert losses.iloc[-1] < losses[0] / 2
