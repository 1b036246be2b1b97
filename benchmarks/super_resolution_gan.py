"""Does a critic make enlarged photos look better than a loss of pixels does?

    python benchmarks/super_resolution_gan.py ../shared/data/hymenoptera --picture before_after.png

Photos of 128 × 128 pixels are reduced to a quarter of the side, stored as poor JPEGs, and enlarged again; a U-Net on a
pretrained EfficientNet-Lite0 is to restore them. It learns by pixels first. Then a critic learns to tell
its photos from real ones, and both are trained together, by `GANLearner.from_learners`, the generator by the critic's
opinion and a loss of features of the first layers. Printed for the validation photos: the peak signal-to-noise ratio,
sharpness (how much neighbouring pixels differ, of the originals' difference), and three perceptual distances in the
pretrained network: the mean difference of its features in later layers, which nothing was trained by; how often they
come together (style); and the kernel distance (KID) of what it sees in the end.
"""

import argparse
import io
import time

from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.transforms.v2 import functional as tv
from warmstart.data.transforms import Transform
from warmstart.vision.gan import *

SIZE, FACTOR, QUALITY = 128, 4, 40


class Spoil(Transform):
    """The first image of a sample, as a camera of a sixteenth of the pixels would have stored it; for `item_tfms`."""

    order = 50

    def __call__(self, sample, rand):
        content = io.BytesIO()
        few = tv.resize(sample[0], [SIZE // FACTOR] * 2, antialias=True)
        Image.fromarray(few.permute(1, 2, 0).numpy()).save(content, "jpeg", quality=QUALITY)
        few = ImageBlock().encode(content.getvalue())
        return (tv.resize(few, [SIZE] * 2, tv.InterpolationMode.BICUBIC), *sample[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/hymenoptera"))
    parser.add_argument("--epochs", type=int, nargs=3, default=(4, 4, 6), help="by pixels, of the critic, of both")
    parser.add_argument(
        "--weights", type=float, nargs=2, default=(1.0, 1.0), help="of the critic's opinion, of likeness"
    )
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    set_seed(0)
    begin, (n_gen, n_critic, n_both) = time.perf_counter(), args.epochs
    data = photos(args.folder)
    gen_learn = unet_learner(data, efficientnet_lite0, loss_func=L1Loss(), y_range=(-0.1, 1.1), lr=1e-3)
    gen_learn.fit_one_cycle(1, 2e-3)
    gen_learn.unfreeze()
    gen_learn.fit_one_cycle(n_gen, slice(1e-5, 1e-3))
    spoilt, _, sharp = gen_learn.get_preds(with_input=True)
    mean, std = (torch.tensor(stat)[:, None, None] for stat in efficientnet_lite0.normalisation)
    kinds = {"enlarged": spoilt * std + mean, "by pixels": gen_learn.get_preds()[0]}
    critic_learn = critic_of(gen_learn, n_critic)
    gen_learn.loss_func = features([0.05, 0.03, 0.01, 0, 0])
    switcher = AdaptiveGANSwitcher(critic_thresh=0.65)
    kept_statistics = [cb for cb in gen_learn.cbs if isinstance(cb, BnFreeze)]
    learn = GANLearner.from_learners(gen_learn, critic_learn, switcher, tuple(args.weights), cbs=kept_statistics)
    learn.fit(n_both, [2e-6, 1e-4, 2e-4])
    kinds |= {"with a critic": learn.get_preds()[0], "original": sharp}
    kinds = {name: images.clamp(0, 1) for name, images in kinds.items()}
    print(f"{time.perf_counter() - begin:.0f} s")
    report(kinds, sharp)
    if args.picture:
        show(kinds, args.picture)


def photos(folder: Path) -> DataBunch:
    block = DataBlock(
        (ImageBlock, ImageBlock),
        get_items=get_image_files,
        get_y=lambda file: file,
        splitter=GrandparentSplitter("train", "val"),
        item_tfms=[Resize(SIZE), Spoil()],
        batch_tfms=aug_transforms(max_lighting=0, max_rotate=0, max_warp=0, max_zoom=1),
    )
    return block.databunch(folder, bs=8, seed=0, num_workers=0)


def critic_of(gen_learn: Learner, n_epoch: int) -> Learner:
    """A critic that has learned to tell what the generator makes from real photos."""

    def both_kinds(split: str) -> TensorDataset:
        made, real = gen_learn.get_preds(split)
        labels = torch.tensor([0.0] * len(made) + [1.0] * len(real))
        return TensorDataset(torch.cat([made, real]), labels)

    data = DataBunch.from_dsets(both_kinds("train"), both_kinds("valid"), bs=16, seed=0)
    loss = AdaptiveLoss(nn.BCEWithLogitsLoss())
    learn = Learner(data, gan_critic(nf=32), loss, metrics=critic_accuracy, lr=1e-3, wd=1e-3)
    learn.fit_one_cycle(n_epoch, 1e-3)
    return learn


def features(weights: list[float], style_weight: float = 0.0) -> FeatureLoss:
    """Pixels, and the layers of the pretrained network by how far inside they are."""
    body = create_body(efficientnet_lite0)
    return FeatureLoss(body, weights=weights, style_weight=style_weight, stats=efficientnet_lite0.normalisation)


def report(kinds: dict[str, torch.Tensor], sharp: torch.Tensor) -> None:
    loss = features([0, 0, 0, 1, 1], style_weight=1e3)
    encoder = nn.Sequential(Normalised(), create_body(efficientnet_lite0), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    rows = {}
    with torch.no_grad():
        for name, images in kinds.items():
            parts = [part_by_part(loss, a, b) for a, b in zip(images.split(16), sharp.split(16), strict=True)]
            kid = KID(encoder)
            for a, b in zip(images.split(16), sharp.split(16), strict=True):
                kid.update(a, b)
            error = (images - sharp).square().mean((1, 2, 3)).clamp_min(1e-10)
            rows[name] = {
                "psnr": (-10 * error.log10()).mean().item(),
                "sharpness": (images.diff(dim=-1).abs().mean() / sharp.diff(dim=-1).abs().mean()).item(),
                "features": float(np.mean([part[0] for part in parts])),
                "style": float(np.mean([part[1] for part in parts])),
                "kid": float(kid.compute()),
            }
    print(pd.DataFrame(rows).T.round(3).to_string())


class Normalised(nn.Module):
    def forward(self, images):
        mean, std = (torch.tensor(stat)[:, None, None] for stat in efficientnet_lite0.normalisation)
        return (images - mean) / std


def part_by_part(loss: FeatureLoss, images: torch.Tensor, sharp: torch.Tensor) -> tuple[float, float]:
    """The terms of features, and those of style."""
    loss(images, sharp)
    sums = [sum(part.item() for name, part in loss.parts.items() if name.startswith(kind)) for kind in ("feat", "sty")]
    return sums[0], sums[1]


def show(kinds: dict[str, torch.Tensor], file: Path) -> None:
    chosen = range(0, len(kinds["original"]), len(kinds["original"]) // 5)[:5]
    images = [images[i] for i in chosen for images in kinds.values()]
    show_images(images, nrows=len(chosen), titles=[*kinds, *[""] * (len(images) - len(kinds))])
    plt.gcf().savefig(file, dpi=110)


if __name__ == "__main__":
    main()
