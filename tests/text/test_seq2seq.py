"""From words to digits: "three hundred twenty one" is "3 2 1"."""

import random

import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from warmstart.data import CategoryBlock, ColReader, DataBlock, IndexSplitter
from warmstart.learner import load_learner, set_seed
from warmstart.text import BLEU, SubwordTokenizer, TeacherForcing, TextBlock, seq2seq_learner
from warmstart.text.seq2seq import Seq2SeqSpec
from warmstart.text.seq2seq_search import beam_search

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]  # fmt: skip
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(n):
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{ONES[n // 100]} hundred" + (f" {in_words(n % 100)}" if n % 100 else "")
    return f"{in_words(n // 1000)} thousand" + (f" {in_words(n % 1000)}" if n % 1000 else "")


def pairs(n, below):
    numbers = random.Random(0).sample(range(below), n)
    return [(in_words(number), " ".join(str(number))) for number in numbers]


def bunch(n=400, below=10_000, bs=50, blocks=None, **changes):
    blocks = blocks or (TextBlock(min_freq=1), TextBlock(min_freq=1))
    block = DataBlock(blocks, splitter=IndexSplitter(range(n * 4 // 5, n)))
    return block.databunch(pairs(n, below), **{"bs": bs, "seed": 0, "device": "cpu", "num_workers": 0, **changes})


def learner(data=None, **options):
    set_seed(0)
    options = {"emb_sz": 32, "n_hid": 64, "n_layers": 1, "drop_p": 0.0, "metrics": BLEU(), **options}
    learn = seq2seq_learner(data or bunch(), **options)
    learn.progress.bar = learn.progress.table = False
    return learn


@pytest.fixture(scope="module")
def trained():
    learn = learner(bunch(2500), drop_p=0.1)
    learn.fit_one_cycle(8, 1.5e-2)
    return learn


def test_it_learns_to_write_numbers_that_it_has_never_read(trained):
    valid = trained.data.valid_ds.items
    found = trained.batch_predict([words for words, _ in valid])
    assert sum(text == digits for text, (_, digits) in zip(found, valid, strict=True)) > 0.95 * len(valid)
    assert trained.validate()["bleu"] > 0.95
    assert trained.predict("seven thousand forty two") == "7 0 4 2" == trained.predict("seven thousand forty two", 5)


def test_a_text_is_translated_alone_as_it_is_among_longer_ones():
    learn = learner()
    learn.model.eval()
    ids = [learn.data.blocks[0].encode(words) for words, _ in pairs(12, 10_000)]
    y = torch.randint(2, learn.data.c, (1, 5))
    batch = learn.data.blocks[0].collate(ids)
    assert (batch == 1).any()
    together, written = learn.model(batch, y.expand(12, -1)), learn.model(batch)
    for i, row in enumerate(ids):
        torch.testing.assert_close(learn.model(row[None], y)[0], together[i], atol=1e-5, rtol=1e-5)
        alone = learn.model(row[None])[0]
        torch.testing.assert_close(alone, written[i, : len(alone)], atol=1e-5, rtol=1e-5)


def test_the_encoder_is_the_bidirectional_gru_of_torch_over_packed_texts():
    torch.manual_seed(0)
    model = Seq2SeqSpec(20, 10, emb_sz=8, n_hid=12, n_layers=1, drop_p=0.0).build()
    reference = torch.nn.GRU(8, 6, batch_first=True, bidirectional=True)
    for (name, p), suffix in [(pair, s) for s in ("", "_reverse") for pair in model.encoder.named_parameters()]:
        if name.startswith("back" if suffix else "ahead"):
            getattr(reference, name.split(".")[-1] + suffix).data.copy_(p.data)
    x = torch.tensor([[2, 5, 7, 9, 4], [2, 6, 8, 1, 1]])
    packed = torch.nn.utils.rnn.pack_padded_sequence(model.encoder.embedding(x), [5, 3], batch_first=True)
    expected, last = reference(packed)
    expected = torch.nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)[0]
    outputs, state = model.encoder(x)
    torch.testing.assert_close(outputs[0], expected[0])
    torch.testing.assert_close(outputs[1, :3], expected[1, :3])
    torch.testing.assert_close(state[0], torch.cat([last[0], last[1]], 1))


def test_without_a_teacher_it_reads_what_it_has_written():
    model = Seq2SeqSpec(20, 10, emb_sz=8, n_hid=12, drop_p=0.0, max_len=6).build().eval()
    x, y = torch.randint(2, 20, (3, 4)), torch.randint(2, 10, (3, 5))
    y[:, 0] = model.begin
    free, unforced = model(x), model(x, y, forced=0.0)
    for row in range(3):
        n = next((i + 1 for i, token in enumerate(free[row].argmax(-1).tolist()) if token == model.pad), 5)
        torch.testing.assert_close(free[row, : min(n, 5)], unforced[row, : min(n, 5, free.shape[1])])
    stepwise = model._guided(y, 1.0, *model.read(x))
    torch.testing.assert_close(stepwise, model(x, y))


def test_training_sees_the_targets_and_validation_does_not():
    learn, seen = learner(), []
    forward = learn.model.forward
    learn.model.forward = lambda *args: seen.append((learn.training, len(args))) or forward(*args)
    learn.fit(1)
    assert set(seen) == {(True, 3), (False, 1)}


def test_the_share_of_true_tokens_falls_in_a_line():
    forcing = TeacherForcing(end_epoch=4, end=0.2)
    assert [round(forcing.probability(epoch), 3) for epoch in (0, 1, 2, 4, 9)] == [1, 0.8, 0.6, 0.2, 0.2]
    assert TeacherForcing().probability(7) == 1
    learn, shares = learner(cbs=TeacherForcing(end_epoch=1)), []
    forward = learn.model.forward
    learn.model.forward = lambda *args: shares.append(args[2:]) or forward(*args)
    learn.fit(2)
    shares = [share for (share,) in filter(None, shares)]
    n = len(learn.data.train_dl)
    assert shares == pytest.approx([1 - i / n for i in range(n)] + [0] * n)
    with pytest.raises(ValueError, match="end_epoch is a number of epochs above 0"):
        TeacherForcing(end_epoch=0)


def test_texts_of_similar_length_are_in_a_batch():
    data = bunch(400, bs=20)
    share = torch.tensor([(x == 1).float().mean() for x, _ in data.train_dl]).mean()
    shuffled = torch.tensor([(x == 1).float().mean() for x, _ in bunch(400, bs=20, shuffle=False).train_dl]).mean()
    assert 3 * share < shuffled
    lengths = [int((x != 1).sum(1).max()) for x, _ in data.valid_dl]
    assert lengths == sorted(lengths, reverse=True)


def test_a_search_with_all_beginnings_finds_the_likeliest_text():
    torch.manual_seed(3)
    model = Seq2SeqSpec(9, 4, emb_sz=4, n_hid=4, n_layers=1, drop_p=0.0, max_len=3, begin=2).build().eval()
    x = torch.tensor([[2, 5, 7]])
    with torch.no_grad():
        found, best = beam_search(model, x, 4**3, length_power=0), None
    for first in (0, 2, 3, None):
        for second in (0, 2, 3, None) if first is not None else (None,):
            text = [token for token in (first, second) if token is not None]
            logits = model(x, torch.tensor([[2, *text]]))[0].log_softmax(-1)
            score = logits.gather(1, torch.tensor([*text, 1])[:, None]).sum().item()
            best = max(best or (score, text), (score, text))
    assert found.tolist() == best[1]
    with pytest.raises(ValueError, match="beam_sz=0"):
        beam_search(model, x, 0)


def test_one_beginning_is_the_likeliest_token_each_time(trained):
    for words, _ in trained.data.valid_ds.items[:20]:
        x = trained.data.input_batch(words)[0]
        greedy = trained.model.eval()(x)[0].argmax(-1)
        assert beam_search(trained.model, x, 1).tolist() == greedy[greedy != 1].tolist()


def test_an_exported_learner_translates(trained, tmp_path):
    loaded = load_learner(trained.export(tmp_path / "numbers.pt"))
    assert loaded.predict("nine hundred seven") == trained.predict("nine hundred seven")
    assert loaded.batch_predict(["one", "two thousand"]) == trained.batch_predict(["one", "two thousand"])
    loaded.data = bunch(100, blocks=tuple(trained.data.blocks))
    loaded.progress.bar = loaded.progress.table = False
    loaded.fit(1, 1e-3)


def test_results_are_shown_with_their_targets(trained, capsys):
    trained.show_results(3)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("input", "target", "prediction")) and "thousand" in shown
    trained.data.show_batch(2)
    assert "thousand" in capsys.readouterr().out


def test_columns_of_a_table_are_read():
    df = pd.DataFrame(pairs(100, 1000), columns=["words", "digits"])
    blocks = (TextBlock(min_freq=1), TextBlock(min_freq=1))
    block = DataBlock(blocks, get_x=ColReader("words"), get_y=ColReader("digits"))
    learn = learner(block.databunch(df, bs=10, device="cpu", seed=0))
    learn.fit(1)
    assert isinstance(learn.predict("six"), str) and learn.batch_predict([]) == []
    assert learn.predict(" ") == learn.predict("") and len(learn.batch_predict(["six", "", "ten"])) == 3


@pytest.mark.parametrize("own", [None, TeacherForcing()])
def test_the_teacher_of_a_fit_takes_the_place_of_the_learners(own):
    learn, shares = learner(bunch(100, 1000, 20), cbs=own), []
    forward = learn.model.forward
    learn.model.forward = lambda *batch: shares.append(batch[2:]) or forward(*batch)
    learn.fit(1, cbs=TeacherForcing(end_epoch=0.5, end=0.25))
    assert [len(share) for share in shares if share] == [1] * learn.n_steps and shares[learn.n_steps - 1] == (0.25,)
    shares.clear()
    learn.fit(1)
    assert {share for share in shares if share} == {(1.0,)}


def test_parts_of_words_are_translated():
    pytest.importorskip("tokenizers", reason="comes with the extra text")
    tokenizers = [SubwordTokenizer.train([pair[i] for pair in pairs(200, 1000)], "bpe", 300) for i in range(2)]
    learn = learner(bunch(200, 1000, 20, blocks=tuple(TextBlock(t) for t in tokenizers)))
    learn.fit(1)
    assert isinstance(learn.predict("twenty one"), str)


def test_predictions_have_a_loss_each():
    learn = learner()
    *_, losses = learn.get_preds(with_loss=True)
    dataset, model = learn.data.valid_ds, learn.model.eval()
    for i in (0, 7):
        x, y = dataset[i]
        logits = model(x[None])[0]
        missing = torch.zeros(max(0, len(y) - len(logits)), logits.shape[1])
        expected = F.cross_entropy(torch.cat([logits, missing])[: len(y)], torch.cat([y[1:], torch.tensor([1])]))
        torch.testing.assert_close(losses[i], expected, atol=1e-5, rtol=1e-5)


def test_other_data_is_refused():
    block = DataBlock((TextBlock(min_freq=1), CategoryBlock), splitter=IndexSplitter([0]))
    data = block.databunch([("one", 1), ("two", 2)] * 5, bs=2, device="cpu")
    with pytest.raises(ValueError, match=r"DataBlock\(\(TextBlock, TextBlock\), …\).*not TextBlock, CategoryBlock"):
        seq2seq_learner(data)
    with pytest.raises(ValueError, match="begin with different tokens"):
        seq2seq_learner(bunch(blocks=(TextBlock(), TextBlock(min_freq=1, backwards=True))))
    with pytest.raises(ValueError, match=r"n_hid=5: .* even"):
        Seq2SeqSpec(9, 9, n_hid=5)
