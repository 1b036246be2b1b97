"""A GAN as a system: one network moves at a time, and what training does is what is written out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from warmstart.callbacks import EMA, Callback, GradientAccumulation, GradientClip
from warmstart.vision.gan import (
    FixedGANSwitcher,
    GradientPenalty,
    Hinge,
    NonSaturating,
    Wasserstein,
    basic_critic,
    basic_generator,
)

pytestmark = pytest.mark.filterwarnings("ignore:EMA", "ignore:This CPU has no")


class Watch(Callback):
    """What both networks hold before and after each batch, and whose optimizer has stepped."""

    order = 90

    def __init__(self, states):
        self.states, self.stepped, self.moved = states, [], []

    def before_batch(self, learn):
        self.before = {name: self.states(getattr(learn.model, name)) for name in ("generator", "critic")}
        self.now = []

    def after_step(self, learn):
        own = {id(p) for group in learn.opt.param_groups for p in group["params"]}
        self.now.append(
            next(n for n in ("generator", "critic") if id(next(getattr(learn.model, n).parameters())) in own)
        )

    def after_batch(self, learn):
        if learn.training:
            self.stepped.append(tuple(self.now))
            after = {name: self.states(getattr(learn.model, name)) for name in self.before}
            self.moved.append(
                {n for n in after if any(not torch.equal(after[n][k], v) for k, v in self.before[n].items())}
            )
            assert all(p.grad is None for p in learn.model.parameters())


@pytest.mark.parametrize("norm", ["batch", "spectral"])
@pytest.mark.parametrize("opt_func", [Adam, lambda params, lr: SGD(params, lr, momentum=0.9, weight_decay=0.1)])
def test_the_other_network_does_not_move_to_the_bit(learner, states, norm, opt_func):
    watch = Watch(states)
    learn = learner(FixedGANSwitcher(3, 2), norm=norm, opt_func=opt_func)
    learn.fit(3, cbs=[EMA(0.5), GradientClip(1), watch])
    assert watch.stepped == ([("critic",)] * 3 + [("generator",)] * 2) * 2 + [("critic",)] * 2
    assert watch.moved == [set(stepped) for stepped in watch.stepped]


def test_without_a_switcher_both_learn_from_every_batch(learner, states):
    watch = Watch(states)
    learner().fit(1, cbs=watch)
    assert watch.stepped == [("critic", "generator")] * 4


def test_training_is_what_is_written_out(learner, data):
    learn = learner(FixedGANSwitcher(2, 1), loss=NonSaturating(), lr=(1e-2, 3e-2))
    batches = [batch for epoch in range(3) for batch in epoch_of(learn, epoch)]
    learn.fit(3)
    gan = learner(loss=NonSaturating()).model
    gen, critic = gan.generator, gan.critic
    gen_opt, critic_opt = Adam(gen.parameters(), 1e-2, (0.5, 0.999)), Adam(critic.parameters(), 3e-2, (0.5, 0.999))
    losses = []
    for number, (noise, real) in enumerate(batches):
        statistics = {name: value.clone() for name, value in gen.named_buffers()}
        fake = gen(noise)
        if number % 3 < 2:
            loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
            gen.load_state_dict(statistics, strict=False)
        else:
            loss = F.softplus(-critic(fake)).mean()
        gen_opt.zero_grad(), critic_opt.zero_grad()
        loss.backward()
        (critic_opt if number % 3 < 2 else gen_opt).step()
        losses.append(loss.item())
    assert learn.recorder.losses == pytest.approx(losses, rel=1e-4)
    torch.testing.assert_close(learn.model.state_dict(), gan.state_dict(), rtol=1e-4, atol=1e-5)


def epoch_of(learn, epoch):
    learn.data.train_dl.set_epoch(epoch)
    batches = list(learn.data.train_dl)
    learn.data.train_dl.set_epoch(0)
    return batches


def test_a_likeness_is_added_by_its_weight(learner):
    learn = learner(likeness=F.l1_loss, weights_gen=(0.0, 2.0))
    noise, real = learn.data.one_batch()
    learn.data.train_dl.limit = 1
    learn.fit(1)
    learn.model.train()
    expected = 2 * F.l1_loss(learner().model.generator(noise), real)
    assert learn.recorder.history["gen_loss"][0] == pytest.approx(expected.item(), rel=1e-5)


def test_clipped_weights_stay_within(learner):
    learn = learner(FixedGANSwitcher(2), loss=Wasserstein(), clip=0.01, lr=0.1)
    before = [p.abs().max().item() for p in learn.model.generator.parameters()]
    learn.fit(1)
    assert max(p.abs().max().item() for p in learn.model.critic.parameters()) <= 0.01 + 1e-9
    assert max(p.abs().max().item() for p in learn.model.generator.parameters()) > 0.01 and max(before) > 0.01


def test_history_has_a_column_for_each_loss(learner):
    learn = learner(metrics=F.l1_loss)
    learn.fit(2)
    assert list(learn.recorder.history) == ["epoch", "train_loss", "critic_loss", "gen_loss", "valid_loss",
                                            "valid_critic_loss", "l1_loss", "time"]  # fmt: skip
    noise, real = (torch.cat(values) for values in zip(*learn.data.valid_dl, strict=True))
    learn.model.eval()
    with torch.no_grad():
        fake = learn.model(noise)
        row = learn.recorder.history.iloc[-1]
        assert row["l1_loss"] == pytest.approx(F.l1_loss(fake, real).item(), rel=1e-5)
        assert row["valid_loss"] == pytest.approx(Hinge().generator(learn.model.critic(fake)).item(), rel=1e-4)
    assert learn.validate()["l1_loss"] == pytest.approx(row["l1_loss"])


def test_a_network_that_is_frozen_has_no_turn(learner, states):
    watch = Watch(states)
    learn = learner(FixedGANSwitcher(2, 1))
    learn.freeze_to(1)  # the generator's layer group comes first
    learn.fit(2, cbs=watch)
    assert watch.stepped == [("critic",)] * 8 and watch.moved == [{"critic"}] * 8
    learn.unfreeze()
    learn.fit(1, cbs=(watch := Watch(states)))
    assert watch.stepped == [("critic",), ("critic",), ("generator",), ("critic",)]


def test_frozen_layers_stay_frozen_and_get_no_gradients(learner, states):
    learn = learner()
    for p in learn.model.critic[0].parameters():
        p.requires_grad_(False)
    before = states(learn.model.critic[0])
    learn.fit(1)
    assert all(torch.equal(value, before[name]) for name, value in learn.model.critic[0].state_dict().items())
    assert not any(p.requires_grad for p in learn.model.critic[0].parameters())
    assert all(p.requires_grad for p in learn.model.generator.parameters())


def test_a_step_that_fails_leaves_what_trains_as_it_was(learner):
    class Fails(Hinge):
        def generator(self, fake):
            raise RuntimeError("no opinion")

    learn = learner(loss=Fails())
    with pytest.raises(RuntimeError, match="no opinion"):
        learn.fit(1)
    assert all(p.requires_grad for p in learn.model.parameters())


# ---- what does not fit


def test_images_of_another_size_are_refused(data, learner):
    learn = learner()
    learn.model.generator = basic_generator(32, 1, in_sz=4, n_features=2)
    with pytest.raises(ValueError, match=r"of shape \(1, 32, 32\) and the real ones are \(1, 16, 16\)"):
        learn.fit(1)


@pytest.mark.parametrize("batch", [torch.zeros(2, 4), [torch.zeros(2, 4)], {"x": torch.zeros(2, 4)}])
def test_batches_without_inputs_are_refused(learner, batch):
    with pytest.raises(ValueError, match="A GAN's batch is"):
        learner().model.training_step(batch, 0)


def test_batch_norm_under_a_gradient_penalty_is_refused(learner):
    with pytest.raises(ValueError, match="BatchNorm makes an image's score depend on the others"):
        learner(norm="batch", penalty=GradientPenalty())


def test_a_network_without_parameters_is_refused(data):
    from warmstart.vision.gan import GANLearner

    with pytest.raises(ValueError, match="Flatten has no parameter that trains"):
        GANLearner.from_models(data, basic_generator(16, 1, 4), nn.Flatten(), Hinge())
    with pytest.raises(ValueError, match="clip=0"):
        GANLearner.wgan(data, basic_generator(8, 1, 4), basic_critic(8, 1), clip=0)


def test_accumulation_says_that_a_system_steps_by_itself(learner):
    with pytest.raises(ValueError, match="steps its optimizers by itself"):
        learner().fit(1, cbs=GradientAccumulation(16))
