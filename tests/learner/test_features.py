"""Features of items by any layer, and which items are alike, compared with plain PyTorch."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F
from warmstart.data import CategoryBlock, ColReader, DataBlock, DataBunch, IndexSplitter, RegressionBlock
from warmstart.learner import Embeddings, Learner, MSELoss, launch, load_learner, nearest
from warmstart.vision import ImageBlock, ImageDataBunch, Resize, get_image_files, resnet18, unet_learner, vision_learner


def quiet(learn):
    learn.progress.bar = learn.progress.table = False
    return learn


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 1))


def make_learner():
    torch.manual_seed(1)
    x, y = torch.randn(10, 3, 8), torch.randn(10)
    data = DataBunch.from_dsets(list(zip(x, y, strict=True)), list(zip(x[:7], y[:7], strict=True)), bs=4, device="cpu")
    return quiet(Learner(data, network(), MSELoss())), x


def test_features_are_the_layers_output_averaged_over_places_in_the_order_of_the_dataset():
    learn, x = make_learner()
    expected = learn.model[0](x).mean(2)
    got = learn.features(layer=learn.model[0])
    assert got.shape == (7, 6) and got.dtype == torch.float32 and not got.requires_grad
    assert got.allclose(expected[:7], atol=1e-6)
    assert learn.features(split="train", layer=learn.model[0]).allclose(expected, atol=1e-6)
    assert learn.features(dl=[(x[:2], x[:2]), (x[2:3], x[:1])], layer=learn.model[0]).allclose(expected[:3], atol=1e-6)
    assert learn.features(layer=learn.model[3]).allclose(learn.model[:4](x[:7]), atol=1e-6)


def test_nothing_is_left_behind():
    learn, _ = make_learner()
    cbs = list(learn.cbs)
    learn.features(layer=learn.model[0])
    assert learn.cbs == cbs and not learn.model[0]._forward_hooks
    assert learn.get_preds()[1] is not None


def test_targets_that_fit_no_loss_do_not_matter():
    learn, x = make_learner()
    learn.loss_func = None
    assert learn.features(dl=[(x, "anything")], layer=learn.model[0]).shape == (10, 6)


def test_a_compiled_model_gives_the_same():
    learn, _ = make_learner()
    expected = learn.features(layer=learn.model[0])
    learn.compile(backend="eager")
    learn.fit(0)
    learn.get_preds()
    assert learn.features(layer=learn.model[0]).equal(expected)


def test_a_layer_that_is_not_known_or_does_not_run_is_an_error():
    learn, _ = make_learner()
    with pytest.raises(ValueError, match="Which layer of Sequential is to give the features"):
        learn.features()
    with pytest.raises(ValueError, match="The layer gave NoneType for a batch of 4"):
        learn.features(layer=nn.Linear(2, 2))


# ---- images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nine images: three red, three green, three blue, of noise."""
    folder, numbers = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(9):
        pixels = numbers.integers(0, 60, (40, 40, 3), dtype=np.uint8)
        pixels[..., i % 3] += 190
        (folder / "rgb"[i % 3]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "rgb"[i % 3] / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def learn(photos):
    torch.manual_seed(0)
    data = ImageDataBunch.from_folder(photos, valid_pct=0.4, seed=0, item_tfms=Resize(40), bs=3, num_workers=0)
    return quiet(vision_learner(data.cpu(), resnet18, pretrained=False))


def test_the_default_is_the_body_pooled_also_after_loading(learn, photos, tmp_path):
    files = get_image_files(photos)
    dl = learn.data.test_dl(files)
    learn.model.eval()
    with torch.no_grad():
        expected = torch.cat([learn.model[0](x).mean((2, 3)) for (x,) in dl])
    got = learn.features(dl)
    assert got.shape == (9, 512) and got.allclose(expected, atol=1e-5)
    learn.path = tmp_path
    again = quiet(load_learner(learn.export()))
    assert again.features(again.data.test_dl(files)).equal(got)


def test_a_unet_has_its_bodys_features(photos):
    block = DataBlock((ImageBlock, ImageBlock), get_items=get_image_files, get_y=str, splitter=IndexSplitter([0, 1]))
    data = block.databunch(photos, bs=3, num_workers=0, device="cpu", seed=0)
    learn = quiet(unet_learner(data, resnet18, pretrained=False))
    learn.model.eval()
    with torch.no_grad():
        expected = learn.model.body(next(iter(learn.data.valid_dl))[0]).mean((2, 3))
    assert learn.features().allclose(expected, atol=1e-5)


def test_items_that_look_alike_are_found_and_drawn(learn, photos):
    from matplotlib import pyplot as plt

    files = get_image_files(photos)
    alike = Embeddings.from_learner(learn, dl=learn.data.test_dl(files))
    for file in files:
        index, similarity = alike.nearest(file, k=3)
        assert {files[i].parent for i in index.tolist()} == {file.parent}
        assert files[index[0]] == file and similarity[0].item() == pytest.approx(1, abs=1e-5)
    alike.show_nearest(files[4], k=2)
    titles = [ax.get_title() for ax in plt.gcf().axes if ax.images]
    assert titles[:2] == ["query", "1.000"] and len(titles) == 3 and titles[2].startswith("0.")
    plt.close("all")
    train = Embeddings.from_learner(learn, split="train")
    assert len(train.features) == len(learn.data.train_ds)


def test_the_items_may_be_rows_of_a_table(photos):
    from matplotlib import pyplot as plt

    files = get_image_files(photos)
    df = pd.DataFrame({"file": files, "colour": [file.parent.name for file in files]}, index=range(100, 109))
    block = DataBlock((ImageBlock, CategoryBlock), get_x=ColReader("file"), get_y=ColReader("colour"),
                      splitter=IndexSplitter([1, 4, 7]), item_tfms=Resize(40))  # fmt: skip
    torch.manual_seed(0)
    data = block.databunch(df, bs=3, num_workers=0, device="cpu")
    alike = Embeddings.from_learner(quiet(vision_learner(data, resnet18, pretrained=False)), split="train")
    rows = data.train_ds.items
    index, similarity = alike.nearest(rows.iloc[2], k=2)
    assert index[0] == 2 and similarity[0].item() == pytest.approx(1, abs=1e-5)
    assert rows.iloc[index.tolist()]["colour"].nunique() == 1
    alike.show_nearest(rows.iloc[2], k=2)
    shown = [ax for ax in plt.gcf().axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["query", "1.000", f"{similarity[1]:.3f}"]
    assert np.array_equal(*(ax.images[0].get_array() for ax in shown[:2]))
    assert not np.array_equal(*(ax.images[0].get_array() for ax in shown[1:]))
    plt.close("all")


def test_only_pictures_of_a_datablock_can_be_drawn():
    learn, x = make_learner()
    alike = Embeddings.from_learner(learn, layer=learn.model[0])
    with pytest.raises(ValueError, match="show_nearest draws pictures from a DataBlock"):
        alike.show_nearest(x[0])


def features_of_a_rank():
    torch.manual_seed(0)
    items = torch.randn(12, 4)
    block = DataBlock(
        (RegressionBlock(n_out=4), RegressionBlock), get_x=list, get_y=torch.mean, splitter=IndexSplitter(range(7))
    )
    data = block.databunch(list(items), bs=2, num_workers=0, device="cpu", seed=0)
    layer = nn.Linear(4, 3)
    learn = quiet(Learner(data, nn.Sequential(layer, nn.Linear(3, 1)))).to_distributed()
    return learn.features(layer=layer), layer(items[:7]).detach()


def test_every_process_has_the_features_of_all_items_in_their_order():
    for got, expected in launch(features_of_a_rank, nprocs=2):
        assert got.shape == (7, 3) and got.allclose(expected, atol=1e-6)


# ---- nearest


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_neighbours_are_those_of_the_whole_matrix_of_cosines(n, n_queries, n_features, seed):
    generator = torch.Generator().manual_seed(seed)
    features, queries = (torch.randn(m, n_features, generator=generator) for m in (n, n_queries))
    cosines = F.cosine_similarity(queries[:, None], features[None], dim=-1)
    index, similarity = nearest(features, queries, k=n)
    assert similarity.allclose(cosines.sort(descending=True).values, atol=1e-5)
    assert cosines.gather(1, index).allclose(similarity, atol=1e-5)
    alone = nearest(features, queries[0], k=n)
    assert alone.index.shape == (n,) and alone.similarity.allclose(similarity[0], atol=1e-6)


def test_only_a_part_of_the_similarities_is_in_memory(monkeypatch):
    torch.manual_seed(0)
    features = torch.randn(50, 8)
    whole = nearest(features, features, k=4)
    monkeypatch.setattr("warmstart.learner.features.AT_ONCE", 170)  # three queries
    parts = nearest(features, features, k=4)
    assert parts.index.equal(whole.index) and parts.index[:, 0].equal(torch.arange(50))


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        (torch.zeros(4), 1, r"\(5, 3\), \(4,\)"),
        (torch.zeros(3), 6, "k=6 of 5 features"),
        (torch.zeros(3), 0, "k=0 of 5"),
    ],
)
def test_what_does_not_fit_is_an_error(query, k, message):
    with pytest.raises(ValueError, match=message):
        nearest(torch.randn(5, 3), query, k)
