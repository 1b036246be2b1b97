"""Hooks: what they store, when they are gone, and the callback that listens while a model trains."""

import pytest
import torch
from torch import nn
from warmstart.callbacks import Callback, CancelFit
from warmstart.callbacks.hooks import Hook, HookCallback, Hooks, hook_output, hook_outputs
from warmstart.callbacks.nested import tensors_in


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def x():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def n_hooks(model):
    """How many hooks of any kind a model and its layers have."""
    return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())


# ---- a hook


def test_hook_stores_what_its_function_makes_of_input_and_output(model, x):
    hook = Hook(model[2], lambda module, input, output: (module, input[0].mean(), output.std()))
    model(x)
    hidden = model[1](model[0](x))
    module, mean, std = hook.stored
    assert module is model[2]
    assert mean == hidden.mean() and std == model[2](hidden).std()


def test_a_stored_output_is_cut_off_from_the_graph_unless_one_wants_it(model, x):
    with hook_output(model[0]) as cut, hook_output(model[0], detach=False) as whole:
        model(x)
    assert torch.equal(cut.stored, whole.stored)
    assert not cut.stored.requires_grad and whole.stored.requires_grad


def test_a_hook_cannot_change_the_output(model, x):
    before = model(x)
    with Hook(model[0], lambda module, input, output: output * 0):
        assert torch.equal(model(x), before)


def test_a_hook_listens_within_its_context_and_keeps_what_it_stored(model, x):
    with hook_output(model[0]) as hook:
        model(x)
    stored = hook.stored
    model(x + 1)
    assert hook.stored is stored and n_hooks(model) == 0
    hook.remove()  # once more does no harm


def test_a_hook_that_pauses_stores_nothing(model, x):
    with hook_output(model[0]) as hook:
        hook.active = False
        model(x)
    assert hook.stored is None


def test_backward_hooks_get_the_gradients(model, x):
    x.requires_grad_()
    with hook_output(model[2], grad=True) as outer, Hook(model[0], lambda m, i, o: i, forward=False) as inner:
        pred = model(x)
        grad_x, grad_pred = torch.autograd.grad((pred**2).sum(), [x, pred], retain_graph=True)
        (pred**2).sum().backward()
    assert torch.equal(outer.stored[0], grad_pred)
    assert torch.equal(inner.stored[0], grad_x)


def test_hooks_of_several_layers_are_a_sequence(model, x):
    with hook_outputs([model[0], model[1]]) as hooks:
        model(x)
    assert len(hooks) == 2 and [hook.module for hook in hooks] == [model[0], model[1]]
    assert torch.equal(hooks[1].stored, hooks.stored[0].relu())
    assert n_hooks(model) == 0


def test_outputs_of_any_structure_are_stored_detached_and_on_the_cpu():
    class Layer(nn.Linear):
        def forward(self, x):
            pred = super().forward(x)
            return {"pred": pred, "more": [pred + 1, (pred, "text")]}

    with hook_output(layer := Layer(2, 2), cpu=True) as hook:
        layer(torch.ones(1, 2))
    assert hook.stored["more"][1][1] == "text"
    assert len(list(tensors_in(hook.stored))) == 3
    assert not any(tensor.requires_grad for tensor in tensors_in(hook.stored))


def test_a_packed_sequence_keeps_its_type():
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    with hook_output(lstm := nn.LSTM(2, 4)) as hook:
        output, _ = lstm(packed)
    assert type(hook.stored[0]) is type(output)
    assert torch.equal(hook.stored[0].data, output.data)


def test_what_is_no_module_is_refused_before_any_hook_is_made(model):
    with pytest.raises(TypeError, match="number 1 is 'fc'"):
        Hooks([model[0], "fc"], lambda m, i, o: o)
    assert n_hooks(model) == 0


# ---- the callback


class Counts(HookCallback):
    """Which layers are called in which step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def hook(self, module, input, output):
        self.calls.append(self.names[module])
        return len(self.calls)


def test_layers_with_parameters_are_looked_at_in_training_alone(learn):
    counts = Counts()
    learn.fit(2, cbs=counts)  # of 4 training and 2 validation batches
    assert counts.calls == ["0", "2"] * 8
    assert counts.hooks.stored == [15, 16]
    learn.validate()
    learn.model(torch.ones(1, 4))
    assert len(counts.calls) == 16


def test_every_third_batch_is_looked_at(make_learn):
    learn, counts = make_learn(train=(8,) * 7), Counts(every=3)
    learn.fit(1, cbs=counts)
    assert counts.calls == ["0", "2"] * 3


@pytest.mark.parametrize(
    ("modules", "names"),
    [
        (lambda model: [m for m in model if isinstance(m, nn.ReLU)], ["1"]),
        (lambda model: model, ["Sequential"]),
        (lambda model: [model[2], model[0]], ["2", "0"]),
    ],
)
def test_modules_are_what_a_function_chooses(learn, modules, names):
    if names == ["Sequential"]:
        modules = learn.model  # one module, as it is
    counts = Counts(modules)
    learn.fit(1, cbs=counts)
    assert list(counts.names.values()) == names and set(counts.calls) == set(names)


def test_without_an_own_hook_the_outputs_are_kept(learn):
    outputs = HookCallback()
    learn.fit(1, cbs=outputs)
    assert [tuple(output.shape) for output in outputs.hooks.stored] == [(8, 8), (8, 3)]


def test_backward_hooks_listen_in_training_too(learn):
    grads = HookCallback(lambda model: [model[2]], forward=False)
    learn.fit(1, cbs=grads)
    (grad_input,) = grads.hooks.stored[0]
    assert grad_input.shape == (8, 3)


class Stop(Callback):
    """Ends a fit with an exception in its second batch."""

    def __init__(self, error):
        self.error = error

    def after_pred(self, learn):
        if learn.iter == 1:
            raise self.error


@pytest.mark.parametrize("error", [None, CancelFit(), ValueError("planted"), KeyboardInterrupt()])
def test_hooks_are_gone_however_a_fit_ends(learn, error):
    counts = Counts()
    try:
        learn.fit(1, cbs=[counts] if error is None else [counts, Stop(error)])
    except (ValueError, KeyboardInterrupt) as raised:
        assert raised is error
    assert counts.calls and n_hooks(learn.model) == 0


def test_a_validation_within_a_batch_is_not_looked_at(learn):
    class Validate(Callback):
        order = -100

        def after_batch(self, learn):
            if learn.training:
                learn.validate()

    counts = Counts()
    learn.fit(1, cbs=[counts, Validate()])
    assert counts.calls == ["0", "2"] * 4


def test_mistakes_are_explained(make_learn):
    with pytest.raises(ValueError, match="every=0"):
        HookCallback(every=0)
    learn = make_learn()
    with pytest.raises(ValueError, match="no layer to look at in Sequential"):
        learn.fit(1, cbs=HookCallback([]))
    with pytest.raises(TypeError, match="number 0 is '0'"):
        learn.fit(1, cbs=HookCallback(["0"]))
