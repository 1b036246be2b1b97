import pytest
import torch
from warmstart.data import DataBlock, IndexSplitter
from warmstart.learner import set_seed
from warmstart.vision.gan import GANLearner, Hinge, ImageBlock, NoiseBlock, basic_critic, basic_generator

torch.set_num_threads(1)


def bars(n=40, size=16):
    """Grey images, uint8, of one bright column each, at a random place."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(n, 1, size, size, dtype=torch.uint8)
    for image, column in zip(images, torch.randint(size, (n,), generator=generator), strict=True):
        image[0, :, column] = 255
    return list(images)


@pytest.fixture
def data():
    """Of 32 images to train, 8 in a batch, and 8 to validate, with 4 numbers of noise."""
    block = DataBlock((NoiseBlock(4), ImageBlock("L")), splitter=IndexSplitter(range(32, 40)))
    return block.databunch(bars(), bs=8, num_workers=0, device="cpu", seed=3)


@pytest.fixture
def networks():
    """Makes a generator and a critic, always the same."""

    def make(norm="none"):
        set_seed(1)
        return basic_generator(16, 1, in_sz=4, n_features=2), basic_critic(16, 1, n_features=2, norm=norm)

    return make


@pytest.fixture
def learner(data, networks):
    """Makes a silent learner with the hinge loss."""

    def make(switcher=None, loss=None, norm="none", **options):
        learn = GANLearner.from_models(data, *networks(norm), loss or Hinge(), switcher, **options)
        learn.progress.bar = learn.progress.table = False
        return learn

    return make


@pytest.fixture
def states():
    """A copy of what a network holds, weights and buffers."""
    return lambda network: {name: value.clone() for name, value in network.state_dict().items()}
