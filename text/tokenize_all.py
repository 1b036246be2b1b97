"""Tokenising many texts: in several processes, with a bar, and not again in the next run.

The result is the same for any number of processes. What takes a while is kept in `WARMSTART_HOME/tokens`, in a folder
for each list of texts and tokenizer, which `list_caches` and `clear_cache` know of; the least recently used make room.
A tokenizer that is a function of the user's own may change, so its work is not kept.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from typing import Any

import numpy as np

from ..data.cache_folder import TOKENS, cache_folder, caches_folder, default_limit, make_room, mark_used
from ..data.items import short
from ..data.portable import describe
from ..data.show import in_notebook
from ..data.workers import CAN_FORK, WORKER_LOST
from .marking import Marking
from .tokens import Tokens

__all__ = ["tokenize_all"]

Texts = Sequence[tuple[str, ...]]

FORMAT = 1  # of the files, and of what the tokenizers of this library give
CHUNK = 100_000  # characters that a process gets at a time
MANY = 10  # such parts are worth processes of their own
WORTH_KEEPING = 1_000_000  # characters that take some seconds
MOST = 10 * 10**9  # bytes of all tokens that are kept
_TEXTS: list[Any] = []  # what forked processes work on: tokenizer and texts, which so are not sent to them


def tokenize_all(texts: Texts, tokenizer: Any, n_workers: int | None = None) -> Tokens:
    """The tokens of texts, each of one or several fields; a text that the tokenizer fails on has none.

    `n_workers` processes share the work, by default one for each core, at most 8, where there is much of it.
    """
    about = _about(texts, tokenizer) if _n_characters(texts) >= WORTH_KEEPING else None
    kept = _load(about, len(texts)) if about else None
    if kept is not None:
        return kept
    tokens = Tokens.join(list(_with_bar(_in_processes(texts, tokenizer, n_workers), len(_chunks(texts)))))
    if about:
        with contextlib.suppress(OSError):  # a disk that is full or read-only: the next run tokenises again
            _save(tokens, about)
    return tokens


# ---- the work


def _in_processes(texts: Texts, tokenizer: Any, n_workers: int | None) -> Iterator[Tokens]:
    chunks = _chunks(texts)
    n = min(len(chunks), n_workers if n_workers is not None else _cores() if len(chunks) >= MANY else 1)
    if n <= 1 or not CAN_FORK or hasattr(tokenizer, "batch"):  # which has threads of its own
        yield from (_tokenized(Marking(tokenizer), texts[chunk]) for chunk in chunks)
        return
    _TEXTS[:] = Marking(tokenizer), texts
    try:
        with ProcessPoolExecutor(n, multiprocessing.get_context("fork")) as pool:
            yield from pool.map(_tokenized_chunk, chunks)
    except BrokenProcessPool:
        raise RuntimeError(WORKER_LOST) from None
    finally:
        _TEXTS.clear()


def _tokenized_chunk(chunk: slice) -> Tokens:
    marking, texts = _TEXTS
    return _tokenized(marking, texts[chunk])


def _tokenized(marking: Marking, texts: Texts) -> Tokens:
    try:
        return Tokens.of(marking.batch(texts))
    except Exception:  # of one of them, which is found and reported when it is encoded
        return Tokens.of(_tokens_or_none(marking, fields) for fields in texts)


def _tokens_or_none(marking: Marking, fields: Sequence[str]) -> list[str]:
    try:
        return marking(fields)
    except Exception:  # reported with its item, as above
        return []


def _chunks(texts: Texts) -> list[slice]:
    """Parts of the list with about as many characters each."""
    ends = np.cumsum([_n_characters([fields]) for fields in texts])
    cuts = np.searchsorted(ends, np.arange(CHUNK, int(ends[-1]) if len(ends) else 0, CHUNK)) + 1
    bounds = np.unique(np.clip([0, *cuts, len(texts)], 0, len(texts))).tolist()
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def _n_characters(texts: Iterable[tuple[str, ...]]) -> int:
    return sum(len(field) for fields in texts for field in fields)


def _cores() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _with_bar(parts: Iterator[Tokens], n: int) -> Iterable[Tokens]:
    """The parts, with a bar where somebody sees it and they are many."""
    if n < 20 or not (in_notebook() or sys.stdout.isatty()):
        return parts
    from fastprogress.fastprogress import progress_bar

    return progress_bar(parts, total=n, leave=False)


# ---- kept on disk


def _about(texts: Texts, tokenizer: Any) -> dict[str, Any] | None:
    """What is kept, of which texts; None for a tokenizer of which nobody knows whether it is the same."""
    own: dict[str, Any] = {}
    try:
        description = describe(tokenizer, own)
    except ValueError:  # it has no description, as a lambda has none
        return None
    if own:
        return None
    digest = hashlib.sha256(json.dumps([description, FORMAT]).encode())
    for fields in texts:
        digest.update(json.dumps(fields).encode())
    return {"files": f"texts: {short(texts[0][0])}", "item_tfms": short(repr(tokenizer)), "items": len(texts),
            "digest": digest.hexdigest()}  # fmt: skip


def _load(about: dict[str, Any], n_texts: int) -> Tokens | None:
    """The tokens that are kept; None where there are none, or they are damaged."""
    folder = cache_folder(caches_folder(None, "tokens"), about)
    try:
        with (folder / TOKENS).open("rb") as content, np.load(content, allow_pickle=False) as kept:
            tokens = Tokens(json.loads(kept["words"].tobytes()), kept["ids"], kept["ends"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if not _is_sound(tokens, n_texts):
        return None
    mark_used(folder, about)
    return tokens


def _is_sound(tokens: Tokens, n_texts: int) -> bool:
    ends, ids = tokens.ends, tokens.ids
    if len(ends) != n_texts or ends.dtype != np.int64 or ids.dtype != np.int32 or (n_texts and ends[-1] != len(ids)):
        return False
    in_order = not n_texts or (ends[0] >= 0 and bool((np.diff(ends) >= 0).all()))
    return in_order and (not len(ids) or (ids.min() >= 0 and ids.max() < len(tokens.words)))


def _save(tokens: Tokens, about: dict[str, Any]) -> None:
    words = np.frombuffer(json.dumps(tokens.words).encode(), np.uint8)
    parent = caches_folder(None, "tokens")
    folder = cache_folder(parent, about)
    room = min(MOST, default_limit(parent)) - words.nbytes - tokens.ids.nbytes - tokens.ends.nbytes
    if room < 0:
        return
    make_room(parent, folder, room)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{TOKENS}.{os.getpid()}.part"
    try:
        with part.open("wb") as out:
            np.savez(out, words=words, ids=tokens.ids, ends=tokens.ends)
            out.flush()
            os.fsync(out.fileno())
        part.replace(folder / TOKENS)
    finally:
        part.unlink(missing_ok=True)
    mark_used(folder, about)
