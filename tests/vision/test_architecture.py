import functools
import hashlib
import http.server
import json
import sys
import threading

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms.v2.functional import normalize
from warmstart.data.portable import describe, restore
from warmstart.vision.architecture import Architecture, as_architecture
from warmstart.vision.models import efficientnet_lite0

NET = torchvision.models.shufflenet_v2_x0_5
WEIGHTS = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT


def tiny() -> nn.Module:
    return nn.Linear(4, 2)


def tiny_pretrained(pretrained: bool = True) -> nn.Module:
    return nn.Linear(4, 2 if pretrained else 3)


def tiny_weights(weights: str | None = None) -> nn.Module:
    return nn.Linear(4, 2 if weights == "DEFAULT" else 3)


# what users pass


def test_a_builder_of_torchvision_is_known_by_name():
    assert as_architecture(torchvision.models.resnet34) == Architecture("torchvision", "resnet34")


def test_our_own_is_known_by_name():
    assert as_architecture(efficientnet_lite0) == Architecture("warmstart", "efficientnet_lite0")


def test_a_string_or_function_of_timm_is_known_by_name():
    timm = pytest.importorskip("timm")
    assert as_architecture("convnext_tiny") == Architecture("timm", "convnext_tiny")
    assert as_architecture("resnet18.a1_in1k").name == "resnet18.a1_in1k"
    assert as_architecture(timm.models.convnext_tiny) == Architecture("timm", "convnext_tiny")


def test_any_other_function_is_custom():
    assert as_architecture(tiny) == Architecture("custom", "tiny", tiny)
    assert as_architecture(functools.partial(NET, num_classes=3)).source == "custom"


def test_an_architecture_stays_itself():
    arch = as_architecture(tiny)
    assert as_architecture(arch) is arch


@pytest.mark.parametrize("arch", [nn.Linear(4, 2), 18, None])
def test_a_network_instead_of_a_function_is_an_error_with_the_fix(arch):
    with pytest.raises(TypeError, match=r"resnet34, not resnet34\(\)"):
        as_architecture(arch)


def test_an_unknown_name_is_an_error_with_close_matches():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"'convnxt_tiny'\. Did you mean convnext_tiny"):
        as_architecture("convnxt_tiny")
    with pytest.raises(ValueError, match="no_such_tag"):
        as_architecture("resnet18.no_such_tag")


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:/etc/resnet18"])
def test_only_timms_own_models_are_built_by_name(name):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="timm has no model"):
        Architecture("timm", name).build(pretrained=False)


def test_a_name_without_timm_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'pip install "warmstart\[hub\]"'):
        as_architecture("convnext_tiny")


@pytest.mark.parametrize("arch", [NET, efficientnet_lite0, tiny])
def test_an_architecture_travels_as_json(arch):
    arch = as_architecture(arch)
    assert restore(json.loads(json.dumps(describe(arch))), {"tiny": tiny}) == arch


@pytest.mark.parametrize("source, name", [("web", "resnet18"), ("custom", "tiny"), ("warmstart", "resnet18")])
def test_a_description_of_what_does_not_exist_is_an_error(source, name):
    with pytest.raises(ValueError):
        Architecture(source, name).build(pretrained=False)


# building


@pytest.mark.parametrize("arch", [tiny_pretrained, tiny_weights])
def test_a_function_is_told_of_pretrained_by_either_convention(arch):
    assert as_architecture(arch).build(pretrained=True).out_features == 2
    assert as_architecture(arch).build(pretrained=False).out_features == 3


def test_pretrained_is_never_ignored():
    assert isinstance(as_architecture(tiny).build(pretrained=False), nn.Linear)
    with pytest.raises(ValueError, match="pass pretrained=False"):
        as_architecture(tiny).build(pretrained=True)


def test_a_function_that_returns_no_network_is_an_error():
    with pytest.raises(TypeError, match="returned a int"):
        as_architecture(lambda: 3).build(pretrained=False)


def test_a_timm_model_without_weights_cannot_be_pretrained():
    timm = pytest.importorskip("timm")
    with_weights = {name.split(".")[0] for name in timm.list_pretrained()}
    name = next(name for name in timm.list_models() if name not in with_weights)
    with pytest.raises(ValueError, match="pass pretrained=False"):
        as_architecture(name).build(pretrained=True)


def test_positions_of_a_transformer_fit_its_weights_even_without_them():
    with torch.device("meta"):
        model = as_architecture(torchvision.models.vit_h_14).build(pretrained=False)
    assert model.image_size == 518


# normalisation


def test_normalisation_is_that_of_the_weights():
    assert as_architecture(torchvision.models.resnet34).normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert as_architecture(efficientnet_lite0).normalisation == ((0.498,) * 3, (0.502,) * 3)
    assert as_architecture(tiny).normalisation is None


def test_normalisation_of_timm_is_that_of_its_configuration():
    pytest.importorskip("timm")
    assert as_architecture("vit_tiny_patch16_224").normalisation == ((0.5,) * 3, (0.5,) * 3)


def test_inception_is_normalised_once():
    """torchvision's pretrained Inception changes its usual normalisation to this one inside the network."""
    arch = as_architecture(torchvision.models.inception_v3)
    with torch.device("meta"):
        assert arch.build(pretrained=False).transform_input is False
        torchvisions = torchvision.models.inception_v3(transform_input=True, init_weights=False)
    usual = torchvision.models.Inception_V3_Weights.DEFAULT.transforms()
    image = torch.rand(1, 3, 4, 4)
    converted = torchvisions._transform_input(normalize(image, usual.mean, usual.std))
    torch.testing.assert_close(normalize(image, *arch.normalisation), converted)


def test_a_custom_function_may_carry_normalisation_and_split():
    def arch():
        return tiny()

    arch.normalisation, arch.split = ((0.5,), (0.25,)), lambda model: [list(model.parameters())]
    assert as_architecture(arch).normalisation == ((0.5,), (0.25,))
    assert as_architecture(arch).split is arch.split
    assert as_architecture(tiny).split is None


# downloads


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """An empty folder where torch keeps what it downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


@pytest.fixture
def weights_file(tmp_path):
    """Random weights of the test's network in a file, whose name tells its hash as torchvision's do."""
    (tmp_path / "www").mkdir()
    torch.save(NET().state_dict(), tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    return (tmp_path / "weights.pth").rename(tmp_path / "www" / f"weights-{digest[:8]}.pth")


@pytest.fixture
def served(weights_file, monkeypatch):
    """The same file, at the address from which torchvision will download it."""
    handler = functools.partial(_SilentHandler, directory=weights_file.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(WEIGHTS.value, "url", f"http://127.0.0.1:{server.server_port}/{weights_file.name}")
        yield weights_file
        server.shutdown()
        thread.join()


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def has_weights_of(model: nn.Module, file) -> bool:
    saved = torch.load(file, weights_only=True)
    return all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_pretrained_weights_are_downloaded_once_and_kept(served, torch_home):
    assert has_weights_of(as_architecture(NET).build(pretrained=True), served)
    kept = torch_home / "hub" / "checkpoints" / served.name
    assert kept.is_file()
    served.unlink()
    assert has_weights_of(as_architecture(NET).build(pretrained=True), kept)


def test_without_a_network_the_error_says_what_to_put_where(weights_file, torch_home, monkeypatch):
    monkeypatch.setattr(WEIGHTS.value, "url", f"http://127.0.0.1:1/{weights_file.name}")
    with pytest.raises(ConnectionError, match=r"pass pretrained=False") as error:
        as_architecture(NET).build(pretrained=True)
    kept = torch_home / "hub" / "checkpoints" / weights_file.name
    assert WEIGHTS.url in str(error.value) and str(kept) in str(error.value)

    kept.parent.mkdir(parents=True, exist_ok=True)
    weights_file.rename(kept)  # as the error said
    assert has_weights_of(as_architecture(NET).build(pretrained=True), kept)


def test_without_a_network_random_weights_are_built(torch_home, monkeypatch):
    monkeypatch.setattr(WEIGHTS.value, "url", "http://127.0.0.1:1/nothing.pth")
    assert isinstance(as_architecture(NET).build(pretrained=False), torchvision.models.ShuffleNetV2)


def test_a_failed_download_of_timm_names_the_repository_and_the_cache(monkeypatch):
    timm = pytest.importorskip("timm")

    def offline(*args, pretrained=False, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConnectionError, match=r"https://huggingface.co/timm/resnet18.+models--timm--resnet18"):
        as_architecture("resnet18").build(pretrained=True)
