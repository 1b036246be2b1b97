"""The whole way on real handwritten digits: from a folder of images to predictions in another process.

    python nbs/digits_demo.py          # or: make demo

Fine-tunes EfficientNet-Lite0, which was trained on the photos of ImageNet and has never seen a digit, and leaves its
pictures and the exported model in `demo/`. Takes a few minutes on two cores, without GPU and network.
"""

import argparse
import subprocess
import sys
import time

import matplotlib
from digits import digits_folder
from warmstart.vision import *

PREDICT = """
import sys
from warmstart.vision import *

learn = load_learner(sys.argv[1])
for file in sys.argv[2:]:
    digit, index, probs = learn.predict(file)
    print(f"  {file}  is a {digit}, {probs[index]:.1%} sure")
"""


def main() -> None:
    args = parse_args()
    start = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    matplotlib.use("Agg")  # draws into files, needs no window
    set_seed(1)

    data = load_data(digits_folder(args.images))
    print(f"{data}\n")
    data.show_batch()
    save_picture(args.out / "batch.png")

    # digits are unlike photos: the body's statistics may follow them (bn_freeze), and its weights go far (lr_mult)
    learn = vision_learner(data, efficientnet_lite0, metrics=accuracy, path=args.out, bn_freeze=False)
    print("Looking for a learning rate:")
    suggested = learn.lr_find().valley
    save_picture(args.out / "lr_find.png")
    print(f"{suggested:.1e} is a careful choice; images as simple as these allow 1.0e-02\n")

    learn.fine_tune(args.epochs, base_lr=1e-2, lr_mult=2)
    save_pictures_of_training(learn, args.out)

    exported = learn.export("digits.pt")
    print(f"\nExported to {exported} ({exported.stat().st_size / 2**20:.0f} MB). A new process loads it and predicts:")
    predict_in_new_process(exported, data.valid_ds.items[:5])
    done = f"{learn.validate()['accuracy']:.1%} of the images it was not trained on are right"
    print(f"\n{done}, after {time.perf_counter() - start:.0f} s. The pictures are in {args.out}/")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the whole network, after one of its head")
    parser.add_argument("--images", type=int, default=5000, help="how many images to use, at most 5,000")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for pictures and model")
    return parser.parse_args()


def load_data(folder: Path) -> DataBunch:
    """The images of a folder, labelled by its subfolders, a fifth of them for validation."""
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=RandomSplitter(valid_pct=0.2, seed=42),
        item_tfms=Resize(64),  # an EfficientNet halves an image five times: of 28 pixels nothing would be left
        batch_tfms=aug_transforms(do_flip=False),  # a mirrored digit is no digit
    )
    return block.databunch(folder, bs=32)


def save_pictures_of_training(learn: Learner, folder: Path) -> None:
    learn.recorder.plot_losses()
    save_picture(folder / "losses.png")
    learn.recorder.plot_sched()
    save_picture(folder / "schedule.png")
    learn.show_results()
    save_picture(folder / "results.png")
    interp = ClassificationInterpretation.from_learner(learn)
    interp.plot_confusion_matrix()
    save_picture(folder / "confusion_matrix.png")
    interp.plot_top_losses(9)
    save_picture(folder / "top_losses.png")


def save_picture(file: Path) -> None:
    """Write the figure that was drawn last."""
    plt.savefig(file, dpi=120)
    plt.close("all")


def predict_in_new_process(exported: Path, files: list[Path]) -> None:
    """As a program that knows nothing of the training would."""
    subprocess.run([sys.executable, "-c", PREDICT, exported, *files], check=True)


if __name__ == "__main__":
    main()
