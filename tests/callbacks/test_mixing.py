"""MixUp and CutMix beside what their papers say, worked out from the blended inputs themselves."""

import copy
import math
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from warmstart.callbacks import (
    SAM,
    Callback,
    CancelBackward,
    CancelBatch,
    CancelFit,
    CutMix,
    GradientAccumulation,
    MixUp,
    ValidateEvery,
)
from warmstart.data import DataBunch
from warmstart.learner import SGD, CrossEntropyLoss, Learner, MSELoss, accuracy

N = 6  # samples in a batch


def one_hot_images(n_batches=2, n_targets=1, height=5, width=7):
    """Batches of `N` images, each of which is 1 in a channel of its own: a blend shows how much of whom is in it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.eye(N)[:, :, None, None].expand(N, N, height, width)
    targets = [[torch.randint(0, 3, (N,), generator=generator) for _ in range(n_targets)] for _ in range(n_batches)]
    return [(images, *ys) for ys in targets]


def make_learn(batches, loss_func=None, valid=None, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(batches[0][0][0].numel(), 3))
    data = DataBunch(batches, valid, device="cpu")
    learn = Learner(data, model, nn.CrossEntropyLoss() if loss_func is None else loss_func, **kwargs)
    learn.progress.bar = learn.progress.table = False
    return learn


class Watch(Callback):
    """Keeps what the model got and gave, and the loss."""

    order = 100

    def __init__(self):
        self.seen = []

    def after_loss(self, learn):
        kept = (value.detach().clone() for value in (learn.xb[0], learn.pred, learn.loss))
        self.seen.append((learn.training, *kept))


def watched(learn, *cbs, n_epoch=1):
    """Inputs, predictions and losses of the training batches of a fit with `cbs`."""
    watch = Watch()
    learn.fit(n_epoch, 0.1, cbs=[*cbs, watch])
    return [rest for training, *rest in watch.seen if training]


def weighted_loss(loss_func, images, pred, *ys):
    """Each sample's loss with each target of the batch, as much as there is of its image in the blend."""
    weights = images.mean((2, 3))
    pairs = [(i, j) for i in range(N) for j in range(N)]
    return sum(weights[i, j] * loss_func(pred[i : i + 1], *(y[j : j + 1] for y in ys)) for i, j in pairs) / N


def distance(pred, targ):
    """A loss of one's own."""
    return (pred[:, 0] - targ).abs().mean()


def to_one_hot(pred, targ):
    return MSELoss()(pred, F.one_hot(targ, 3).float())


# ---- the blend and its loss


@pytest.mark.parametrize(
    "loss_func", [nn.CrossEntropyLoss(), CrossEntropyLoss(label_smoothing=0.1), to_one_hot, distance]
)
@pytest.mark.parametrize("cbs", [[MixUp()], [CutMix()], [MixUp(2.0), CutMix()], [CutMix(0.5), MixUp()]], ids=repr)
def test_the_loss_counts_each_target_as_much_as_there_is_of_its_image(cbs, loss_func):
    batches = one_hot_images()
    seen = watched(make_learn(batches, loss_func), *cbs, n_epoch=2)
    assert len(seen) == 4
    for (images, pred, loss), (_, targ) in zip(seen, batches * 2, strict=True):
        assert images.sum(1).allclose(torch.ones(())) and not images.equal(batches[0][0])
        torch.testing.assert_close(loss, weighted_loss(loss_func, images, pred, targ))


def test_several_targets_are_blended_together():
    class OneInput(Callback):
        def before_batch(self, learn):
            learn.xb, learn.yb = learn.batch[:1], learn.batch[1:]

    def both(pred, first, second):
        return F.cross_entropy(pred, first) + distance(pred, second)

    batches = one_hot_images(n_targets=2)
    for (images, pred, loss), (_, *ys) in zip(
        watched(make_learn(batches, both), OneInput(), MixUp(), CutMix()), batches, strict=True
    ):
        torch.testing.assert_close(loss, weighted_loss(both, images, pred, *ys))


def test_all_inputs_are_blended_by_the_same_share_and_in_the_same_order():
    class TwoInputs(Callback):
        def before_batch(self, learn):
            learn.xb = (*learn.xb, learn.xb[0] * 2)

    class Adds(nn.Linear):
        def forward(self, x, double):
            torch.testing.assert_close(double, x * 2)
            return super().forward(x.flatten(1))

    learn = make_learn(one_hot_images())
    learn.model = Adds(learn.model[1].in_features, 3)
    learn.fit(1, cbs=[TwoInputs(), MixUp(), CutMix()])


def test_mixup_blends_whole_images_and_cutmix_pastes_a_rectangle():
    for images, *_ in watched(make_learn(one_hot_images()), MixUp()):
        assert images.equal(images[..., :1, :1].expand_as(images))
    for images, *_ in watched(make_learn(one_hot_images()), CutMix()):
        pasted = images[range(N), range(N)] == 0
        rectangle = pasted.any(0)
        assert torch.equal(images.unique(), torch.tensor([0.0, 1.0]))
        assert rectangle.equal(rectangle.any(1)[:, None] & rectangle.any(0))
        assert all(sample.equal(rectangle) or not sample.any() for sample in pasted)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.randoms(use_true_random=False))
def test_the_share_of_cutmix_is_what_the_rectangle_leaves(height, width, share, rand):
    ours, other = torch.zeros(2, 3, height, width), torch.ones(2, 3, height, width)
    mixed, left = CutMix().mix(ours, other, share, rand)
    assert mixed.mean().item() == pytest.approx(1 - left, abs=1e-6)
    assert not ours.any()
    side = math.sqrt(1 - share)
    assert mixed[0, 0].any(1).sum() <= side * height + 1 and mixed[0, 0].any(0).sum() <= side * width + 1


def test_a_rectangle_that_is_not_cut_off_has_the_area_drawn():
    class Middle:
        def random(self):
            return 0.5

    mixed, left = CutMix().mix(torch.zeros(1, 1, 40, 60), torch.ones(1, 1, 40, 60), 0.75, Middle())
    assert left == 0.75 and mixed[0, 0, 10:30, 15:45].all() and mixed.sum() == 20 * 30


# ---- what is drawn


class Shares(MixUp):
    """MixUp that keeps the shares it drew."""

    def __init__(self, alpha):
        super().__init__(alpha)
        self.drawn = []

    def mix(self, x, other, share, rand):
        self.drawn.append(share)
        return super().mix(x, other, share, rand)


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha):
    cb = Shares(alpha)
    make_learn(one_hot_images(500, height=1, width=1)).fit(2, cbs=cb)
    assert len(cb.drawn) == 1000
    assert stats.kstest(cb.drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_every_order_of_the_batch_is_as_likely():
    first = torch.cat([images[:1, :, 0, 0] for images, *_ in watched(make_learn(one_hot_images(600)), MixUp())])
    partners = first[:, 1:].sum(0).bool() & (first[:, 1:] > 0).any(0)
    counts = torch.bincount(torch.where(first[:, 0] < 1, first[:, 1:].argmax(1) + 1, 0), minlength=N)
    assert partners.all() and stats.chisquare(counts).pvalue > 0.01


def blends(seed, num_workers=0, torch_seed=0, n_epoch=2, begun=0):
    """The inputs of each epoch of a fit on a dataset of that seed."""
    dataset = TensorDataset(torch.eye(N).repeat(4, 1)[:, :, None, None].expand(4 * N, N, 4, 4), torch.arange(4 * N) % 3)
    learn = make_learn(one_hot_images(height=4, width=4))
    learn.data = DataBunch.from_dsets(dataset, bs=N, num_workers=num_workers, device="cpu", seed=seed)
    learn.epochs_begun = begun
    torch.manual_seed(torch_seed)
    images = [images for images, *_ in watched(learn, MixUp(), CutMix(), n_epoch=n_epoch)]
    return torch.stack(images).unflatten(0, (n_epoch, -1))


def test_the_same_seed_gives_the_same_blends_whatever_happens_around():
    expected = blends(seed=1)
    for others in ({"num_workers": 2}, {"torch_seed": 7}):
        assert blends(seed=1, **others).equal(expected)
    assert blends(seed=1, n_epoch=1, begun=1)[0].equal(expected[1])


def test_another_seed_or_epoch_or_batch_has_another_share():
    def shares(seed):
        cb, learn = Shares(0.4), make_learn(one_hot_images())
        learn.data = DataBunch.from_dsets(TensorDataset(*one_hot_images(1)[0]), bs=2, device="cpu", seed=seed)
        learn.fit(2, cbs=cb)
        return set(cb.drawn)

    assert len(shares(1)) == 6 and not shares(1) & shares(2)


def test_batches_of_any_loader_follow_torchs_seed():
    def images(seed):
        learn = make_learn(one_hot_images())
        torch.manual_seed(seed)
        return torch.stack([images for images, *_ in watched(learn, MixUp())])

    assert images(1).equal(images(1)) and not images(1).equal(images(2))


def test_the_global_generator_is_left_alone():
    learn = make_learn(one_hot_images())
    before = torch.get_rng_state()
    learn.fit(1, cbs=[MixUp(), CutMix()])
    assert torch.get_rng_state().equal(before)


# ---- validation, and what is left behind


def test_validation_sees_batches_and_loss_as_they_are():
    batches = one_hot_images()
    learn, watch = make_learn(batches, valid=batches), Watch()
    learn.fit(1, cbs=[MixUp(), CutMix(), watch])
    for (images, targ), (_, seen, pred, loss) in zip(batches, [s for s in watch.seen if not s[0]], strict=True):
        assert seen.equal(images) and loss == F.cross_entropy(pred, targ)
    assert learn.recorder.history["valid_loss"][0] == pytest.approx(learn.validate()["valid_loss"])


def test_a_validation_within_an_epoch_does_too():
    batches = one_hot_images()
    learn, expected = make_learn(batches, valid=batches), []

    class Expect(Callback):
        def after_step(self, learn):
            losses = [F.cross_entropy(learn.model(x), y) for x, y in batches]
            expected.append(sum(losses).item() / len(losses))

    learn.fit(1, 0.1, cbs=[CutMix(), MixUp(), ValidateEvery(1), Expect()])
    assert learn.recorder.step_history["valid_loss"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_loss", "before_backward", "after_backward"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, CancelBackward, CancelBatch, CancelFit])
def test_the_loss_function_is_put_back_whatever_ends_a_batch(event, error):
    def interrupt(self, learn):
        raise error

    loss_func = nn.CrossEntropyLoss()
    learn = make_learn(one_hot_images(), loss_func)
    interrupts = type("Interrupts", (Callback,), {event: interrupt, "order": 50})()
    with suppress(ZeroDivisionError, KeyboardInterrupt, CancelBackward):
        learn.fit(1, cbs=[MixUp(), CutMix(), interrupts])
    assert learn.loss_func is loss_func


def test_the_loss_function_is_put_back_when_the_second_blend_fails():
    loss_func = nn.CrossEntropyLoss()
    learn = make_learn([(torch.rand(N, 4), torch.zeros(N).long())], loss_func)
    with pytest.raises(
        ValueError, match=r"CutMix cuts rectangles out of images \(bs, c, h, w\), and the input is \(6, 4\)"
    ):
        learn.fit(1, cbs=[MixUp(), CutMix()])
    assert learn.loss_func is loss_func


# ---- what it cannot do


@pytest.mark.parametrize("cls", [MixUp, CutMix])
@pytest.mark.parametrize("alpha", [0, -1.0, float("nan")])
def test_alpha_is_above_0(cls, alpha):
    with pytest.raises(ValueError, match=f"alpha={alpha}: Beta"):
        cls(alpha)


def test_the_usual_alphas_are_those_of_the_papers():
    assert MixUp().alpha == 0.4 and CutMix().alpha == 1.0


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((torch.zeros(N, 4).long(), torch.zeros(N)), TypeError, "floating-point tensors, and these are torch.int64"),
        ({"x": torch.zeros(N, 4), "y": torch.zeros(N)}, TypeError, "floating-point tensors, and these are a dict"),
        (([torch.zeros(4)] * N, torch.zeros(N)), TypeError, "floating-point tensors, and these are a list"),
        (torch.zeros(N, 4), ValueError, "MixUp blends losses: the learner needs a loss_func and targets"),
        ((torch.zeros(N, 4), ["a"] * N), TypeError, "MixUp reorders targets, which must be tensors, not a list"),
    ],
)
def test_what_cannot_be_blended_is_an_error_that_says_why(batch, error, message):
    learn = make_learn([(torch.zeros(N, 4), torch.zeros(N).long())])
    learn.data = DataBunch([batch], device="cpu")
    with pytest.raises(error, match=message):
        learn.fit(1, cbs=MixUp())


def test_wrong_targets_are_explained_as_without_blending():
    learn = make_learn([(torch.rand(N, 4), torch.full((N,), 7))], CrossEntropyLoss())
    with pytest.raises(ValueError, match="7"):
        learn.fit(1, cbs=MixUp())


# ---- with other callbacks, and in earnest


def sgd_step(model, loss, lr=0.1):
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= lr * p.grad


def test_accumulated_batches_each_count_with_their_own_blend():
    batches = one_hot_images(4)
    learn = make_learn(batches, opt_func=SGD)
    model = copy.deepcopy(learn.model)
    seen = [images for images, *_ in watched(learn, MixUp(), GradientAccumulation(2 * N))]
    for first in (0, 2):
        pairs = zip(seen[first : first + 2], batches[first : first + 2], strict=True)
        losses = [weighted_loss(nn.CrossEntropyLoss(), images, model(images), targ) for images, (_, targ) in pairs]
        sgd_step(model, sum(losses) / 2)
    assert learn.n_steps == 2
    torch.testing.assert_close(list(learn.model.parameters()), list(model.parameters()))


def test_sam_climbs_and_steps_by_the_blended_loss():
    batches = one_hot_images()
    learn = make_learn(batches, opt_func=SGD)
    model = copy.deepcopy(learn.model)
    seen = [images for images, *_ in watched(learn, MixUp(), CutMix(), SAM(0.5))]
    for images, (_, targ) in zip(seen, batches, strict=True):
        climbed = copy.deepcopy(model)
        gradients = torch.autograd.grad(
            weighted_loss(nn.CrossEntropyLoss(), images, model(images), targ), model.parameters()
        )
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        with torch.no_grad():
            for p, g in zip(climbed.parameters(), gradients, strict=True):
                p += 0.5 * g / norm
        gradients = torch.autograd.grad(
            weighted_loss(nn.CrossEntropyLoss(), images, climbed(images), targ), climbed.parameters()
        )
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p -= 0.1 * g
    torch.testing.assert_close(list(learn.model.parameters()), list(model.parameters()))
    assert isinstance(learn.loss_func, nn.CrossEntropyLoss)


@pytest.mark.parametrize("cb", [MixUp(), CutMix()], ids=repr)
def test_a_network_learns_digits_from_blends(cb):
    images, numbers = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    train, valid = (TensorDataset(pixels[part], torch.tensor(numbers)[part]) for part in (order[:1400], order[1400:]))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
    data = DataBunch.from_dsets(train, valid, bs=64, device="cpu", seed=0)
    learn = Learner(data, model, CrossEntropyLoss(), metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(8, 1e-2, cbs=cb)
    assert learn.validate()["accuracy"] > 0.95
