"""Planted failures: the message names what, where, which batch and which items."""

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from warmstart.callbacks import Callback
from warmstart.callbacks.detect_anomaly import AnomalyError, DetectAnomaly
from warmstart.callbacks.precision import MixedPrecision
from warmstart.data import CategoryBlock, ColReader, DataBlock, DataBunch, IndexSplitter, RegressionBlock
from warmstart.learner import Learner


def failure(learn, n_epoch=1, lr=1e-2, cbs=()):
    """The message with which a fit fails."""
    with pytest.raises(AnomalyError) as caught:
        learn.fit(n_epoch, lr, cbs=[DetectAnomaly(), *cbs])
    return str(caught.value)


def learner(data, model=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) if model is None else model
    learn = Learner(data, model, nn.CrossEntropyLoss())
    learn.progress.bar = learn.progress.table = False
    return learn


@pytest.fixture
def samples():
    """Inputs (24, 4) and targets (24,)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(24, 4, generator=generator), torch.randint(0, 3, (24,), generator=generator)


def dataset_bunch(x, y):
    return DataBunch.from_dsets(TensorDataset(x, y), TensorDataset(x[:8], y[:8]), bs=8, device="cpu", seed=0)


# ---- the batch


def test_a_nan_in_an_input_is_found_in_its_item(samples):
    x, y = samples
    x[13, 2] = float("nan")
    learn = learner(dataset_bunch(x, y))
    learn.data.train_dl.set_epoch(0)
    batch = next(i for i, _ in enumerate(learn.data.train_dl) if 13 in learn.data.train_dl.items)
    message = failure(learn)
    assert message.startswith("Input 0 is not finite: 1 NaN, 0 infinite among 32 values (float32).")
    assert f"Epoch 0, training batch {batch}, learning rate 0.01, items 13." in message
    finite = x[x.isfinite()]
    assert float(message.split("Inputs of the batch: ")[1].split(" ")[0]) >= finite.min() - 0.01


def test_items_that_are_paths_are_named(samples):
    x, y = samples
    files = [f"/photos/{'cats' if i % 2 else 'dogs'}/{i:03}.jpg" for i in range(24)]
    x[7] = float("inf")
    block = DataBlock(
        (RegressionBlock, CategoryBlock),
        get_x=lambda file: x[int(file[-7:-4])],
        get_y=lambda file: int(y[int(file[-7:-4])]),
        splitter=IndexSplitter(range(20, 24)),
    )
    data = block.databunch(files, bs=4, device="cpu", seed=0)
    assert "items 7 (cats/007.jpg)." in failure(learner(data))


def test_rows_of_a_table_are_named_by_their_first_text():
    table = pd.DataFrame({"x": [0.5] * 7 + [float("inf")], "file": [f"{i}.jpg" for i in range(8)], "y": ["a", "b"] * 4})
    block = DataBlock(blocks=(RegressionBlock, CategoryBlock), get_x=ColReader("x"), get_y=ColReader("y"),
                      splitter=IndexSplitter([0]))  # fmt: skip
    model = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 1)), nn.Linear(1, 2))
    learn = learner(block.databunch(table, bs=7, device="cpu"), model)
    assert "(7.jpg)." in failure(learn)


def test_targets_are_looked_at_too(make_learn):
    class Spoil(Callback):
        order = -100

        def before_batch(self, learn):
            targets = torch.zeros(len(learn.xb[0]), 3)
            targets[1, 0] = float("-inf") if learn.iter == 2 else 0
            learn.yb = (targets,)

    message = failure(make_learn(loss_func=nn.MSELoss()), cbs=[Spoil()])
    assert message.startswith("Target 0 is not finite: 0 NaN, 1 infinite") and "batch 2" in message
    assert "samples 1." in message  # plain batches: the item is not known


def test_validation_is_looked_at_too(samples):
    x, y = samples
    data = DataBunch.from_dsets(TensorDataset(x, y), TensorDataset(x[:8] / 0, y[:8]), bs=8, device="cpu", seed=0)
    message = failure(learner(data))
    assert "Epoch 0, validation batch 0, items 0, 1, 2, 3, 4 and 3 more." in message


def test_inputs_by_name_are_named(make_learn):
    class Spoil(Callback):
        order = -100

        def before_batch(self, learn):
            learn.xb = {"pixels": learn.xb[0] / 0, "length": 3}

    assert failure(make_learn(), cbs=[Spoil()]).startswith("Input pixels is not finite")


# ---- the layers


class Divide(nn.Module):
    """Divides each row by its first value, which the ReLU before makes 0 here and there."""

    def forward(self, x):
        return x / x[:, :1]


def test_the_first_layer_that_fails_is_named(make_learn):
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), Divide()), nn.Linear(8, 3))
    learn = make_learn(model=model)
    message = failure(learn)
    x = learn.data.one_batch()[0]
    bad = (~learn.model[:2](x).isfinite()).any(1).nonzero().flatten().tolist()
    assert message.startswith("The output of 1.1 (Divide) is not finite")
    assert "Its input was finite, 0 to" in message and "A division by 0" in message
    assert 0 < len(bad) < 6 and f"samples {', '.join(map(str, bad))}" in message


def test_an_operation_between_layers_is_told_from_a_layer(make_learn):
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.first(x).log())

    message = failure(make_learn(model=Between()))
    assert (
        message.startswith("The output of last (Linear)") and "look at the forward() of a module around it" in message
    )


def test_the_end_of_a_models_own_forward_is_its_own(make_learn):
    class Log(nn.Linear):
        def forward(self, x):
            return {"logits": (super().forward(x) - 100).log()}

    assert failure(make_learn(model=Log(4, 3))).startswith("The output of Log is not finite")


def test_weights_that_were_bad_before_are_told_apart(make_learn):
    learn = make_learn()
    with torch.no_grad():
        learn.model[2].bias[0] = float("nan")
    message = failure(learn)
    assert message.startswith("The output of 2 (Linear)") and "Its bias was not finite before this step" in message


# ---- the loss, gradients and weights


def test_the_log_of_a_negative_number_in_the_loss_is_found(make_learn):
    def loss_func(pred, targ):
        return (pred.mean() - 100).log()

    message = failure(make_learn(loss_func=loss_func))
    assert message.startswith("The loss is not finite: 1 NaN, 0 infinite among 1 values")
    assert "samples 0, 1, 2, 3, 4 and 3 more" in message and "look at the loss" in message


class Root(nn.Module):
    """The square root of what is positive: at 0 it has no finite derivative."""

    def forward(self, x):
        return (x * (x > 0)).sqrt()


def test_the_first_parameter_of_the_backward_pass_is_named_and_no_weight_changes(make_learn):
    learn = make_learn(model=nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 8), Root(), nn.Linear(8, 3)))
    before = [p.clone() for p in learn.model.parameters()]
    message = failure(learn, lr=0.1)
    assert message.startswith("The gradient of 1.") and "Those nearer to the loss are, up to 3." in message
    assert "sqrt or norm at 0" in message and "batch 0" in message
    assert all(torch.equal(p, q) for p, q in zip(learn.model.parameters(), before, strict=True))


def test_a_loss_without_finite_derivative_is_told_apart(make_learn):
    def loss_func(pred, targ):
        return (pred * 0).norm(dim=1).sqrt().mean()

    assert "It is the nearest to the loss." in failure(make_learn(loss_func=loss_func))


def test_a_step_that_is_too_large_is_found_in_the_weights(make_learn):
    message = failure(make_learn(opt_func=torch.optim.SGD), lr=1e39)
    assert message.startswith("After the step ") and "lower the learning rate" in message


# ---- a healthy run


def test_a_healthy_run_is_left_alone(make_learn):
    plain, watched = make_learn(), make_learn()
    plain.fit(2, 0.1)
    watched.fit(2, 0.1, cbs=DetectAnomaly())
    assert plain.recorder.losses == watched.recorder.losses


@pytest.mark.filterwarnings("ignore:This CPU has no")
def test_an_overflow_that_mixed_precision_takes_care_of_is_none(make_learn):
    def loss_func(pred, targ):
        return 20 * nn.functional.cross_entropy(pred, targ)

    class Skipped(Callback):
        count = 0

        def after_cancel_step(self, learn):
            self.count += 1

    learn, skipped = make_learn(loss_func=loss_func), Skipped()
    learn.fit(2, cbs=[MixedPrecision(torch.float16), DetectAnomaly(), skipped])
    assert 0 < skipped.count < 8


@pytest.mark.parametrize("healthy", [True, False])
def test_all_hooks_are_gone_after_a_fit(make_learn, healthy):
    learn = make_learn(model=nn.Sequential(nn.Linear(4, 8), nn.ReLU() if healthy else Root(), nn.Linear(8, 3)))
    detect = DetectAnomaly()
    try:
        learn.fit(1, cbs=detect)
    except AnomalyError:
        assert not healthy
    assert sum(len(m._forward_hooks) for m in learn.model.modules()) == 0
    assert all(not p._post_accumulate_grad_hooks for p in learn.model.parameters())
    assert detect.learn is None
