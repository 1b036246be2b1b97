"""When a language model remembers: from batch to batch, not from epoch to epoch, and across a resumed fit."""

import pytest
import torch
from warmstart.callbacks import EMA, SAM, Callback, StopAfter, ValidateEvery
from warmstart.data import DataBunch
from warmstart.learner import Checkpoint, CrossEntropyLoss
from warmstart.text import AWD_LSTM, LMLearner, RNNRegularizer, get_language_model
from warmstart.text.resetter import ModelResetter

torch.set_num_threads(1)


def batches(n, bs, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, (bs, 6 * n + 1), generator=generator)
    return [(tokens[:, i : i + 6], tokens[:, i + 1 : i + 7]) for i in range(0, 6 * n, 6)]


def learner(cbs=None, drop_mult=0.0, **options):
    torch.manual_seed(0)
    model = get_language_model(AWD_LSTM, 20, {"emb_sz": 8, "n_hid": 8, "n_layers": 2}, drop_mult)
    data = DataBunch(batches(5, 4, 0), batches(3, 2, 1), device="cpu")
    learn = LMLearner(data, model, CrossEntropyLoss(), cbs=cbs, opt_func=torch.optim.SGD, **options)
    learn.progress.bar = learn.progress.table = False
    return learn


class Memory(Callback):
    """Notes before each batch what the model remembers."""

    order = -80

    def __init__(self):
        self.seen = []

    def before_batch(self, learn):
        self.seen.append((learn.training, learn.epoch, learn.iter, learn.model.state))


def test_each_epoch_and_each_validation_begins_without_memory():
    memory = Memory()
    learn = learner(memory)
    learn.fit(2, 0.1)
    learn.validate()
    assert len(memory.seen) == 2 * (5 + 3) + 3
    assert all((state is None) == (number == 0) for _, _, number, state in memory.seen)
    assert all(len(state[0][0]) == (4 if training else 2) for training, _, n, state in memory.seen if n)
    assert learn.model.state is None


def test_a_batch_begins_with_what_the_batch_before_has_left():
    learn = learner()
    learn.fit(1, 0.0)
    model, losses = learn.model.train(), []
    model.reset()
    for x, y in batches(5, 4, 0):
        losses.append(CrossEntropyLoss()(model(x), y))
    torch.testing.assert_close(learn.recorder.losses[-5:], torch.stack(losses).tolist(), atol=1e-5, rtol=1e-5)


def test_a_validation_within_an_epoch_leaves_the_memory_of_training():
    plain, validated = learner(), learner(ValidateEvery(2))
    plain.fit(2, 0.5)
    validated.fit(2, 0.5)
    torch.testing.assert_close(validated.recorder.losses, plain.recorder.losses)


class RunTwice(Callback):
    """Runs the forward pass of each batch again before its backward pass, as SAM does."""

    order = -60

    def before_backward(self, learn):
        learn.pred = learn.forward()
        learn.loss = learn.compute_loss()


def test_who_runs_a_batch_again_finds_the_memory_of_before_it():
    plain, twice = learner(RNNRegularizer()), learner([RNNRegularizer(), RunTwice()])
    plain.fit(2, 0.5)
    twice.fit(2, 0.5)
    torch.testing.assert_close(twice.recorder.losses, plain.recorder.losses)
    learner([SAM(0.05), EMA(0.5)]).fit(1, 0.5)


@pytest.mark.parametrize("steps", [3, 5, 7])
def test_a_fit_that_resumes_goes_on_with_what_it_remembered(tmp_path, steps):
    """Stopped after any step, in the middle of an epoch or at its end, it comes to the same weights, to the bit."""
    whole = learner(drop_mult=1.0)
    whole.fit(2, 0.5)
    stopped = learner(drop_mult=1.0)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(2, 0.5, cbs=[Checkpoint(tmp_path, every=1), Interrupt(steps)])
    resumed = learner(drop_mult=1.0)
    resumed.fit(2, 0.5, cbs=Checkpoint(tmp_path, every=1, allow_changes=True))  # nobody interrupts it
    for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


class Interrupt(Callback):
    """Ends the process, as it were, after so many steps have been written."""

    order = 99

    def __init__(self, steps):
        self.steps = steps

    def after_batch(self, learn):
        if learn.training and learn.n_steps == self.steps:
            raise KeyboardInterrupt


def test_an_interrupted_fit_leaves_no_memory():
    learn = learner(StopAfter(3))
    learn.fit(2, 0.1)
    assert learn.model.state is None
    with pytest.raises(KeyboardInterrupt):
        learn.fit(2, 0.1, cbs=Interrupt(2))
    assert learn.model.state is None
    resetter = next(cb for cb in learn.cbs if isinstance(cb, ModelResetter))
    assert resetter.model is resetter.before is None
