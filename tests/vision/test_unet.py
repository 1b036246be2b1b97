"""A U-Net around any body: its sizes, what its options do, and that nothing of one pass or copy is left in another."""

import copy
import weakref

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Permute
from warmstart.callbacks import GradientCheckpointing
from warmstart.data import DataBunch
from warmstart.learner import CrossEntropyLoss, Learner, launch, set_seed
from warmstart.vision import DynamicUnet, create_body, efficientnet_lite0


def tiny_body():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True)),
        nn.Conv2d(12, 16, 3, 2, 1),
    )  # fmt: skip


def tiny_unet(**options):
    torch.manual_seed(0)
    return DynamicUnet(tiny_body(), 5, **options)


BODIES = {
    "torchvision's": lambda: create_body(torchvision.models.resnet18, pretrained=False),
    "ours": lambda: create_body(efficientnet_lite0, pretrained=False),
    "of a stem with stride 4": lambda: nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2)),
    "with channels last inside": lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 2, 2), Permute([0, 2, 3, 1]), nn.LayerNorm(8)),
        nn.Sequential(Permute([0, 3, 1, 2]), nn.Conv2d(8, 16, 2, 2)),
    ),
    "own": tiny_body,
    "of a single layer": lambda: nn.Conv2d(3, 6, 3, padding=1),
}


@pytest.mark.parametrize("make_body", BODIES.values(), ids=BODIES)
def test_any_body_gives_outputs_of_exactly_the_inputs_size(make_body):
    model = DynamicUnet(make_body(), 5).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 97, 123)).shape == (1, 5, 97, 123)


def test_timms_bodies_do_as_well():
    pytest.importorskip("timm")
    model = DynamicUnet(create_body("test_efficientnet", pretrained=False), 5)
    assert model(torch.randn(2, 3, 70, 65)).shape == (2, 5, 70, 65)


@settings(max_examples=15, deadline=None)
@given(st.integers(9, 80), st.integers(9, 80), st.booleans(), st.booleans())
def test_any_size_fits(height, width, blur, last_cross):
    model = tiny_unet(blur=blur, last_cross=last_cross).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, height, width)).shape == (1, 5, height, width)


def test_the_decoder_of_a_resnet34_is_as_wide_as_fastais():
    decoder = DynamicUnet(create_body(torchvision.models.resnet34, pretrained=False), 12).decoder
    assert [block.n_out for block in decoder.blocks] == [512, 384, 256, 96]
    assert decoder.last[0].convs[0][0].weight.shape == (99, 99, 3, 3)
    wide = DynamicUnet(nn.Conv2d(3, 2048, 1, 2), 12).decoder
    assert wide.middle[-1][0].weight.shape == (512, 1024, 3, 3)


def test_every_map_of_the_body_reaches_the_output():
    model = tiny_unet().eval()
    with torch.no_grad():
        x = torch.randn(1, 3, 32, 32)
        maps = [torch.randn(1, skip.n_channels, skip.size // 2, skip.size // 2) for skip in model.skips]
        deepest, before = torch.randn(1, 16, 4, 4), None
        for i in range(len(maps) + 2):
            changed = [m + (j == i) * torch.randn_like(m) for j, m in enumerate([*maps, deepest, x])]
            output = model.decoder(changed[-1], changed[-2], changed[:-2])
            plain = model.decoder(x, deepest, maps)
            assert not output.allclose(plain, atol=1e-3), i
            before = plain if before is None else before
            assert plain.equal(before)


# ---- options


def test_the_image_is_seen_last_unless_told_otherwise():
    model, x = tiny_unet(last_cross=False).eval(), torch.randn(1, 3, 16, 16)
    crossed = tiny_unet(n_in=3)
    assert crossed.decoder.last[0].convs[0][0].in_channels == model.decoder.last[0].convs[0][0].in_channels + 3
    with torch.no_grad():
        model.body[0].weight.zero_()
        assert model(x).equal(model(torch.randn(1, 3, 16, 16)))


def test_outputs_are_within_y_range():
    model = tiny_unet(y_range=(-1, 3))
    nn.init.normal_(model.decoder.last[1][0].weight, std=30)
    output = model(torch.randn(2, 3, 32, 32))
    assert -1 <= output.min() < -0.99 and 2.99 < output.max() <= 3


def test_blur_may_leave_out_the_last_upsampling_of_a_block():
    def blurred(model):
        return [any(isinstance(m, nn.AvgPool2d) for m in block.modules()) for block in model.decoder.blocks]

    assert blurred(tiny_unet()) == [False, False]
    assert blurred(tiny_unet(blur=True)) == [True, True]
    assert blurred(tiny_unet(blur=True, blur_final=False)) == [True, False]


def test_norms_are_batch_weight_or_none():
    def n_batch_norms(model):
        return sum(isinstance(m, nn.BatchNorm2d) for m in model.decoder.modules())

    weighted = tiny_unet(norm="weight")
    assert n_batch_norms(tiny_unet(norm=None)) == 0
    assert n_batch_norms(weighted) == len(weighted.skips) + 1  # of the body's maps
    assert n_batch_norms(tiny_unet()) > n_batch_norms(weighted)
    conv = weighted.decoder.blocks[0].convs[0][0]
    assert conv.parametrizations.weight.original0.shape == (conv.out_channels, 1, 1, 1)
    assert weighted(torch.randn(1, 3, 16, 16)).isfinite().all()


def test_self_attention_is_at_the_third_finest_map():
    model = DynamicUnet(create_body(torchvision.models.resnet18, pretrained=False), 2, self_attention=True)
    attends = [any("SelfAttention" in type(m).__name__ for m in block.modules()) for block in model.decoder.blocks]
    assert attends == [False, True, False, False]


def test_the_middle_of_a_bottle_is_half_as_wide():
    convs = tiny_unet(bottle=True).decoder.last[0].convs
    assert convs[0][0].out_channels == convs[0][0].in_channels // 2 == convs[1][0].in_channels


WRONG = {
    "n_out=0": {"n_out": 0},
    r"not \(1, 0\)": {"y_range": (1, 0)},
    "norm is 'batch', 'weight' or None, not 'layer'": {"norm": "layer"},
    "accepts no batch of 4 channels": {"n_in": 4},
    "body that returns maps": {"body": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())},
}


@pytest.mark.parametrize(("message", "options"), WRONG.items(), ids=WRONG)
def test_a_wrong_argument_is_an_error_that_says_what_to_give(message, options):
    with pytest.raises(ValueError, match=message):
        DynamicUnet(**{"body": tiny_body(), "n_out": 2, **options})


# ---- one pass, one copy


def tensors_of(model):
    """Tensors that modules hold and that are no parameter or buffer."""
    return [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]


def test_nothing_of_a_batch_is_kept():
    model, maps = tiny_unet(), []
    for skip in model.skips:
        model.body.get_submodule(skip.path).register_forward_hook(
            lambda m, args, output: maps.append(weakref.ref(output))
        )
    model(torch.randn(2, 3, 32, 32)).mean().backward()
    model.body(torch.randn(2, 3, 32, 32))
    assert len(maps) == 4 and all(reference() is None for reference in maps)
    assert tensors_of(model) == []


def test_nothing_is_kept_of_a_pass_that_fails():
    model = tiny_unet()
    model.body[3] = nn.Conv2d(99, 16, 3)
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 3, 32, 32))
    assert tensors_of(model) == []


def test_a_copy_works_by_itself():
    model, x = tiny_unet().eval(), torch.randn(1, 3, 32, 32)
    before = model(x)
    twin = copy.deepcopy(model)
    for p in model.parameters():
        nn.init.zeros_(p)
    assert twin(x).equal(before) and not model(x).equal(before)


def grads_of(model, x):
    torch.manual_seed(1)
    model(x).square().mean().backward()
    return [p.grad for p in model.parameters()]


CHECKPOINTED = {
    "blocks": None,
    "the whole body": lambda model: [model.body],
    "body and decoder": lambda model: [model.body, model.decoder],
}


@pytest.mark.parametrize("modules", CHECKPOINTED.values(), ids=CHECKPOINTED)
def test_activations_may_be_computed_again(modules):
    batches = [(torch.randn(2, 3, 32, 32), torch.randint(5, (2, 32, 32)))]

    def weights(*cbs):
        learn = Learner(DataBunch(batches, device="cpu"), tiny_unet(), CrossEntropyLoss(axis=1), torch.optim.SGD)
        learn.progress.bar = learn.progress.table = False
        learn.fit(2, 0.1, cbs=cbs)
        assert tensors_of(learn.model) == []
        return learn.model.state_dict()

    plain, again = weights(), weights(GradientCheckpointing(modules))
    assert all(value.allclose(again[name], atol=1e-6) for name, value in plain.items())


def test_mixed_precision_and_channels_last_change_little():
    model, x = tiny_unet(self_attention=True).eval(), torch.randn(2, 3, 33, 47)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(x).float() - expected).abs().max() < 0.05 * expected.abs().max()
    model = model.to(memory_format=torch.channels_last)
    assert model(x.to(memory_format=torch.channels_last)).allclose(expected, atol=1e-5)


def test_it_compiles_to_one_graph():
    model = tiny_unet().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for x in torch.randn(2, 1, 3, 16, 16):
        assert compiled(x).allclose(model(x), atol=1e-6)


def weights_after_two_steps():
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 16, 16), torch.randint(5, (8, 16, 16))
    data = DataBunch.from_dsets(list(zip(x, y, strict=True)), bs=2, device="cpu", seed=0)
    learn = Learner(data, tiny_unet(norm=None), CrossEntropyLoss(axis=1), torch.optim.SGD).to_distributed()
    learn.progress.bar = learn.progress.table = False
    learn.fit(1, 0.1)
    return learn.model.decoder.state_dict()


def test_processes_train_the_same_model():
    first, second = launch(weights_after_two_steps, nprocs=2)
    start = tiny_unet(norm=None).decoder.state_dict()
    assert all(value.equal(second[name]) for name, value in first.items())
    assert not first["last.1.0.weight"].equal(start["last.1.0.weight"])


# ---- learning


def test_it_learns_to_find_shapes_in_noise():
    set_seed(0)
    x, y = torch.rand(32, 3, 32, 32), torch.zeros(32, 32, 32, dtype=torch.int64)
    for i in range(32):
        top, left = torch.randint(0, 20, (2,)).tolist()
        y[i, top : top + 12, left : left + 12] = 1
    x = x * 0.7 + 0.3 * y[:, None]
    batches = list(zip(x[:24].split(8), y[:24].split(8), strict=True))
    held_out = (x[24:], y[24:])
    learn = Learner(DataBunch(batches, [held_out], device="cpu"), tiny_unet(), CrossEntropyLoss(axis=1))
    learn.progress.bar = learn.progress.table = False
    learn.fit_one_cycle(25, 1e-2)
    preds, targs = learn.get_preds()
    found = preds.argmax(1)
    overlap = (found & targs).sum() / (found | targs).sum()
    assert overlap > 0.85
    assert F.nll_loss(preds.log(), targs) < 0.2
