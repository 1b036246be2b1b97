"""Callbacks together: each combination trains exactly as the same recipe written out in PyTorch does."""

from contextlib import nullcontext
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ExponentialLR
from warmstart.callbacks import EMA, GradientAccumulation, GradientClip, MixedPrecision, TorchScheduler, combined_cos
from warmstart.data import DataBunch
from warmstart.learner import Learner

from .conftest import batches

BS, N_EPOCH, LR, MAX_NORM, DECAY = 8, 3, 1e-2, 0.5, 0.9
SIZES = (BS,) * 6  # with 4 batches to a step the last step of an epoch has 2


def make_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))


def written_out(precision, n_batches, clip, ema, schedule):
    """Losses of each batch, and validation losses of each epoch, of the recipe in plain PyTorch."""
    model, train, valid = make_model(), batches(*SIZES), batches(BS, BS, seed=1)
    opt = torch.optim.AdamW(model.parameters(), lr=LR)
    scheduler = ExponentialLR(opt, 0.9) if schedule == "torch" else None
    lr, mom = combined_cos(0.25, LR / 25, LR, LR / 1e5), combined_cos(0.25, 0.95, 0.85, 0.95)
    autocast = partial(torch.autocast, "cpu", torch.bfloat16) if precision == "bf16" else nullcontext
    average = [p.detach().clone() for p in model.parameters()]
    losses, valid_losses, done = [], [], 0
    for _ in range(N_EPOCH):
        for first in range(0, len(train), n_batches):
            group = train[first : first + n_batches]
            for x, y in group:
                if schedule == "one-cycle":
                    pct = done / (N_EPOCH * len(train))
                    opt.param_groups[0].update(lr=lr(pct), betas=(mom(pct), 0.999))
                with autocast():
                    loss = F.cross_entropy(model(x), y)
                (loss / len(group)).backward()
                losses.append(loss.item())
                done += 1
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            opt.step()
            opt.zero_grad()
            if scheduler:
                scheduler.step()
            with torch.no_grad():
                for mean, p in zip(average, model.parameters(), strict=True):
                    mean.lerp_(p, 1 - DECAY)
        names = [name for name, _ in model.named_parameters()]
        weights = dict(zip(names, average, strict=True)) if ema else dict(model.named_parameters())
        with torch.no_grad(), autocast():
            each = [F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y) for x, y in valid]
        valid_losses.append(torch.stack(each).float().mean().item())
    return losses, valid_losses


def through_the_learner(precision, n_batches, clip, ema, schedule):
    data = DataBunch(batches(*SIZES), batches(BS, BS, seed=1), device="cpu")
    learn = Learner(data, make_model(), nn.CrossEntropyLoss())
    learn.progress.bar = learn.progress.table = False
    learn.add_cbs([MixedPrecision(torch.bfloat16)] if precision == "bf16" else [])
    learn.add_cbs([GradientAccumulation(BS * n_batches)] if n_batches > 1 else [])
    learn.add_cbs([GradientClip(MAX_NORM)] if clip else [])
    learn.add_cbs([EMA(DECAY)] if ema else [])
    if schedule == "one-cycle":
        learn.fit_one_cycle(N_EPOCH, LR)
    else:
        learn.fit(N_EPOCH, LR, cbs=TorchScheduler(partial(ExponentialLR, gamma=0.9)))
    return learn.recorder.losses, list(learn.recorder.history["valid_loss"])


RECIPES = list(product(("fp32", "bf16"), (1, 4), (False, True), (False, True), ("one-cycle", "torch")))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.filterwarnings("ignore:EMA")
def test_a_combination_trains_as_the_recipe_written_out(recipe):
    losses, valid_losses = through_the_learner(*recipe)
    expected, valid_expected = written_out(*recipe)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(valid_losses, valid_expected, rtol=1e-5, atol=0)
