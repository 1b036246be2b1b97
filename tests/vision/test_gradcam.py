"""Grad-CAM: on a network whose class activation map is known by a formula, and on all that people may pass."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F
from warmstart.data import CategoryBlock, DataBlock, EndSplitter, MultiCategoryBlock, RegressionBlock
from warmstart.learner import Learner
from warmstart.vision import GradCAM, ImageBlock, MaskBlock, Normalize, Saliency

matplotlib.use("Agg")

VOCAB = ["cat", "dog", "owl"]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def pixels(i, height=16, width=20):
    return np.random.default_rng(i).integers(0, 255, (height, width, 3), np.uint8)


def data_for(block=None, targets=None, n=12):
    targets = targets or [VOCAB[i % 3] for i in range(n)]
    tfms = Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    block = DataBlock((ImageBlock, block or CategoryBlock), splitter=EndSplitter(0.5), batch_tfms=tfms)
    items = [(pixels(i), target) for i, target in enumerate(targets)]
    return block.databunch(items, bs=4, num_workers=0, device="cpu", seed=0)


def network(n_out=3, seed=0):
    """A body of convolutions, then global average pooling and one linear layer."""
    torch.manual_seed(seed)
    first, second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 6, 3, padding=1)
    body = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, n_out))


@pytest.fixture
def learn():
    return Learner(data_for(), network())


def class_activation_map(learn, item, number):
    """Zhou et al. 2016: the body's channels weighted by the class's row of the linear layer; scaled as Grad-CAM's."""
    with torch.no_grad():
        xb = learn.data.input_batch(item)
        cam = (learn.model[0](xb[0]) * learn.model[3].weight[number].view(1, -1, 1, 1)).sum(1, keepdim=True).relu()
        cam = F.interpolate(cam, xb[0].shape[-2:], mode="bilinear")[0, 0]
    return cam / cam.max() if cam.any() else cam


@pytest.mark.parametrize("number", [0, 1, 2])
def test_it_is_the_class_activation_map_where_that_exists(learn, number):
    item = (pixels(50),)
    seen = GradCAM(learn)(item, VOCAB[number])
    torch.testing.assert_close(seen, class_activation_map(learn, item, number))
    assert seen.shape == (16, 20) and seen.min() >= 0 and seen.max() in (0, 1)
    assert seen.equal(GradCAM(learn)(item, number))


def test_without_a_target_it_is_for_what_is_predicted(learn):
    items = [(pixels(i),) for i in range(50, 60)]
    cam = GradCAM(learn)
    maps = cam.maps(items)
    assert maps.shape == (10, 16, 20) and maps.any()
    labels = [learn.predict(item).decoded for item in items]
    for item, seen, label in zip(items, maps, labels, strict=True):
        torch.testing.assert_close(seen, class_activation_map(learn, item, VOCAB.index(label)))
    one = cam.maps(items, "owl")[3]
    torch.testing.assert_close(one, cam(items[3], "owl"))


def test_it_sees_where_the_light_is():
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    for p, value in zip(model.parameters(), (1.0, -3.0, torch.tensor([[0.0], [-1.0], [1.0]]), 0.0), strict=True):
        nn.init.constant_(p, value) if isinstance(value, float) else p.data.copy_(value)
    picture = np.zeros((16, 20, 3), np.uint8)
    picture[2:6, 12:18] = 255
    cam = GradCAM(Learner(data_for(), model))
    assert (cam((picture,), "owl") == (torch.tensor(picture[..., 0]) == 255)).all()
    assert not cam((picture,), "dog").any()  # against which it speaks
    cam.show((picture,), ["owl", "dog"])
    titles = [ax.get_title() for ax in plt.gcf().axes]
    assert titles[0] == "" and titles[1].startswith("owl 0.") and "nothing speaks for it" in titles[2]


def state_of(model):
    return (
        [module.training for module in model.modules()],
        [(p.requires_grad, p.grad, p.detach().clone()) for p in model.parameters()],
        [b.clone() for b in model.buffers()],
        [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()],
    )


@pytest.mark.parametrize("make", [GradCAM, Saliency, lambda learn: Saliency(learn, n_noisy=2)])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_model_stays_as_it_was(make, frozen):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(6, 3))  # fmt: skip
    learn = Learner(data_for(), model)
    model.requires_grad_(not frozen)
    model.train()
    model[1].eval()
    before = state_of(model)
    evidence = make(learn)
    first = evidence((pixels(1),))
    evidence.show((pixels(1),), "owl")
    with pytest.raises(ValueError, match="target='cow'"):
        evidence((pixels(1),), "cow")
    assert first.equal(evidence((pixels(1),))) and first.any()
    torch.testing.assert_close(state_of(model), before)


def test_any_layer_of_the_model_may_be_chosen(learn):
    early = GradCAM(learn, learn.model[0][0])
    assert early((pixels(3),), 1).shape == (16, 20)
    assert not torch.equal(early((pixels(3),), 1), GradCAM(learn)((pixels(3),), 1))
    assert torch.equal(GradCAM(learn, learn.model[0])((pixels(3),), 1), GradCAM(learn)((pixels(3),), 1))
    with pytest.raises(ValueError, match="The layer is not a part of the model: Conv2d"):
        GradCAM(learn, nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match=r"Linear gives no map \(bs, c, h, w\), but \(1, 3\)"):
        GradCAM(learn, learn.model[3])((pixels(3),))


def test_a_network_without_maps_is_told_what_is_lacking():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 20, 3))
    with pytest.raises(ValueError, match=r"No layer of Sequential gives a map .* images of \(16, 20\) pixels"):
        GradCAM(Learner(data_for(), flat))((pixels(0),))
    assert Saliency(Learner(data_for(), flat))((pixels(0),)).shape == (16, 20)


def test_several_labels_and_numbers_have_evidence_too():
    labels = data_for(MultiCategoryBlock, [["cat"], ["dog", "owl"], []] * 4)
    seen = GradCAM(Learner(labels, network()))
    torch.testing.assert_close(seen((pixels(9),), "owl"), class_activation_map(seen.learn, (pixels(9),), 2))
    assert seen((pixels(9),)).shape == (16, 20)

    number = GradCAM(Learner(data_for(RegressionBlock, [float(i) for i in range(12)]), network(1)))
    torch.testing.assert_close(number((pixels(9),)), class_activation_map(number.learn, (pixels(9),), 0))
    number.show((pixels(9),))
    assert plt.gcf().axes[1].get_title().startswith("output 0 ")

    two = GradCAM(Learner(data_for(RegressionBlock, [[float(i), 1.0] for i in range(12)]), network(2)))
    torch.testing.assert_close(two((pixels(9),), 1), class_activation_map(two.learn, (pixels(9),), 1))
    with pytest.raises(ValueError, match="2 outputs that are no labels: pass target="):
        two((pixels(9),))
    with pytest.raises(ValueError, match="target=2: pass the number of one of the 2 outputs"):
        two((pixels(9),), 2)


def test_of_a_segmentation_the_mean_of_a_classes_outputs_counts():
    masks = [np.zeros((16, 20), np.uint8)] * 12
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 1))
    learn = Learner(data_for(MaskBlock(VOCAB), masks), model)
    with torch.no_grad():
        maps = model[:2](learn.data.input_batch((pixels(2),))[0])[0]
        expected = (model[2].weight[1].view(-1, 1, 1) * maps).sum(0).relu()
    assert expected.any()
    torch.testing.assert_close(GradCAM(learn)((pixels(2),), "dog"), expected / expected.max())
    GradCAM(learn).show((pixels(2),), "dog")
    assert plt.gcf().axes[1].get_title() == "dog"


def test_the_image_is_drawn_as_the_model_sees_it_with_the_map_over_it(learn):
    GradCAM(learn).show((pixels(4),), ["cat", "owl"])
    plain, cat, owl = plt.gcf().axes
    for ax in (plain, cat, owl):
        assert np.allclose(ax.images[0].get_array(), pixels(4) / 255, atol=1e-6)
    probs = learn.predict((pixels(4),)).probs
    assert [cat.get_title(), owl.get_title()] == [f"cat {probs[0]:.2f}", f"owl {probs[2]:.2f}"]
    assert np.allclose(owl.images[1].get_array(), GradCAM(learn)((pixels(4),), "owl"))
    assert owl.images[1].get_extent() == owl.images[0].get_extent()


def test_a_compiled_model_is_looked_into(learn):
    expected = GradCAM(learn)((pixels(4),), "owl")
    learn.compile(backend="eager")
    learn.predict((pixels(4),))
    torch.testing.assert_close(GradCAM(learn)((pixels(4),), "owl"), expected)


# ---- saliency


def test_saliency_of_a_linear_model_is_the_size_of_its_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 20, 3))
    expected = model[1].weight[1].detach().view(3, 16, 20).abs().amax(0)
    learn = Learner(data_for(), model)
    torch.testing.assert_close(Saliency(learn)((pixels(0),), "dog"), expected / expected.max())
    torch.testing.assert_close(Saliency(learn, n_noisy=3)((pixels(0),), "dog"), expected / expected.max())


def test_smoothgrad_averages_over_noisy_copies_and_repeats_itself():
    learn = Learner(data_for(), network())
    image = learn.data.input_batch((pixels(5),))[0]
    scale = 0.2 * (image.max() - image.min())
    noise = torch.Generator().manual_seed(0)
    total = torch.zeros(16, 20)
    for _ in range(4):
        noisy = (image + scale * torch.randn(image.shape, generator=noise)).requires_grad_()
        learn.model(noisy)[0, 2].backward()
        total += noisy.grad[0].abs().amax(0)
    seen = Saliency(learn, n_noisy=4, noise=0.2)((pixels(5),), "owl")
    torch.testing.assert_close(seen, total / total.max())
    assert seen.equal(Saliency(learn, n_noisy=4, noise=0.2)((pixels(5),), "owl"))
    with pytest.raises(ValueError, match="neither can be negative"):
        Saliency(learn, n_noisy=-1)


def test_saliency_is_drawn_by_itself():
    Saliency(Learner(data_for(), network())).show((pixels(4),), "cat")
    image, saliency = plt.gcf().axes
    assert np.asarray(image.images[0].get_array()).shape == (16, 20, 3)
    assert len(saliency.images) == 1 and np.asarray(saliency.images[0].get_array()).shape == (16, 20)
