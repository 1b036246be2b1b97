"""What the recipes reach on real images: fine-tuned, from scratch, and pretrained as it comes.

    python benchmarks/accuracy.py --folder ../shared/data --seeds 0 1 2

Needs three image folders below `--folder`: `hymenoptera` (`train` and `val`, a folder per class), `mnist-10k` (`train`
and `valid`), `imagenet-samples` (`images/`, `labels.csv`). What is not there is left out. A quarter of an hour on two
cores; prints the validation accuracy of each, and the median over seeds where training is random.
"""

import argparse
import statistics

from warmstart.vision import *


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("../shared/data"), help="where the three folders are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    for name, measure in (("imagenet-samples", pretrained), ("mnist-10k", from_scratch), ("hymenoptera", fine_tuned)):
        path = args.folder / name
        print(f"{name}: {measure(path, args.seeds) if path.is_dir() else f'left out, no folder {path}'}", flush=True)


def pretrained(path: Path, seeds: list[int]) -> str:
    """EfficientNet-Lite0 with its own thousand classes on photos it has not seen, shown the usual way."""
    block = DataBlock(
        (ImageBlock, CategoryBlock(vocab=list(range(1000)))),
        get_x=ColReader("file", pref=path / "images"),
        get_y=ColReader("class_index"),
        splitter=FuncSplitter(lambda row: row.name % 2 == 0),
        item_tfms=RandomResizedCrop(224),  # for validation the middle 224 of 256 pixels
        batch_tfms=Normalize.from_stats(*efficientnet_lite0.normalisation),
    )
    table = pd.read_csv(path / "labels.csv")
    data = block.databunch(table, bs=50)
    learn = Learner(data, efficientnet_lite0(pretrained=True), metrics=accuracy)
    with learn.no_bar():
        return f"{learn.validate(data.test_dl(table, with_labels=True))['accuracy']:.3f} top-1"


def from_scratch(path: Path, seeds: list[int]) -> str:
    """A small CNN, five epochs of one-cycle."""
    return _over_seeds(lambda seed: _small_cnn(path, seed), seeds)


def _small_cnn(path: Path, seed: int) -> float:
    def layer(n_in: int, n_out: int, stride: int, size: int = 3) -> nn.Sequential:
        conv = nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())

    set_seed(seed)
    data = ImageDataBunch.from_folder(path, bs=64, mode="L", seed=seed)
    body = layer(1, 16, 2, 5), layer(16, 32, 1), layer(32, 32, 2), layer(32, 64, 1), layer(64, 64, 2)
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    learn = Learner(data, model, metrics=accuracy)
    learn.fit_one_cycle(5, 1e-2)
    return learn.recorder.history["accuracy"].iloc[-1]


def fine_tuned(path: Path, seeds: list[int]) -> str:
    """Two classes, 244 photos: `fine_tune(3)` as the first lesson does it."""
    return _over_seeds(lambda seed: _fine_tune(path, seed), seeds)


def _fine_tune(path: Path, seed: int) -> float:
    set_seed(seed)
    data = ImageDataBunch.from_folder(
        path, valid="val", item_tfms=Resize(256), batch_tfms=aug_transforms(size=224), bs=32, seed=seed
    )
    learn = vision_learner(data, efficientnet_lite0, metrics=accuracy)
    learn.fine_tune(3)
    return learn.recorder.history["accuracy"].iloc[-1]


def _over_seeds(measure, seeds: list[int]) -> str:
    values = [measure(seed) for seed in seeds]
    return f"{', '.join(f'{value:.3f}' for value in values)}; median {statistics.median(values):.3f}"


if __name__ == "__main__":
    main()
