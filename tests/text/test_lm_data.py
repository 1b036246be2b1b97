import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from warmstart.data import DataBlock
from warmstart.data.sharding import Shard
from warmstart.text.blocks import TextBlock
from warmstart.text.data import TextDataBunch
from warmstart.text.lm_data import LMDataset, lm_loader
from warmstart.text.special import SPECIAL

CPU = torch.device("cpu")


def words(n, begin=0):
    """A text of n words, each of which is in no other."""
    return " ".join(f"w{begin + i}" for i in range(n))


def documents(lengths, seq_len=5, seed=0, shuffled=True):
    begins = np.cumsum([0, *lengths])
    texts = [words(n, begin) for n, begin in zip(lengths, begins, strict=False)]
    vocab = [f"w{i}" for i in range(int(begins[-1]))]
    block = DataBlock(
        TextBlock(str.split, vocab, is_lm=True, seq_len=seq_len), splitter=lambda items: (range(len(items)), [0])
    )
    return block.datasets(texts, seed).train


def rows_of(batches):
    """The tokens of each row, and of its targets, over an epoch."""
    batches = list(batches)
    return torch.cat([x for x, _ in batches], 1), torch.cat([y for _, y in batches], 1)


texts = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@settings(max_examples=60)
@given(lengths=texts, bs=st.integers(1, 5), seq_len=st.integers(1, 9), n=st.integers(1, 3), epoch=st.integers(0, 3))
def test_rows_go_on_and_each_token_is_seen_exactly_once(lengths, bs, seq_len, n, epoch):
    docs = documents(lengths, seq_len)
    stream_length = sum(lengths) + len(lengths)  # each begins with xxbos
    if (stream_length - 1) // (bs * n) < 1:
        with pytest.raises(ValueError, match="too few"):
            LMDataset(docs, bs * n, True)
        return
    loader = lm_loader(docs, bs, CPU, training=True)
    parts = [loader.sharded(Shard(rank, n, training=True), seed=3) for rank in range(n)]
    for part in parts:
        part.set_epoch(epoch)
    inputs, targets = zip(*(rows_of(part) for part in parts), strict=True)
    x, y = torch.cat(inputs), torch.cat(targets)
    assert x.shape == y.shape == (bs * n, (stream_length - 1) // (bs * n))
    assert torch.equal(x[:, 1:], y[:, :-1])  # across batches, too
    stream = x.flatten().tolist()
    assert y.flatten().tolist()[:-1] == stream[1:]  # the next row begins where this one ends
    order = split_at(stream, docs.blocks[0].vocab.index("xxbos"))
    whole = [docs.blocks[0].encode(value).tolist() for value in docs.values(0)]
    left = [text for text in whole if text not in order]
    assert len([text for text in order if text not in whole]) <= 1  # the last may be cut
    assert stream_length - len(stream) <= bs * n and len(left) <= bs * n
    seen = [token for token in stream if token >= len(SPECIAL)]
    assert len(set(seen)) == len(seen)


def split_at(stream, bos):
    """The texts in a stream of tokens."""
    begins = [i for i, token in enumerate(stream) if token == bos]
    return [stream[begin:end] for begin, end in zip(begins, [*begins[1:], len(stream)], strict=True)]


def test_validation_reads_the_texts_as_they_come():
    docs = documents([7, 8, 5])
    x, y = rows_of(lm_loader(docs, 1, CPU))
    stream = torch.cat([docs.blocks[0].encode(value) for value in docs.values(0)])
    assert torch.equal(x[0], stream[:-1]) and torch.equal(y[0], stream[1:])


def test_the_last_batch_may_be_shorter_and_has_all_rows():
    batches = list(lm_loader(documents([40, 11]), 4, CPU, training=True))  # (53 - 1) // 4 = 13 in a row
    assert [tuple(x.shape) for x, _ in batches] == [(4, 5), (4, 5), (4, 3)]
    assert all(x.dtype == y.dtype == torch.int64 for x, y in batches)


def test_each_epoch_has_an_order_of_its_own_and_the_seed_brings_it_back():
    loader, again = (lm_loader(documents([9] * 20), 3, CPU, training=True) for _ in range(2))
    first, second = rows_of(loader)[0], rows_of(loader)[0]
    assert not torch.equal(first, second)
    assert torch.equal(first, rows_of(again)[0])
    again.set_epoch(1)
    assert torch.equal(second, rows_of(again)[0])
    other = lm_loader(documents([9] * 20, seed=1), 3, CPU, training=True)
    assert not torch.equal(first, rows_of(other)[0])


@pytest.mark.parametrize("n", [1, 2])
def test_an_epoch_goes_on_from_any_batch(n):
    loader = lm_loader(documents([9] * 20), 3, CPU, training=True).sharded(Shard(n - 1, n, training=True), seed=5)
    loader.set_epoch(2)
    whole = list(loader)
    loader.set_epoch(2)
    loader.begin = 4
    rest = list(loader)
    assert len(rest) == len(whole) - 4
    assert all(
        torch.equal(a, b) for old, new in zip(whole[4:], rest, strict=True) for a, b in zip(old, new, strict=True)
    )


def test_another_batch_size_has_other_rows_of_the_same_texts():
    loader = lm_loader(documents([9] * 20), 3, CPU, training=True).with_bs(7)
    assert loader.bs == 7 and len(loader) == len(list(loader))
    x, y = rows_of(loader)
    assert x.shape == (7, 28) and torch.equal(x[:, 1:], y[:, :-1])
    shared = lm_loader(documents([9] * 20), 3, CPU, training=True).sharded(Shard(1, 2, training=True), 0).with_bs(5)
    assert rows_of(shared)[0].shape == (5, 19)


def test_validation_is_shared_by_rows_so_that_states_go_on():
    loader = lm_loader(documents([9] * 20), 2, CPU)
    parts = [loader.sharded(Shard(rank, 2), seed=0) for rank in range(2)]
    rows = [rows_of(part) for part in parts]
    assert all(torch.equal(x[:, 1:], y[:, :-1]) for x, y in rows)
    assert torch.equal(torch.cat([x for x, _ in rows]), rows_of(lm_loader(documents([9] * 20), 4, CPU))[0])


def test_batches_know_their_length_and_size():
    loader = lm_loader(documents([9] * 20), 3, CPU, training=True)
    assert loader.bs == 3 and len(loader) == len(list(loader)) == 14  # 66 tokens in a row
    sharded = loader.sharded(Shard(0, 2, training=True), 0)
    assert len(sharded) == len(list(sharded)) == 7
    loader.limit = 2
    assert len(loader) == len(list(loader)) == 2


def test_too_few_tokens_say_which_batch_size_fits():
    with pytest.raises(ValueError, match=r"6 tokens in 1 texts are too few for 64 rows .*: take bs=2 or less"):
        lm_loader(documents([5]), 64, CPU, training=True)


@pytest.mark.parametrize(("n_words", "rows", "length"), [(1, 1, 1), (9, 1, 9), (10, 2, 5), (400, 64, 6)])
def test_few_texts_that_are_only_read_have_as_many_rows_as_windows(n_words, rows, length):
    x, y = rows_of(lm_loader(documents([n_words]), 64, CPU))
    assert x.shape == y.shape == (rows, length)


def test_new_texts_may_be_fewer_than_the_rows_of_training():
    data = TextDataBunch.from_block(
        DataBlock(TextBlock(str.split, is_lm=True, min_freq=1, seq_len=4)), [words(9, 9 * i) for i in range(20)], bs=16,
        seed=0, device="cpu",
    )  # fmt: skip
    batches = list(data.test_dl(["w1 w2", "w3"]))
    assert [tuple(x.shape) for x, _ in batches] == [(1, 4)]
    with pytest.raises(ValueError, match="0 tokens in 0 texts are too few: a language model needs two"):
        data.test_dl([])


def test_a_window_can_be_asked_for_alone():
    dataset = LMDataset(documents([40]), 2, shuffle=False)
    x, y = dataset[0]
    assert torch.equal(x[1:], y[:-1]) and len(x) == 5
    assert len(dataset) == 2 * 4 and dataset[-1][0].shape == (5,)


def test_the_first_batch_is_that_of_epoch_0():
    data = TextDataBunch.from_block(
        DataBlock(TextBlock(str.split, is_lm=True, min_freq=1, seq_len=4)), [words(9, 9 * i) for i in range(20)], bs=2,
        device="cpu", seed=0,
    )  # fmt: skip
    x, y = next(iter(data.train_dl))
    shown = data.one_batch()
    assert torch.equal(shown[0], x) and torch.equal(shown[1], y)


def test_processes_together_have_the_batches_of_one():
    whole = lm_loader(documents([9] * 20), 6, CPU, training=True)
    parts = [lm_loader(documents([9] * 20), 3, CPU, training=True).sharded(Shard(r, 2), seed=0) for r in range(2)]
    for (x, y), *shares in zip(whole, *parts, strict=True):
        assert torch.equal(x, torch.cat([share[0] for share in shares]))
        assert torch.equal(y, torch.cat([share[1] for share in shares]))
