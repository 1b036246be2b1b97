"""Loss and metrics of a validation: over all samples, however they are cut into batches."""

import math

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from warmstart.callbacks import Callback, CancelValidate
from warmstart.data import DataBunch
from warmstart.learner import CrossEntropyLoss, Learner, accuracy


def everything(learn):
    """Predictions and targets of the whole validation set at once."""
    x, y = (torch.cat(part) for part in zip(*learn.data.valid_dl, strict=True))
    with torch.no_grad():
        return learn.model.eval()(x), y


def test_loss_and_metrics_are_exact_under_uneven_batches(make_learn):
    learn = make_learn(valid=(8, 8, 3), metrics=accuracy)
    pred, targ = everything(learn)
    assert learn.validate() == pytest.approx(
        {"valid_loss": float(F.cross_entropy(pred, targ)), "accuracy": float((pred.argmax(1) == targ).float().mean())}
    )


def test_a_loss_over_tokens_is_averaged_over_the_tokens_that_count():
    """Whatever the lengths, and how much of each batch is padding; a batch that is padding alone counts for nothing."""
    gen = torch.Generator().manual_seed(0)
    lengths = (9, 4, 2)
    batches = [(torch.randn(2, n, 3, generator=gen), torch.randint(3, (2, n), generator=gen)) for n in lengths]
    batches[1][1][0] = batches[2][1][:] = -100
    learn = Learner(DataBunch(batches, batches, device="cpu"), nn.Linear(3, 3), CrossEntropyLoss(), metrics=right)
    pred, targ = (torch.cat([part.flatten(0, 1) for part in parts]) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        pred = learn.model(pred)
    expected = float(F.cross_entropy(pred, targ)), float((pred.argmax(1) == targ).float().mean())
    assert tuple(learn.validate().values()) == pytest.approx(expected)


def test_a_loss_that_is_not_finite_is_told(make_learn):
    learn = make_learn()
    for value in (math.nan, math.inf):
        nn.init.constant_(next(learn.model.parameters()), value)
        assert not math.isfinite(learn.validate()["valid_loss"])


def right(pred, targ):
    return (pred.argmax(-1) == targ).float().mean()


def test_a_fit_records_what_validate_returns(make_learn):
    learn = make_learn(valid=(8, 3), metrics=accuracy)
    learn.fit(2)
    row = learn.recorder.history.iloc[-1]
    assert learn.validate() == {"valid_loss": row["valid_loss"], "accuracy": row["accuracy"]}


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_a_torchmetrics_object_works_as_it_is(make_learn, average):
    metric = torchmetrics.classification.MulticlassAccuracy(num_classes=3, average=average)
    learn = make_learn(valid=(8, 8, 3), metrics=metric)
    learn.fit(1)
    expected = torchmetrics.functional.classification.multiclass_accuracy(*everything(learn), 3, average)
    assert learn.validate()["multiclass_accuracy"] == pytest.approx(float(expected))


def test_a_collection_of_metrics_gives_a_result_for_each(make_learn):
    several = torchmetrics.MetricCollection(
        {
            "acc": torchmetrics.classification.MulticlassAccuracy(num_classes=3),
            "f1": torchmetrics.classification.MulticlassF1Score(num_classes=3),
        }
    )
    learn = make_learn(metrics=several)
    learn.fit(1)
    assert list(learn.validate()) == ["valid_loss", "acc", "f1"]
    assert list(learn.recorder.history) == ["epoch", "train_loss", "valid_loss", "acc", "f1", "time"]


def test_a_metric_of_several_numbers_is_an_error_that_names_it(make_learn):
    per_class = torchmetrics.classification.MulticlassAccuracy(num_classes=3, average=None)
    with pytest.raises(ValueError, match=r"metric 'multiclass_accuracy' computed tensor.*, not one number"):
        make_learn(metrics=per_class).validate()


def test_a_loss_that_is_not_reduced_is_averaged(make_learn):
    learn = make_learn(valid=(8, 3), loss_func=CrossEntropyLoss())
    expected = learn.validate()
    with learn.loss_not_reduced():
        assert learn.validate() == pytest.approx(expected)


def test_losses_in_half_precision_do_not_overflow(make_learn):
    learn = make_learn(valid=(8, 8), loss_func=lambda pred, targ: pred.sum().half() * 0 + 60_000)
    assert learn.validate()["valid_loss"] == pytest.approx(60_000, rel=1e-3)  # the largest half is 65,504


def test_several_targets_all_reach_loss_and_metrics(make_learn):
    seen = []

    def same_shapes(pred, *targs):
        seen.append([t.shape for t in targs])
        return torch.tensor(float(len(targs)))

    class Doubled(Callback):
        def before_batch(self, learn):
            learn.yb = (*learn.yb, *learn.yb)

    learn = make_learn(valid=(8,), loss_func=lambda pred, a, b: F.cross_entropy(pred, a) + F.cross_entropy(pred, b))
    learn.evaluate.metrics = {"same_shapes": Sum(same_shapes)}
    learn.add_cb(Doubled())
    learn.run_validation(learn.data.valid_dl)
    assert seen == [[(8,), (8,)]]


class Sum:
    """The plainest metric object."""

    def __init__(self, func):
        self.func, self.total = func, 0.0

    def reset(self):
        self.total = 0.0

    def update(self, *args):
        self.total += self.func(*args)

    def compute(self):
        return self.total


def test_batches_without_targets_have_no_results(make_learn):
    learn = make_learn(metrics=accuracy)
    with pytest.raises(ValueError, match="nothing to validate on: no batch with targets"):
        learn.validate(dl=[torch.randn(8, 4)])
    with pytest.raises(ValueError, match="nothing to validate on"):
        learn.validate(dl=[])


def test_a_validation_that_is_cancelled_counts_the_batches_before(make_learn):
    class OneBatch(Callback):
        def after_batch(self, learn):
            if not learn.training:
                raise CancelValidate

    learn = make_learn(valid=(8, 8), metrics=accuracy)
    first = learn.data.valid_dl.dl[:1]
    assert make_learn(metrics=accuracy).validate(dl=first) == learn.add_cb(OneBatch()).validate()


def test_a_validation_that_never_starts_leaves_no_results_of_another(make_learn):
    class Skip(Callback):
        order = -100

        def before_validate(self, learn):
            raise CancelValidate

    learn = make_learn()
    learn.fit(1)
    learn.fit(1, cbs=Skip())
    assert learn.recorder.history["valid_loss"].isna().tolist() == [False, True]


def test_a_metric_sees_no_gradients(make_learn):
    def tracked(pred, targ):
        return torch.tensor(float(pred.requires_grad or torch.is_grad_enabled()))

    assert make_learn(metrics=tracked).validate()["tracked"] == 0


def test_metrics_of_a_module_move_to_the_datas_device(make_learn):
    class Moves(nn.Module):
        name = "moves"

        def reset(self): ...

        def update(self, pred, targ): ...

        def compute(self):
            return self.moved_to == torch.device("cpu")

        def to(self, device):
            self.moved_to = device
            return self

    assert make_learn(metrics=Moves()).validate()["moves"] == 1
