"""How many words a second are tokenised and numericalised, in one process and in two?

    python benchmarks/text_pipeline.py ../shared/data/imdb-sample/texts.csv

The words are what `str.split` finds in the texts, so that all contenders are told the same number. In each round every
one takes its turn, so that whatever else the machine does falls on all alike; the median over rounds counts. fast.ai's
tokenizer (on spaCy) and rules take part where both are installed. Then, of a language model's data, the time to make a
batch of 64 windows of 72 tokens.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from warmstart.data import DataBlock
from warmstart.text.blocks import TextBlock
from warmstart.text.lm_data import lm_loader
from warmstart.text.numericalize import Numericalize
from warmstart.text.tokenizer import WordTokenizer

N_FASTAI = 200  # texts that are enough for fast.ai


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, nargs="?", default=Path("../shared/data/imdb-sample/texts.csv"))
    parser.add_argument("--col", default="text")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    texts = pd.read_csv(args.csv)[args.col].tolist()
    print(f"{len(texts)} texts, {n_words(texts):,} words; words per second")
    report(measured(ways(texts), args.rounds))
    milliseconds = [time_of_batch(texts) for _ in range(args.rounds)]
    print(f"a batch of a language model, 64 × 72 tokens: {statistics.median(milliseconds):.2f} ms")


def n_words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


# ---- what is measured: each way with the number of its words


def ways(texts: list[str]) -> dict[str, tuple[Callable[[], Any], int]]:
    n, tokenizer = n_words(texts), WordTokenizer()
    tokens = [tokenizer(text) for text in texts]
    numericalize = Numericalize().setup(tokens)
    found: dict[str, tuple[Callable[[], Any], int]] = {
        "tokenising": (lambda: [tokenizer(text) for text in texts], n),
        "numericalising": (lambda: [numericalize.encode(words) for words in tokens], n),
        "writing out again": (lambda: [tokenizer.decode(words) for words in tokens], n),
        "both and the vocabulary, 1 process": (lambda: whole(texts, 1), n),
        "both and the vocabulary, 2 processes": (lambda: whole(texts, 2), n),
    }
    if importlib.util.find_spec("fastai") and importlib.util.find_spec("spacy"):
        found["fast.ai on spaCy: tokenising"] = (fastai(texts[:N_FASTAI]), n_words(texts[:N_FASTAI]))
    return found


def whole(texts: list[str], n_workers: int) -> None:
    """From texts to numbers as a block does it, without what is kept on disk."""
    block = TextBlock(Uncached(WordTokenizer())).read_ahead(texts, n_workers).setup(texts)
    for text in texts:
        block.numbers(text)


class Uncached:
    """A tokenizer that nothing is known of, so that its work is not kept."""

    def __init__(self, tokenizer: Callable[[str], list[str]]):
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> list[str]:
        return self.tokenizer(text)


def fastai(texts: list[str]) -> Callable[[], Any]:
    from fastai.text.all import SpacyTokenizer, TokenizeWithRules, defaults

    tokenize = TokenizeWithRules(SpacyTokenizer("en"), defaults.text_proc_rules, defaults.text_postproc_rules)
    return lambda: list(tokenize(texts))


def time_of_batch(texts: list[str]) -> float:
    """Milliseconds for a batch, over an epoch."""
    block = DataBlock(TextBlock(is_lm=True), splitter=lambda items: (range(len(items)), [0]))
    loader = lm_loader(block.datasets(texts, seed=0).train, 64, torch.device("cpu"), training=True)
    begin = time.perf_counter()
    n_batches = sum(1 for _ in loader)
    return (time.perf_counter() - begin) / n_batches * 1000


# ---- measuring


def measured(contenders: dict[str, tuple[Callable[[], Any], int]], rounds: int) -> dict[str, list[float]]:
    """Words per second of each in each round; a round before the first is for warming up."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, (way, n) in contenders.items():
            begin = time.perf_counter()
            way()
            if number:
                speeds[name].append(n / (time.perf_counter() - begin))
    return speeds


def report(speeds: dict[str, list[float]]) -> None:
    for name, values in speeds.items():
        print(f"{statistics.median(values):12,.0f}  {name}", flush=True)


if __name__ == "__main__":
    main()
