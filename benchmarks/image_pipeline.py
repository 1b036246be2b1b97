"""How fast are photos read, augmented and put into batches, next to merely decoding them?

    python benchmarks/image_pipeline.py ../shared/data/imagenet-samples/images

One core, no workers, batches of 50. Each line is a ratio to reading the same files by Pillow alone (`Image.open`,
`convert`, to an array) in the same round; 1 would mean that all else is free. In each round everything takes its turn,
so that whatever else the machine does falls on all alike; the median over rounds counts. Two pipelines: the usual one,
`Resize(256)`, `aug_transforms(size=224)` and `Normalize`; and `RandomResizedCrop(224)` with a flip. Each is read from
the files, as in a first epoch, and from either cache. For comparison torchvision's transforms in a plain `DataLoader`,
and fast.ai where it is installed. At last augmentation alone, of a batch of 50 images of 256 × 256 pixels.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from warmstart.data import Cache
from warmstart.data.randomness import Randomness
from warmstart.data.transforms import apply_transforms
from warmstart.vision import *

BS, N_BATCH_ITEMS = 50, 50
STATS = imagenet_stats
PIPELINES = {
    "Resize(256), aug_transforms(size=224), Normalize": (
        lambda: Resize(256),
        lambda: [*aug_transforms(size=224), Normalize.from_stats(*STATS)],
    ),
    "RandomResizedCrop(224), flip, Normalize": (
        lambda: RandomResizedCrop(224),
        lambda: [*aug_transforms(p_affine=0, p_lighting=0), Normalize.from_stats(*STATS)],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/imagenet-samples/images"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = get_image_files(args.folder)
    if len(files) < BS:
        parser.error(f"{args.folder} holds {len(files)} images: {BS} or more are needed.")
    with tempfile.TemporaryDirectory() as folder:
        ways = {"Pillow, decoding alone": lambda: decode(files), **our_ways(files, Path(folder)), **other_ways(files)}
        print(f"{len(files)} files, one thread; images per second, and the ratio to decoding them by Pillow")
        report(measured(ways, args.rounds), len(files))
    ways = augmentations()
    print(f"\nA batch of {N_BATCH_ITEMS} images of 256 × 256 pixels augmented to 224 × 224")
    report(measured(ways, args.rounds * 4), N_BATCH_ITEMS)


# ---- what is measured


def decode(files: list[Path]) -> None:
    for file in files:
        np.asarray(Image.open(file).convert("RGB"))


def our_ways(files: list[Path], folder: Path) -> dict[str, Callable[[], None]]:
    """An epoch of each pipeline, from the files and from the caches, which are filled first."""
    ways = {}
    for name, (item_tfms, batch_tfms) in PIPELINES.items():
        for cache in (None, "memory", "disk"):
            block = DataBlock(
                (ImageBlock, RegressionBlock),
                get_y=lambda file: 0.0,
                splitter=IndexSplitter([0]),
                item_tfms=item_tfms(),
                batch_tfms=batch_tfms(),
            )
            how = Cache(cache, folder=folder) if cache == "disk" else cache
            data = block.databunch(files, bs=BS, num_workers=0, device="cpu", cache=how, drop_last=False, seed=0)
            if cache:
                epoch(data.train_dl)
            ways[f"{name}, {f'from the cache in {cache}' if cache else 'from files'}"] = partial(epoch, data.train_dl)
    return ways


def other_ways(files: list[Path]) -> dict[str, Callable[[], None]]:
    tfms = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), v2.ToImage()]
    tfms = v2.Compose([*tfms, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*STATS)])
    ways = {"torchvision: RandomResizedCrop(224), flip, Normalize": partial(epoch, DataLoader(Photos(files, tfms), BS))}
    if importlib.util.find_spec("fastai"):
        ways["fast.ai: Resize(256), aug_transforms(size=224), Normalize"] = partial(epoch, fastai_loader(files))
    return ways


class Photos(torch.utils.data.Dataset):
    def __init__(self, files: list[Path], tfms: Callable):
        self.files, self.tfms = files, tfms

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple:
        return self.tfms(Image.open(self.files[i]).convert("RGB")), 0.0


def fastai_loader(files: list[Path]) -> Any:
    import fastai.vision.all as fastai

    tfms = [*fastai.aug_transforms(size=224), fastai.Normalize.from_stats(*STATS)]
    block = fastai.DataBlock(
        (fastai.ImageBlock, fastai.RegressionBlock),
        get_y=lambda file: 0.0,
        splitter=fastai.IndexSplitter([0]),
        item_tfms=fastai.Resize(256),
        batch_tfms=tfms,
    )
    return block.dataloaders(files, bs=BS, num_workers=0, device=torch.device("cpu"), drop_last=False).train


def epoch(dl: Iterable) -> None:
    for _ in dl:
        pass


def augmentations() -> dict[str, Callable[[], Any]]:
    """`aug_transforms` on a batch of float images, ours and fast.ai's."""
    images = torch.rand(N_BATCH_ITEMS, 3, 256, 256)
    tfms, items = aug_transforms(size=224), list(range(N_BATCH_ITEMS))

    def ours() -> None:
        apply_transforms(tfms, (tv_tensors.Image(images),), Randomness(0, 0, items))

    ways: dict[str, Callable] = {"aug_transforms(size=224)": ours}
    if importlib.util.find_spec("fastai"):
        import fastai.vision.all as fastai

        pipeline = fastai.Pipeline(fastai.aug_transforms(size=224), split_idx=0)
        ways["fast.ai: aug_transforms(size=224)"] = lambda: pipeline(fastai.TensorImage(images))
    return ways


# ---- measuring


def measured(ways: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in each round; a round before the first is for warming up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if number:
                times[name].append(time.perf_counter() - begin)
    return times


def report(times: dict[str, list[float]], n: int) -> None:
    """A line for each: images per second, and the median ratio to the first."""
    first = next(iter(times.values()))
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(first, seconds, strict=True))
        print(f"{n / statistics.median(seconds):8.0f}  {ratio:5.2f}  {name}", flush=True)


if __name__ == "__main__":
    main()
