"""Generation: what is drawn, what is never drawn, and what a search finds."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from warmstart.text import AWD_LSTM, TransformerLM, get_language_model
from warmstart.text.generation import beam_search, generate, likely

torch.set_num_threads(1)
CONFIGS = {AWD_LSTM: {"emb_sz": 8, "n_hid": 8, "n_layers": 2},
           TransformerLM: {"emb_sz": 8, "n_hid": 8, "n_layers": 2, "n_heads": 2}}  # fmt: skip


def language_model(arch, vocab_sz=7):
    """One with large weights, so that it has preferences."""
    torch.manual_seed(3)
    model = get_language_model(arch, vocab_sz, CONFIGS[arch]).eval()
    for p in model.parameters():
        p.data = torch.randn(p.shape)
    return model


class Chain(nn.Module):
    """A Markov chain in the place of a language model: `logits[i]` are those of what follows i."""

    def __init__(self, probs):
        super().__init__()
        self.encoder, self.decoder = self._read, nn.Identity()
        self.logits = torch.tensor(probs).log()

    def _read(self, x, state):
        return self.logits[x], state


def probability(model, prompt, ids):
    """The log-probability of `ids` after `prompt`, by reading both at once."""
    logits = model.decoder(model.encoder(torch.cat([prompt, ids])[None])[0])[0]
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, ids[:, None]).sum()


both = pytest.mark.parametrize("arch", [AWD_LSTM, TransformerLM])


@both
def test_without_temperature_each_word_is_the_likeliest_after_all_before_it(arch):
    model, prompt = language_model(arch), torch.tensor([2, 3, 4])
    found = generate(model, prompt, 10, temperature=0)
    text = prompt
    for _ in range(10):
        text = torch.cat([text, model.decoder(model.encoder(text[None])[0])[0, -1].argmax()[None]])
    assert found.tolist() == text[3:].tolist()


def test_words_are_drawn_by_their_probabilities():
    torch.manual_seed(0)
    chain = Chain([[0.1, 0.2, 0.7]] * 3)
    counts = torch.bincount(generate(chain, torch.tensor([0]), 3000))
    torch.testing.assert_close(counts / 3000, torch.tensor([0.1, 0.2, 0.7]), atol=0.03, rtol=0)
    sharper = torch.bincount(generate(chain, torch.tensor([0]), 3000, temperature=0.5))
    torch.testing.assert_close(sharper / 3000, torch.tensor([0.01, 0.04, 0.49]) / 0.54, atol=0.03, rtol=0)


@both
def test_the_same_seed_draws_the_same_text(arch):
    model, texts = language_model(arch), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(generate(model, torch.tensor([2]), 30, temperature=3).tolist())
    assert texts[0] == texts[1] != texts[2]


@both
def test_banned_words_never_come_unless_there_are_no_others(arch):
    model, prompt = language_model(arch), torch.tensor([2])
    for temperature in (0, 1, 100):
        assert not {0, 1} & set(generate(model, prompt, 50, temperature, banned=[0, 1]).tolist())
    assert not {0, 1} & set(beam_search(model, prompt, 10, 4, banned=[0, 1]).tolist())
    assert set(generate(language_model(arch, 2), torch.tensor([1]), 5, banned=[0, 1]).tolist()) <= {0, 1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.integers(1, 12))
def test_top_k_leaves_the_k_likeliest(logits, k):
    logits = torch.tensor(logits)
    kept = likely(logits, top_k=k).isfinite()
    least = logits.sort(descending=True).values[min(k, len(logits)) - 1]
    assert torch.equal(kept, logits >= least)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.01, 1))
def test_top_p_leaves_the_fewest_that_reach_p(logits, p):
    logits = torch.tensor(logits, dtype=torch.double)
    kept = likely(logits, top_p=p).isfinite()
    probs = logits.softmax(0)
    assert probs[kept].sum() >= p - 1e-9
    assert probs[kept].sum() - probs[kept].min() < p + 1e-9  # one fewer would not
    assert not (~kept).any() or probs[kept].min() >= probs[~kept].max()


def test_a_beam_finds_what_taking_the_likeliest_word_misses():
    """0 leads to 1 most likely, but the best two words begin with 2."""
    chain = Chain([[0.0, 0.6, 0.4], [0.4, 0.3, 0.3], [0.05, 0.9, 0.05]])
    assert generate(chain, torch.tensor([0]), 2, temperature=0).tolist() == [1, 0]
    assert beam_search(chain, torch.tensor([0]), 2, 1).tolist() == [1, 0]
    assert beam_search(chain, torch.tensor([0]), 2, 2).tolist() == [2, 1]


@both
def test_a_wide_beam_finds_the_likeliest_of_all_texts(arch):
    model, prompt = language_model(arch, 4), torch.tensor([2, 3])
    texts = [torch.tensor(text) for text in itertools.product(range(4), repeat=4)]
    best = max(texts, key=lambda text: probability(model, prompt, text).item())
    assert beam_search(model, prompt, 4, beam_sz=64).tolist() == best.tolist()


def test_a_long_prompt_is_cut_to_what_a_transformer_can_look_back_upon():
    torch.manual_seed(0)
    model = get_language_model(TransformerLM, 7, CONFIGS[TransformerLM] | {"ctx_len": 4}).eval()
    prompt = torch.tensor([6, 6, 6, 2, 3, 4, 5])
    torch.manual_seed(0)
    long = generate(model, prompt, 5)
    torch.manual_seed(0)
    assert torch.equal(generate(model, prompt[-4:], 5), long)


def test_no_words_are_no_words():
    assert generate(language_model(AWD_LSTM), torch.tensor([2]), 0).shape == (0,)
    assert beam_search(language_model(AWD_LSTM), torch.tensor([2]), 0).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_words": -1}, "n_words=-1"),
        ({"temperature": -1}, "temperature=-1: 0, which always takes the likeliest word, or more"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_arguments_out_of_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(language_model(AWD_LSTM), torch.tensor([2]), **{"n_words": 1, **arguments})


def test_a_prompt_without_words_and_a_beam_of_nothing_are_refused():
    with pytest.raises(ValueError, match="no word to go on after"):
        generate(language_model(AWD_LSTM), torch.tensor([], dtype=torch.long), 1)
    with pytest.raises(ValueError, match="beam_sz=0"):
        beam_search(language_model(AWD_LSTM), torch.tensor([2]), 1, 0)
