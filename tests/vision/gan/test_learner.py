"""Recipes of GANs with all that a learner does: schedules, precision, averages, files, samples."""

import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from warmstart.callbacks import EMA, SWA, Callback
from warmstart.data import CategoryBlock, DataBlock, DataBunch, IndexSplitter
from warmstart.learner import L1Loss, Learner, load_learner, set_seed
from warmstart.vision.gan import (
    GAN,
    R1,
    AdaptiveGANSwitcher,
    AdaptiveLoss,
    FixedGANSwitcher,
    GANLearner,
    Hinge,
    ImageBlock,
    LeastSquares,
    NoiseBlock,
    NonSaturating,
    Normalize,
    Wasserstein,
    critic_accuracy,
    gan_critic,
)

pytestmark = pytest.mark.filterwarnings("ignore:EMA", "ignore:This CPU has no")


class Rates(Callback):
    """The learning rates of (generator, critic) in each batch."""

    def __init__(self):
        self.seen = []

    def after_batch(self, learn):
        if learn.training:
            self.seen.append(tuple(group["lr"] for group in learn.opt.param_groups))


def two_numbers(loss, n_epoch=60, lr=2e-2, **options):
    """How far the mean of what a linear generator makes is from that of points around (2, −1), before and after."""
    set_seed(0)
    x = torch.tensor([2.0, -1]) + 0.3 * torch.randn(64, 2)
    data = DataBunch([(torch.randn(16, 3), batch) for batch in x.split(16)], device="cpu")
    critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    learn = GANLearner.from_models(data, nn.Linear(3, 2), critic, loss, lr=lr, **options)
    learn.progress.table = False

    def distance():
        return (learn.model(torch.randn(500, 3)).mean(0) - x.mean(0)).norm().item()

    before = distance()
    learn.fit(n_epoch)
    return before, distance()


LOSSES = {
    "Wasserstein, clipped": {"loss": Wasserstein(), "clip": 0.1},
    "Wasserstein, penalised": {"loss": Wasserstein(), "penalty": R1(1.0)},
    "hinge": {"loss": Hinge()},
    "least squares": {"loss": LeastSquares()},
    "non-saturating": {"loss": NonSaturating()},
}


@pytest.mark.parametrize("options", LOSSES.values(), ids=LOSSES.keys())
def test_with_every_loss_what_is_made_comes_to_what_is_real(options):
    before, after = two_numbers(**options)
    assert before > 1.5 and after < 0.6


# ---- recipes


def test_wgan_clips_and_has_5_steps_of_the_critic_to_one(data, networks):
    learn = GANLearner.wgan(data, *networks("batch"))
    assert learn.model.clip == 0.01 and learn.model.loss == Wasserstein()
    (switcher,) = [cb for cb in learn.cbs if isinstance(cb, FixedGANSwitcher)]
    assert (switcher.n_crit, switcher.n_gen) == (5, 1)
    learn.progress.table = False
    learn.fit(2, 1e-4)
    assert learn.n_steps == 8 and {group["lr"] for group in learn.opt.param_groups} == {1e-4}


def test_wgan_gp_lowers_the_slope_of_a_steep_critic(data, networks):
    learn = GANLearner.wgan_gp(data, *networks(), lr=1e-2)
    learn.progress.table = False
    with torch.no_grad():
        for p in learn.model.critic.parameters():
            p.mul_(20)
    _, real = data.one_batch()
    before = learn.model.penalty(learn.model.critic, real, real).item()
    learn.fit(6)
    assert learn.model.penalty(learn.model.critic, real, real).item() < before / 5


def test_a_learner_of_images_and_one_of_criticism_train_together(data, tmp_path):
    """A generator that brightens dark images, and a critic that has seen both kinds before."""
    set_seed(0)
    images = list(data.train_ds.items)
    pairs = DataBlock((ImageBlock("L"), ImageBlock("L")), get_x=dark, get_y=bright, splitter=IndexSplitter(range(8)),
                      batch_tfms=Normalize((0.1,), (0.3,)))  # fmt: skip
    gen_learn = Learner(pairs.databunch(images, bs=8, seed=0, device="cpu"), nn.Conv2d(1, 1, 3, padding=1),
                        L1Loss(), lr=3e-2)  # fmt: skip
    kinds = DataBlock((ImageBlock("L"), CategoryBlock(["made", "real"])), splitter=IndexSplitter(range(8)))
    both = [pair for image in images for pair in ((dark(image), "made"), (image, "real"))]
    critic = nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4), nn.Flatten())
    critic_learn = Learner(kinds.databunch(both, bs=8, seed=0, device="cpu"), critic,
                           AdaptiveLoss(nn.BCEWithLogitsLoss()), lr=1e-2, metrics=critic_accuracy)  # fmt: skip
    for learn, n_epoch, lr in ((gen_learn, 1, 1e-3), (critic_learn, 15, 3e-2)):
        learn.progress.table = False
        learn.fit(n_epoch, lr)
    assert critic_learn.validate()["critic_accuracy"] > 0.7
    learn = GANLearner.from_learners(gen_learn, critic_learn, AdaptiveGANSwitcher(critic_thresh=0.65), (0.1, 5.0))
    learn.progress.table = False
    before = learn.validate()["valid_loss"]
    learn.fit(8, cbs=(rates := Rates()))
    assert learn.validate()["valid_loss"] < 0.7 * before and set(rates.seen) == {(3e-2, 1e-2)}
    assert learn.predict(images[0]).decoded.shape == (1, 16, 16) and learn.sample(3).shape == (3, 1, 16, 16)
    learn.show_results()
    plt.close("all")
    custom = {"GAN": learn.model, "dark": dark, "bright": bright}
    loaded = load_learner(learn.export(tmp_path / "brighter.pt"), custom=custom)
    torch.testing.assert_close(loaded.predict(images[0]).decoded, learn.predict(images[0]).decoded)
    with pytest.raises(ValueError, match=r"has to be given: learn.predict\(item\)"):
        loaded.sample(3)


def dark(image):
    return (image // 2).to(torch.uint8)


def bright(image):
    return image


# ---- each optimizer has a schedule of its own


def test_a_fit_goes_by_the_rates_of_each_network(learner):
    learn = learner(lr=(1e-3, 4e-3))
    learn.fit(1, cbs=(rates := Rates()))
    assert set(rates.seen) == {(1e-3, 4e-3)}
    learn.fit(1, [0.1, 0.2], cbs=(rates := Rates()))
    assert set(rates.seen) == {(0.1, 0.2)}
    learn.fit(1, 0.3, cbs=(rates := Rates()))
    assert set(rates.seen) == {(0.3, 0.3)}
    learn.fit(1, cbs=(rates := Rates()))
    assert set(rates.seen) == {(1e-3, 4e-3)}


def test_one_cycle_peaks_at_the_rate_of_each_and_leaves_momentum_alone(learner):
    learn = learner(lr=(1e-3, 4e-3))
    learn.fit_one_cycle(3, cbs=(rates := Rates()))
    gen, critic = (torch.tensor(values) for values in zip(*rates.seen, strict=True))
    assert gen.max().item() == pytest.approx(1e-3) and gen[0].item() == pytest.approx(1e-3 / 25)
    torch.testing.assert_close(critic, 4 * gen)
    assert {group["betas"] for group in learn.opt.param_groups} == {(0.5, 0.999)}
    learn.fit_one_cycle(3, [2e-3, 1e-3], cbs=(rates := Rates()))
    assert max(rates.seen) == pytest.approx((2e-3, 1e-3))


def test_layer_groups_of_both_networks_are_counted_through(data, networks):
    generator, critic = networks()
    splitters = lambda g: [list(g[:4].parameters()), list(g[4:].parameters())], lambda c: list(c.parameters())
    gan = GAN(generator, critic, Hinge(), lr=([1e-4, 1e-3], 1e-2), splitters=splitters)
    learn = GANLearner(data, gan, splitter=GAN.layer_groups)
    learn.progress.table = False
    learn.fit(1, cbs=(rates := Rates()))
    assert set(rates.seen) == {(1e-4, 1e-3, 1e-2)} and len(learn.groups) == 3
    learn.fit(1, [1, 2, 3], cbs=(rates := Rates()))
    assert set(rates.seen) == {(1, 2, 3)}
    with pytest.raises(ValueError, match="lr has 2 values for 3 layer groups"):
        learn.fit(1, [1, 2])


def test_lr_find_says_why_not(learner):
    with pytest.raises(ValueError, match="do not fall as it learns"):
        learner().lr_find()


# ---- precision, averages


def test_bf16_trains_with_a_penalty_and_keeps_weights_in_float32(data, networks):
    learn = GANLearner.wgan_gp(data, *networks(), FixedGANSwitcher(2), lr=1e-3).to_bf16()
    other = GANLearner.wgan_gp(data, *networks(), FixedGANSwitcher(2), lr=1e-3)
    for one in (learn, other):
        one.progress.table = False
        set_seed(5)
        one.fit(2)
    assert {p.dtype for p in learn.model.parameters()} == {torch.float32}
    history, expected = learn.recorder.history, other.recorder.history
    torch.testing.assert_close(torch.tensor(history["critic_loss"]), torch.tensor(expected["critic_loss"]), rtol=0.1,
                               atol=0.1)  # fmt: skip
    assert learn.sample(2).dtype == torch.float32


def test_fp16_scales_the_loss_of_each_network(learner):
    learn = learner(FixedGANSwitcher(2), loss=LeastSquares()).to_fp16()
    before = [p.detach().clone() for p in learn.model.parameters()]
    learn.fit(2)
    moved = [not torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True)]
    assert all(moved) and all(p.isfinite().all() for p in learn.model.parameters())


def test_swa_renews_the_statistics_of_the_generator(learner):
    learn = learner(lr=1e-2)
    learn.fit(4, cbs=SWA(0.5))
    layer = next(m for m in learn.model.generator.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        noise = [noise for noise, _ in epoch_of(learn.data, 4)]
        means = [learn.model.generator[:2](batch).mean((0, 2, 3)) for batch in noise]
    torch.testing.assert_close(layer.running_mean, torch.stack(means).mean(0), rtol=1e-3, atol=1e-5)


def epoch_of(data, epoch):
    data.train_dl.set_epoch(epoch)
    return list(data.train_dl)


def test_samples_are_of_the_averaged_generator_after_and_between_epochs(learner, states):
    class Between(Callback):
        order = 80

        def after_epoch(self, learn):
            seen.append(learn.sample(2))

    class Follow(Callback):
        """The average written out."""

        order = 60

        def before_fit(self, learn):
            self.average = states(learn.model.generator)

        def after_step(self, learn):
            for name, value in learn.model.generator.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 0.1)

    seen, follow = [], Follow()
    learn = learner(lr=1e-2)
    learn.fit(2, cbs=[EMA(0.9), follow, Between()])
    for name, value in learn.model.generator.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, follow.average[name])
    torch.testing.assert_close(learn.sample(2), seen[-1])
    assert not torch.equal(seen[0], seen[1])


# ---- what it makes


def test_samples_are_images_by_their_seed(learner):
    learn = learner()
    images = learn.sample(5, seed=1)
    assert images.shape == (5, 1, 16, 16) and images.min() >= 0 and images.max() <= 1
    torch.testing.assert_close(learn.sample(20, seed=1)[:5], images)
    assert not torch.equal(learn.sample(5, seed=2), images)
    expected = (learn.model.eval()(NoiseBlock(4).noise(5, 1)) + 1) / 2
    torch.testing.assert_close(images, expected.detach())
    assert learn.model.training is False


def test_get_preds_and_predict_generate(learner):
    learn = learner()
    preds, targs = learn.get_preds()
    assert preds.shape == targs.shape == (8, 1, 16, 16)
    assert learn.predict(None).decoded.shape == (1, 16, 16)


def test_images_come_to_the_range_of_a_tanh(learner, networks):
    learn = learner()
    assert learn.data.one_batch()[1].aminmax() == (-1, 1)
    block = DataBlock((NoiseBlock(4), ImageBlock("L")), splitter=IndexSplitter([0]),
                      batch_tfms=Normalize((0.1,), (0.3,), targets=True))  # fmt: skip
    own = block.databunch(learn.data.train_ds.items, bs=4, device="cpu")
    assert GANLearner.from_models(own, *networks(), Hinge()).data.batch_tfms == own.batch_tfms
    idle = own.with_batch_tfms([*own.batch_tfms[:-1], Normalize((0.1,), (0.3,))])  # for a first value that is an image
    assert GANLearner.from_models(idle, *networks(), Hinge()).data.one_batch()[1].aminmax() == (-1, 1)
    generator, critic = networks()
    assert GANLearner.from_models(own.with_batch_tfms([]), generator[:-1], critic, Hinge()).data.batch_tfms == []


def test_show_results_draws_made_images(learner):
    learner().show_results(6)
    assert len(plt.gcf().axes) == 6
    learner().data.show_batch()
    plt.close("all")


def test_data_without_blocks_cannot_say_how_images_look():
    data = DataBunch([(torch.randn(4, 3), torch.randn(4, 2))], device="cpu")
    learn = GANLearner.from_models(data, nn.Linear(3, 2), nn.Linear(2, 1), Hinge())
    with pytest.raises(ValueError, match="use a DataBlock"):
        learn.sample()


def test_summary_and_files(learner, tmp_path):
    learn = learner(path=tmp_path)
    learn.fit(1)
    learn.save("gan")
    other = learner(path=tmp_path, lr=1).load("gan")
    torch.testing.assert_close(other.sample(3), learn.sample(3), rtol=0, atol=0)
    assert "BatchNorm2d" in str(learn.summary())
    learn.export()
    loaded = load_learner(tmp_path / "export.pt", custom={"GAN": learner().model})
    torch.testing.assert_close(loaded.predict(None).decoded, learn.predict(None).decoded)
    torch.testing.assert_close(loaded.sample(3), learn.sample(3), rtol=0, atol=0)


def test_a_patch_critic_takes_real_photos_size():
    critic = gan_critic(3, nf=4)
    assert critic(torch.rand(1, 3, 96, 96)).shape == (1, 9)
    loss = AdaptiveLoss(nn.BCEWithLogitsLoss())
    assert loss(critic(torch.rand(2, 3, 64, 64)), torch.tensor([0, 1])).ndim == 0
