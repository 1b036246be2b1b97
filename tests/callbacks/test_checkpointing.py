"""Activations computed again: the same training in less memory."""

import copy
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torchvision.models import resnet18, vgg11
from warmstart.callbacks import SAM, Callback, GradientAccumulation, GradientCheckpointing, MixedPrecision
from warmstart.data import DataBunch
from warmstart.learner import SGD, Learner
from warmstart.vision import create_body, create_head
from warmstart.vision.models import efficientnet_lite0

torch.set_num_threads(1)


class Block(nn.Module):
    """All that a run changes or draws: batch statistics and dropout."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.3)

    def forward(self, x, scale=1.0):
        return x + scale * self.drop(self.norm(self.conv(x)).relu())


def network():
    torch.manual_seed(0)
    blocks = nn.Sequential(*(Block() for _ in range(3)))
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Dropout(0.2), nn.Linear(8, 4))  # fmt: skip


def make_learn(model=None, **kwargs):
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % 4) for _ in range(3)]
    model = network() if model is None else model
    learn = Learner(DataBunch(batches, batches[:1], device="cpu"), model, nn.CrossEntropyLoss(), **kwargs)
    learn.progress.bar = learn.progress.table = False
    return learn


class Gradients(Callback):
    """Keeps the gradients of each batch."""

    order = 90

    def __init__(self):
        self.seen = []

    def before_step(self, learn):
        self.seen.append([p.grad.clone() for p in learn.model.parameters()])


def fitted(*cbs, model=None, **kwargs):
    """A learner after a fit with `cbs`, and the gradients of each of its batches."""
    learn, gradients = make_learn(model, **kwargs), Gradients()
    torch.manual_seed(1)
    learn.fit(2, 0.1, cbs=[*cbs, gradients])
    return learn, gradients.seen


# ---- the same training


@pytest.mark.filterwarnings("ignore:This CPU has no")
@pytest.mark.parametrize(
    "others", [[], [SAM()], [GradientAccumulation(12)], [MixedPrecision(torch.bfloat16)]], ids=repr
)
def test_gradients_statistics_and_dropout_are_those_without(others):
    plain, expected = fitted(*copy.deepcopy(others), opt_func=SGD)
    learn, gradients = fitted(*others, GradientCheckpointing(), opt_func=SGD)
    assert learn.recorder.losses == plain.recorder.losses
    torch.testing.assert_close(gradients, expected, rtol=0, atol=0)
    for name, value in learn.model.state_dict().items():
        assert value.equal(plain.model.state_dict()[name]), name
    assert learn.validate() == plain.validate()


def test_a_transformer_trains_the_same():
    def transformer():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        to_words = nn.Sequential(nn.Flatten(2), nn.Linear(64, 8))
        return nn.Sequential(to_words, nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(24, 4))

    plain, expected = fitted(model=transformer())
    learn, gradients = fitted(GradientCheckpointing(), model=transformer())
    assert learn.recorder.losses == plain.recorder.losses
    torch.testing.assert_close(gradients, expected, rtol=0, atol=0)


def test_the_backward_pass_may_be_run_twice():
    class Twice(Learner):
        def backward(self):
            self.loss.backward(retain_graph=True)
            self.loss.backward()

    def trained(*cbs):
        learn = Twice(make_learn().data, network(), nn.CrossEntropyLoss(), SGD)
        torch.manual_seed(1)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 0.1, cbs=list(cbs))
        return learn.model.state_dict()

    torch.testing.assert_close(trained(GradientCheckpointing()), trained(), rtol=0, atol=0)


def test_a_compiled_model_trains_the_same():
    torch._dynamo.reset()
    plain, _ = fitted()
    learn = make_learn().compile(backend="aot_eager")
    torch.manual_seed(1)
    learn.fit(2, 0.1, cbs=GradientCheckpointing())
    assert learn.recorder.losses[0] == pytest.approx(plain.recorder.losses[0], rel=1e-5)
    assert learn.model[2][0].norm.num_batches_tracked == 6


# ---- less memory


def saved_numbers(*cbs):
    """How many numbers autograd keeps for the backward pass of a batch, beside the parameters."""

    class Count(Learner):
        def forward(self):
            own = {p.data_ptr() for p in self.model.parameters()}
            kept = {}

            def pack(tensor):
                if tensor.data_ptr() not in own:
                    kept[tensor.data_ptr()] = tensor.numel()
                return tensor

            with saved_tensors_hooks(pack, lambda tensor: tensor):
                pred = super().forward()
            counts.append(sum(kept.values()))
            return pred

    counts = []
    learn = Count(make_learn().data, network(), nn.CrossEntropyLoss())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=list(cbs))
    return counts[0]


def test_little_more_than_the_inputs_of_the_blocks_is_kept():
    one_map = 6 * 8 * 6 * 6
    plain, by_block = saved_numbers(), saved_numbers(GradientCheckpointing())
    as_one = saved_numbers(GradientCheckpointing(lambda model: model[2]))
    assert plain > 12 * one_map and by_block < 6 * one_map and as_one <= by_block - 2 * one_map


# ---- which blocks


def default_blocks(model):
    cb, learn = GradientCheckpointing(), make_learn()
    learn.model = model
    cb.before_fit(learn)
    found = [type(module).__name__ for module, _ in cb.wrapped]
    cb.after_fit(learn)
    return found


def test_the_usual_networks_are_checkpointed_block_by_block():
    assert default_blocks(resnet18()) == ["BasicBlock"] * 8
    assert (
        default_blocks(nn.Sequential(create_body(resnet18, pretrained=False), create_head(512, 2)))
        == ["BasicBlock"] * 8
    )
    assert default_blocks(efficientnet_lite0()) == ["InvertedResidual"] * 16
    layer = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    assert default_blocks(nn.TransformerEncoder(layer, 3)) == ["TransformerEncoderLayer"] * 3
    assert default_blocks(network()) == ["Block"] * 3


def test_a_network_without_blocks_asks_which_modules():
    with pytest.raises(ValueError, match="This model has no blocks to checkpoint: say which modules"):
        default_blocks(vgg11())
    learn = make_learn(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    with pytest.raises(ValueError, match="no blocks to checkpoint"):
        learn.fit(1, cbs=GradientCheckpointing([]))


def test_modules_may_be_given_in_any_form():
    model = network()
    for modules in (model[2], [model[2]], (module for module in [model[2]]), lambda model: [model[2]],
                    lambda model: model[2], [model[2], model[2]]):  # fmt: skip
        learn, runs, inner_runs = make_learn(model), count_runs(model[2]), count_runs(model[2][0].conv)
        learn.fit(1, cbs=GradientCheckpointing(modules))
        assert (len(runs), len(inner_runs)) == (3 + 1, 2 * 3 + 1)  # in training and validation


def count_runs(module):
    runs = []
    module.register_forward_hook(lambda *args: runs.append(1))
    return runs


def test_what_is_no_module_of_the_model_is_an_error():
    with pytest.raises(TypeError, match=r"takes modules, \[model.layer1, model.layer2\], not 'layer1'"):
        GradientCheckpointing(["layer1"])
    with pytest.raises(TypeError, match="not 'layer1'"):
        make_learn().fit(1, cbs=GradientCheckpointing(lambda model: ["layer1"]))
    with pytest.raises(ValueError, match="Linear to checkpoint is no part of this learner's model"):
        make_learn().fit(1, cbs=GradientCheckpointing([nn.Linear(4, 4)]))


# ---- afterwards


class Fails(Callback):
    def __init__(self, error):
        self.error = error

    def after_loss(self, learn):
        raise self.error


@pytest.mark.parametrize("error", [None, ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
def test_modules_have_their_own_forward_again_after_the_fit(error):
    learn = make_learn()
    before = [set(vars(module)) for module in learn.model.modules()]
    with suppress(ZeroDivisionError, KeyboardInterrupt):
        learn.fit(1, cbs=[GradientCheckpointing(), *([] if error is None else [Fails(error)])])
    assert [set(vars(module)) for module in learn.model.modules()] == before


def test_a_forward_that_was_replaced_is_so_again():
    learn = make_learn()
    block = learn.model[2][0]
    block.forward = own = lambda x: x * 2
    learn.fit(1, cbs=GradientCheckpointing([block]))
    assert block.forward is own


def test_it_serves_one_fit_after_another():
    cb, learn = GradientCheckpointing(), make_learn()
    for _ in range(2):
        runs = count_runs(learn.model[2][0].conv)
        learn.fit(1, cbs=cb)
        assert len(runs) == 2 * 3 + 1
    runs = count_runs(learn.model[2][0].conv)
    learn.fit(1)
    assert len(runs) == 3 + 1


def test_nothing_is_recomputed_while_evaluating():
    learn = make_learn()
    with learn.added_cbs(GradientCheckpointing()):
        runs = count_runs(learn.model[2][0].conv)
        learn.validate()
        learn.get_preds()
        assert len(runs) == 2
