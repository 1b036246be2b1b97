"""A convolution that does the work of the frozen BatchNorm after it: the same numbers from less memory."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import densenet121, resnet18
from warmstart.callbacks import BnFreeze
from warmstart.callbacks.folding import conv_bn_pairs, folded
from warmstart.data import DataBunch
from warmstart.learner import Learner, MSELoss


def network(bias: bool = False) -> nn.Sequential:
    """Two convolutions and norms that have seen something."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=bias), nn.BatchNorm2d(4)
    )
    for norm in (model[1], model[4]):
        for values in (norm.running_mean, norm.bias):
            nn.init.normal_(values)
        for values in (norm.running_var, norm.weight):
            nn.init.uniform_(values, 0.5, 2)
    return model.eval().double()


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    model(x).square().mean().backward()
    return [p.grad.clone() for p in model.parameters()]


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """What the backward pass keeps."""
    found: dict[int, int] = {}
    kept = []

    def pack(value: Tensor) -> Tensor:
        kept.append(value)  # so that no memory is used twice
        found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        model(x)
    return sum(found.values())


@pytest.mark.parametrize("bias", [False, True])
def test_results_and_all_gradients_are_the_same(bias):
    model, x = network(bias), torch.randn(2, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    expected, grads = model(x), gradients(model, x)
    fold = folded(conv_bn_pairs(model))
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(gradients(model, x), grads)
    assert model[1](expected[:, :1].expand(-1, 8, -1, -1)).equal(expected[:, :1].expand(-1, 8, -1, -1))  # it rests
    fold.close()
    assert torch.equal(model(x), expected)
    assert all("forward" not in vars(m) and "_norm" not in vars(m) for m in model)


def test_what_is_kept_for_the_backward_pass_is_far_less():
    model, x = resnet18().eval(), torch.randn(2, 3, 64, 64)
    before = saved_bytes(model, x)
    folded(conv_bn_pairs(model))
    weights = sum(p.nbytes for p in model.parameters())
    assert saved_bytes(model, x) - 2 * weights < 0.65 * (before - weights)  # the weights that it makes come to them


def test_norms_that_train_are_left_alone():
    model = network().train()
    x = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    expected = copy.deepcopy(model)(x)
    folded(conv_bn_pairs(model))
    assert torch.equal(model(x), expected) and model[1].num_batches_tracked == 1


def test_a_copy_computes_with_its_own_weights():
    model, x = network(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    fold = folded(conv_bn_pairs(model))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.zero_(), other[1].bias.zero_()
    expected = model(x)
    fold.close()
    torch.testing.assert_close(model(x), expected)
    assert not torch.allclose(other(x), expected)


def test_pairs_are_found_where_a_norm_alone_takes_the_output():
    assert len(conv_bn_pairs(resnet18())) == 20
    assert len(conv_bn_pairs(densenet121())) == 59  # of 121: the others come before their convolutions


class Twice(nn.Module):
    """Uses the output of its first convolution beside the norm, and its second one two times."""

    def __init__(self):
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.norm(x) + x
        return self.other(self.again(self.again(x)))


class Choosy(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.mean() > 0 else F.relu(x)


def test_nothing_is_folded_that_is_used_otherwise_or_cannot_be_traced():
    assert conv_bn_pairs(Twice()) == [] and conv_bn_pairs(Choosy(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))) == []
    hooked = network()
    hooked[0].register_forward_hook(lambda *_: None)
    assert conv_bn_pairs(hooked) == [(hooked[3], hooked[4])]
    nested = nn.Sequential(network())
    nested[0].register_forward_pre_hook(lambda *_: pytest.fail("called"))
    assert conv_bn_pairs(nested) == []


def test_a_fit_with_frozen_statistics_ends_with_the_same_weights(monkeypatch):
    def fit() -> dict:
        model = nn.Sequential(network().float(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        batches = [(torch.randn(8, 3, 9, 9, generator=g), torch.randn(8, 4, generator=g)) for _ in range(4)]
        learn = Learner(DataBunch(batches, batches, device="cpu"), model, MSELoss(), cbs=BnFreeze(model))
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, 1e-4)
        assert all("forward" not in vars(m) for m in model.modules())
        return model.state_dict()

    g = torch.Generator().manual_seed(0)
    weights = fit()
    monkeypatch.setattr("warmstart.callbacks.batchnorm.conv_bn_pairs", lambda model: [])
    g.manual_seed(0)
    torch.testing.assert_close(weights, fit(), rtol=1e-4, atol=1e-5)
