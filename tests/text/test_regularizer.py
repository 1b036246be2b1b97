"""AR and TAR: the penalties of the papers, in the gradient and not in what is recorded."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from warmstart.callbacks import GradientAccumulation, MixedPrecision
from warmstart.data import DataBunch
from warmstart.learner import CrossEntropyLoss, Learner
from warmstart.text import AWD_LSTM, LMLearner, RNNRegularizer, TransformerLM, get_language_model

torch.set_num_threads(1)
CONFIG = {"emb_sz": 8, "n_hid": 8, "n_layers": 2, "output_p": 0.5}


def learner(alpha, beta, arch=AWD_LSTM, config=CONFIG):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(20, (4, 6), generator=generator) for _ in range(2))
    model = get_language_model(arch, 20, config)
    data = DataBunch([(x, y)], device="cpu")
    learn = LMLearner(data, model, CrossEntropyLoss(), torch.optim.SGD, 1.0, cbs=RNNRegularizer(alpha, beta))
    learn.progress.bar = learn.progress.table = False
    return learn


def weights_by_hand(alpha, beta):
    """One step of plain gradient descent, the penalties written out."""
    learn = learner(0, 0)
    model, (x, y) = learn.model.train(), next(iter(learn.data.train_dl))
    torch.manual_seed(1)
    raw, _ = model.encoder(x)
    dropped = model.decoder.dropout(raw)
    loss = F.cross_entropy(model.decoder.linear(dropped).flatten(0, 1), y.flatten())
    penalties = alpha * dropped.pow(2).mean() + beta * (raw[:, 1:] - raw[:, :-1]).pow(2).mean()
    (loss + penalties).backward()
    return [p.detach() - p.grad for p in model.parameters()], loss.item()


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (2.0, 0.0), (0.0, 1.0), (2.0, 1.0)])
def test_a_step_follows_the_penalties_and_the_record_leaves_them_out(alpha, beta):
    learn = learner(alpha, beta)
    torch.manual_seed(1)
    learn.fit(1)
    expected, loss = weights_by_hand(alpha, beta)
    torch.testing.assert_close([p.detach() for p in learn.model.parameters()], expected)
    assert float(learn.recorder.losses[-1]) == pytest.approx(loss, rel=1e-5)


def test_it_goes_with_accumulated_gradients_and_half_precision():
    learn = learner(2.0, 1.0)
    learn.fit(2, cbs=[GradientAccumulation(4), MixedPrecision(torch.bfloat16)])
    assert all(p.isfinite().all() for p in learn.model.parameters())


def test_large_outputs_become_small():
    def size(alpha):
        learn = learner(alpha, 0.0)
        learn.fit(30)
        return learn.model.eval().encoder(next(iter(learn.data.train_dl))[0])[0].square().mean()

    assert size(50.0) < 0.5 * size(0.0)


def test_it_goes_with_a_transformer_and_leaves_no_hook():
    learn = learner(2.0, 1.0, TransformerLM, {"emb_sz": 8, "n_hid": 8, "n_layers": 1, "n_heads": 1})
    learn.fit(1)
    assert not learn.model.decoder.dropout._forward_hooks


def test_other_models_and_weights_below_0_are_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    learn = Learner(DataBunch([(torch.randn(2, 6), torch.tensor([0, 1]))], device="cpu"), model, CrossEntropyLoss())
    with pytest.raises(ValueError, match="a language model's decoder, which Sequential does not have"):
        learn.fit(1, cbs=RNNRegularizer(2, 1))
    with pytest.raises(ValueError, match="alpha=-1, beta=0"):
        RNNRegularizer(-1, 0)
