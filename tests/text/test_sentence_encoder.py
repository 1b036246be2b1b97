"""Texts as vectors: what is pooled, and that padding and the pieces do not matter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from warmstart.text import AWD_LSTM, TransformerLM
from warmstart.text.sentence_encoder import SentenceEncoder, text_lengths
from warmstart.text.special import PAD_ID

torch.set_num_threads(1)
ENCODERS = {AWD_LSTM: {"emb_sz": 8, "n_hid": 12, "n_layers": 2},
            TransformerLM: {"emb_sz": 8, "n_hid": 12, "n_layers": 2, "n_heads": 2}}  # fmt: skip
both = pytest.mark.parametrize("arch", [AWD_LSTM, TransformerLM])


def sentence_encoder(arch, seq_len=8, max_len=20):
    torch.manual_seed(0)
    return SentenceEncoder(arch(50, **ENCODERS[arch]), seq_len, max_len).eval()


def texts(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(2, 50, (n,), generator=generator) for n in lengths]


def padded(rows, extra=0):
    batch = pad_sequence(rows, batch_first=True, padding_value=PAD_ID)
    return torch.nn.functional.pad(batch, (0, extra), value=PAD_ID)


@both
@pytest.mark.parametrize("length", [1, 7, 8, 9, 20, 21, 45])
def test_it_is_the_last_output_the_largest_and_the_mean_of_the_last_max_len(arch, length):
    model, (text,) = sentence_encoder(arch), texts(length)
    output, _ = model.encoder(text[None])
    kept = output[0, -20:]
    expected = torch.cat([kept[-1], kept.max(0).values, kept.mean(0)])
    torch.testing.assert_close(model(text[None])[0], expected)


@both
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=6), extra=st.integers(0, 30))
def test_a_text_gives_the_same_in_any_batch_and_under_any_padding(arch, lengths, extra):
    model, rows = sentence_encoder(arch), texts(*lengths)
    alone = torch.cat([model(row[None]) for row in rows])
    torch.testing.assert_close(model(padded(rows, extra)), alone, atol=1e-6, rtol=1e-5)


def test_how_long_the_pieces_are_does_not_matter():
    batch = padded(texts(30, 45, 3))
    torch.testing.assert_close(sentence_encoder(AWD_LSTM, 5)(batch), sentence_encoder(AWD_LSTM, 20)(batch))


def test_gradients_come_from_all_pieces_that_are_pooled_and_from_no_other():
    model, (text,) = sentence_encoder(AWD_LSTM, seq_len=10, max_len=20), texts(60)
    text[:] = torch.arange(60) % 45 + 2  # the words 2 to 16 come twice, the others once
    model(text[None]).sum().backward()
    used = model.encoder.embedding.weight.grad.abs().sum(1) > 0
    assert used.nonzero().flatten().tolist() == sorted(set(text[-20:].tolist()))


def test_memory_for_the_backward_pass_does_not_grow_with_the_text():
    def saved(n):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            output = model(texts(n)[0][None])
        nodes, seen = [output.grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is not None and node not in seen:
                seen.add(node)
                nodes += [parent for parent, _ in node.next_functions]
        return len(seen)

    model = sentence_encoder(AWD_LSTM, seq_len=10, max_len=20).train()
    assert saved(1000) - saved(100) < 90 * 20  # pools of pieces, but no layer of them
    assert saved(100) > 50


def test_a_text_of_nothing_but_padding_counts_as_one_token():
    x = torch.full((2, 5), PAD_ID)
    assert text_lengths(x, PAD_ID).tolist() == [1, 1]
    assert sentence_encoder(AWD_LSTM)(x).isfinite().all()


def test_pieces_longer_than_what_is_pooled_are_refused():
    with pytest.raises(ValueError, match="seq_len=8, max_len=4"):
        sentence_encoder(AWD_LSTM, 8, 4)
