import copy

import pytest
import torch
from torch import nn
from warmstart.callbacks.hooks import hook_outputs
from warmstart.learner import lsuv_init

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def deep_network(n_layers=20, bias=True):
    torch.manual_seed(0)
    layers = [
        nn.Sequential(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1, bias=bias), nn.ReLU()) for i in range(n_layers)
    ]
    return nn.Sequential(*layers, nn.ConvTranspose2d(8, 4, 2, 2), nn.Flatten(), nn.Linear(4 * 16 * 16, 5))


def statistics(model, xb):
    """Mean and standard deviation of each layer's output."""
    layers = [m for m in model.modules() if isinstance(m, LAYERS)]
    with hook_outputs(layers) as hooks, torch.no_grad():
        model(xb)
    return torch.tensor([[output.mean(), output.std()] for output in hooks.stored])


@pytest.mark.parametrize("orthogonal", [True, False])
def test_each_layers_output_has_mean_0_and_variance_1(orthogonal):
    model, xb = deep_network(), 5 + 3 * torch.randn(16, 3, 8, 8)
    assert statistics(model, xb)[-4, 1] < 0.1  # signals die out
    assert lsuv_init(model, xb, orthogonal) is model
    means, stds = statistics(model, xb).unbind(1)
    assert means.allclose(torch.zeros(22), atol=1e-4) and stds.allclose(torch.ones(22), atol=1e-3)


def test_without_biases_the_variance_is_1_and_the_mean_what_it_is():
    model, xb = deep_network(3, bias=False), torch.rand(16, 3, 8, 8)
    lsuv_init(model, xb)
    means, stds = statistics(model, xb).unbind(1)
    assert stds.allclose(torch.ones(5), atol=1e-3) and means[:3].abs().max() > 0.05


def test_weights_start_orthogonal_or_keep_their_direction():
    xb = torch.randn(64, 6)
    layer = lsuv_init(nn.Linear(6, 6), xb)
    product = layer.weight @ layer.weight.T
    assert product.allclose(product[0, 0] * torch.eye(6), atol=1e-5)
    layer = nn.Linear(6, 6)
    before = layer.weight.detach().clone()
    lsuv_init(layer, xb, orthogonal=False)
    assert (layer.weight / before).std() < 1e-5


def test_batchnorm_keeps_its_statistics_and_dropout_does_nothing():
    model = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 64)).train()
    xb = torch.randn(256, 4)
    lsuv_init(model, xb)
    assert model[1].running_mean.eq(0).all() and model[1].num_batches_tracked == 0
    assert all(module.training for module in model.modules())
    model[2].eval()
    assert statistics(model, xb)[:, 1].allclose(torch.ones(2), atol=1e-3)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.unused = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(3, 4)
        self.computed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))

    def forward(self, a, b):
        return self.computed(self.one(a) * self.two(b) + self.one(b))


@pytest.mark.parametrize("as_dict", [True, False])
def test_several_inputs_and_layers_that_cannot_be_fitted(as_dict):
    torch.manual_seed(0)
    model, a, b = TwoInputs(), torch.randn(32, 3), 4 * torch.randn(32, 3)
    before = copy.deepcopy(model.state_dict())
    lsuv_init(model, {"b": b, "a": a} if as_dict else (a, b))
    assert model.one(a).std().item() == pytest.approx(1, abs=1e-3)  # the first time that it runs
    assert model.two(b).std().item() == pytest.approx(1, abs=1e-3)
    same = {name for name, value in model.state_dict().items() if value.equal(before[name])}
    assert same == {name for name in before if name.startswith(("unused", "computed"))}


def test_a_compiled_model_is_fitted_too():
    model, xb = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(64, 4)
    model.compile(backend="eager")
    model(xb)
    lsuv_init(model, xb)
    assert model(xb).std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("xb", [torch.zeros(4, 3), torch.full((4, 3), torch.inf)], ids=["constant", "infinite"])
def test_an_output_that_cannot_be_scaled_is_an_error_that_names_the_layer(xb):
    model = nn.Sequential(nn.Identity(), nn.Linear(3, 1, bias=False))
    with pytest.raises(ValueError, match=r"The output of '1' \(Linear\) has a standard deviation of"):
        lsuv_init(model, xb)
    assert not any(m._forward_hooks for m in model.modules())
