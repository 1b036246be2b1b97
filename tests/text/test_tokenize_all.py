import os

import numpy as np
import pytest
from warmstart.data import clear_cache, list_caches
from warmstart.text import tokenize_all as module
from warmstart.text.tokenize_all import tokenize_all
from warmstart.text.tokenizer import WordTokenizer

TEXTS = [(f"Text number {i} has {'many ' * (i % 7)}words.",) for i in range(300)]


def all_of(tokens):
    return [tokens[i] for i in range(len(tokens))]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 500)


@pytest.fixture
def worth_keeping(monkeypatch):
    monkeypatch.setattr(module, "WORTH_KEEPING", 0)


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_any_number_of_processes_gives_the_same(small_chunks, n_workers):
    alone, together = tokenize_all(TEXTS, WordTokenizer(), 0), tokenize_all(TEXTS, WordTokenizer(), n_workers)
    assert alone.words == together.words
    assert np.array_equal(alone.ids, together.ids) and np.array_equal(alone.ends, together.ends)
    assert all_of(alone)[3] == ["xxbos", *WordTokenizer()(TEXTS[3][0])]


def test_a_function_of_ones_own_works_in_processes(small_chunks):
    assert all_of(tokenize_all(TEXTS, lambda text: text.split(), 2))[1] == ["xxbos", *TEXTS[1][0].split()]


def test_no_text_is_no_work():
    assert len(tokenize_all([], WordTokenizer())) == 0


def test_a_second_run_reads_what_the_first_wrote(worth_keeping, home, monkeypatch):
    first = tokenize_all(TEXTS, WordTokenizer())
    monkeypatch.setattr(WordTokenizer, "__call__", None)  # so that it would fail
    second = tokenize_all(TEXTS, WordTokenizer())
    assert all_of(first) == all_of(second)
    assert [file.name for file in (home / "tokens").glob("*/*.npz")] == ["tokens.npz"]


def test_other_texts_and_other_tokenizers_are_kept_apart(worth_keeping, home):
    tokenize_all(TEXTS, WordTokenizer())
    assert all_of(tokenize_all(TEXTS, WordTokenizer(lower=False)))[0][1] == "Text"
    assert len(tokenize_all(TEXTS[1:], WordTokenizer())) == len(TEXTS) - 1
    assert tokenize_all([("ab", "c")], WordTokenizer()).words != tokenize_all([("a", "bc")], WordTokenizer()).words
    assert len(list((home / "tokens").iterdir())) == 5


def test_the_work_of_a_function_of_ones_own_is_not_kept(worth_keeping, home):
    tokenize_all(TEXTS, str.split)
    tokenize_all(TEXTS, WordTokenizer(rules=[lambda text: text]))
    assert not (home / "tokens").exists()


def test_what_is_kept_is_listed_and_cleared(worth_keeping, home):
    tokenize_all(TEXTS, WordTokenizer())
    table = list_caches()
    size = sum(file.stat().st_size for file in (home / "tokens").glob("*/tokens.npz"))
    assert table[["items", "size"]].to_numpy().tolist() == [[300, size]]
    assert table["files"][0] == "texts: Text number 0 has words." and "WordTokenizer" in table["item_tfms"][0]
    os.utime(table["path"][0] / "about.json", (0, 0))
    tokenize_all(TEXTS, WordTokenizer())  # which uses it
    assert len(clear_cache(days=1)) == 0
    assert clear_cache()["path"].tolist() == table["path"].tolist()
    assert len(list_caches()) == 0 and list((home / "tokens").iterdir()) == []


def test_the_least_recently_used_make_room(worth_keeping, home, monkeypatch):
    tokenize_all(TEXTS, WordTokenizer())
    size = list_caches()["size"][0]
    monkeypatch.setattr(module, "MOST", 2.5 * size)
    for n in (1, 2):
        os.utime(list_caches()["path"][0] / "about.json", (n, n))
        tokenize_all(TEXTS[n:], WordTokenizer())
    assert sorted(list_caches()["items"]) == [298, 299]
    monkeypatch.setattr(module, "MOST", size // 2)
    tokenize_all(TEXTS[3:], WordTokenizer())  # which is too large by itself
    assert sorted(list_caches()["items"]) == [298, 299]


@pytest.mark.parametrize("content", ["", "[1]", '{"files": "texts"}', '{"files": 1, "item_tfms": 2, "items": "many"}'])
def test_a_cache_that_does_not_say_what_it_is_of_is_listed_all_the_same(worth_keeping, content):
    tokenize_all(TEXTS, WordTokenizer())
    (list_caches()["path"][0] / "about.json").write_text(content)
    table = list_caches()
    assert len(table) == 1 and table["files"][0] == ""


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "pickle", "ids"])
def test_a_damaged_file_is_made_again(worth_keeping, home, damage):
    whole = all_of(tokenize_all(TEXTS, WordTokenizer()))
    (file,) = (home / "tokens").glob("*/*.npz")
    with np.load(file) as kept:
        arrays = dict(kept)
    if damage in ("cut", "empty"):
        file.write_bytes(file.read_bytes()[: 100 if damage == "cut" else 0])
    elif damage == "words":
        np.savez(file, **{**arrays, "words": np.frombuffer(b"[1", np.uint8)})
    elif damage == "pickle":
        np.savez(file, **{**arrays, "ids": np.array([object()], object)}, allow_pickle=True)
    else:
        np.savez(file, **{**arrays, "ids": arrays["ids"] + 10**6})
    assert all_of(tokenize_all(TEXTS, WordTokenizer())) == whole


def test_a_text_that_fails_has_no_tokens_and_the_others_have():
    def tokenizer(text):
        if "bad" in text:
            raise ValueError("bad word")
        return text.split()

    assert all_of(tokenize_all([("good",), ("bad",), ("fine",)], tokenizer)) == [
        ["xxbos", "good"],
        [],
        ["xxbos", "fine"],
    ]


def test_a_folder_that_cannot_be_written_does_no_harm(worth_keeping, home):
    (home / "tokens").write_text("a file where a folder should be")
    assert len(tokenize_all(TEXTS, WordTokenizer())) == len(TEXTS)
