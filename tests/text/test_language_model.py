"""Language models: tied weights, memory between batches, settings, layer groups."""

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn
from warmstart.data.portable import describe, restore
from warmstart.text import AWD_LSTM, TransformerLM, get_language_model
from warmstart.text.language_model import LanguageModelSpec, split_language_model

torch.set_num_threads(1)
CONFIGS = {AWD_LSTM: {"emb_sz": 8, "n_hid": 12, "n_layers": 2},
           TransformerLM: {"emb_sz": 8, "n_hid": 12, "n_layers": 2, "n_heads": 2}}  # fmt: skip
both = pytest.mark.parametrize("arch", [AWD_LSTM, TransformerLM])


def language_model(arch, config=None, drop_mult=1.0):
    torch.manual_seed(0)
    return get_language_model(arch, 30, CONFIGS[arch] | (config or {}), drop_mult)


def tokens(bs, seq, seed=0):
    return torch.randint(30, (bs, seq), generator=torch.Generator().manual_seed(seed))


@both
def test_it_gives_logits_of_every_word_at_every_place(arch):
    logits = language_model(arch)(tokens(4, 7))
    assert logits.shape == (4, 7, 30) and logits.dtype == torch.float32


@both
def test_the_decoder_has_the_weights_of_the_embedding(arch):
    model = language_model(arch)
    assert model.decoder.linear.weight is model.encoder.embedding.weight
    untied = language_model(arch, {"tie_weights": False})
    assert untied.decoder.linear.weight is not untied.encoder.embedding.weight
    assert sum(p.numel() for p in untied.parameters()) == sum(p.numel() for p in model.parameters()) + 30 * 8


def test_a_bias_is_there_if_it_is_asked_for():
    assert language_model(AWD_LSTM).decoder.linear.bias.tolist() == [0.0] * 30
    assert language_model(AWD_LSTM, {"out_bias": False}).decoder.linear.bias is None


def test_a_recurrent_one_goes_on_reading_until_it_is_reset():
    model, x = language_model(AWD_LSTM).eval(), tokens(4, 12)
    whole = model(x)
    model.reset()
    first, second = model(x[:, :5]), model(x[:, 5:])
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    assert not torch.allclose(model(x[:, :5]), first)
    model.reset()
    torch.testing.assert_close(model(x[:, :5]), first)


def test_a_transformer_begins_each_batch_anew():
    model, x = language_model(TransformerLM).eval(), tokens(4, 12)
    torch.testing.assert_close(model(x), model(x))
    assert model.state is None


def test_gradients_stay_within_a_batch():
    model = language_model(AWD_LSTM)
    for seed in range(3):  # a second backward pass through the first batch would fail
        model(tokens(4, 6, seed)).sum().backward()
    assert not any(t.requires_grad for pair in model.state for t in pair)


def test_a_batch_of_another_size_is_read_without_memory():
    model = language_model(AWD_LSTM).eval()
    expected = model(tokens(2, 5))
    model(tokens(4, 5))
    torch.testing.assert_close(model(tokens(2, 5)), expected)


def test_memory_is_copied_with_the_model_and_is_no_part_of_its_weights():
    model = language_model(AWD_LSTM).eval()
    names = set(model.state_dict())
    model(tokens(4, 5))
    torch.testing.assert_close(copy.deepcopy(model)(tokens(4, 5, 1)), model(tokens(4, 5, 1)))
    assert set(model.state_dict()) == names and not list(model.buffers())


def test_memory_goes_on_in_half_precision():
    model = language_model(AWD_LSTM)
    model(tokens(4, 5))
    with torch.autocast("cpu", torch.bfloat16):
        model(tokens(4, 5)).sum().backward()
    logits = model(tokens(4, 5))
    assert logits.dtype == torch.float32 and logits.isfinite().all()


def test_drop_mult_multiplies_all_dropouts():
    model = language_model(AWD_LSTM, drop_mult=0.5)
    encoder = model.encoder
    found = [
        encoder.embedding.embed_p,
        encoder.rnns[0].weight_p,
        *(d.p for d in encoder.dropouts),
        model.decoder.dropout.p,
    ]
    assert found == pytest.approx([0.01, 0.1, 0.125, 0.075, 0.05])
    off = language_model(AWD_LSTM, drop_mult=0)
    off(tokens(4, 5))
    trained = off(tokens(4, 5))
    off.reset()
    off.eval()(tokens(4, 5))
    torch.testing.assert_close(off(tokens(4, 5)), trained)


@both
def test_layer_groups_are_the_layers_and_then_what_knows_the_words(arch):
    model = language_model(arch)
    groups = split_language_model(model)
    assert len(groups) == 3
    assert {id(p) for group in groups for p in group} == set(map(id, model.parameters()))
    assert sum(map(len, groups)) == len(list(model.parameters()))
    assert any(p is model.encoder.embedding.weight for p in groups[-1])


@both
def test_a_description_builds_it_again(arch):
    spec = LanguageModelSpec(arch, 30, CONFIGS[arch], 0.7)
    again = restore(describe(spec))
    assert again == spec
    built = again.build()
    built.load_state_dict(spec.build().state_dict())


def test_an_architecture_of_ones_own_is_called_as_ours_are():
    class Bag(nn.Module):
        lm_config: ClassVar = {"emb_sz": 8, "output_p": 0.0, "tie_weights": True, "out_bias": True}
        is_recurrent = False

        def __init__(self, vocab_sz, emb_sz):
            super().__init__()
            self.emb_sz, self.embedding = emb_sz, nn.Embedding(vocab_sz, emb_sz)

        def forward(self, x, state=None):
            return self.embedding(x).cumsum(1), []

    assert get_language_model(Bag, 30, {"emb_sz": 4})(tokens(2, 3)).shape == (2, 3, 30)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: language_model(AWD_LSTM, {"bidir": True}), ValueError, "AWD_LSTM has no setting 'bidir' for config"),
        (lambda: language_model(AWD_LSTM, drop_mult=4), ValueError, "drop_mult=4 makes dropouts of input_p=1"),
        (lambda: language_model(AWD_LSTM, drop_mult=-1), ValueError, "drop_mult=-1 makes dropouts of"),
        (lambda: get_language_model(nn.LSTM, 30), TypeError, "a class of your own with settings lm_config"),
        (lambda: get_language_model("bert-base-uncased", 30), TypeError, "is for text_classifier_learner"),
    ],
)
def test_what_does_not_fit_is_explained(make, error, message):
    with pytest.raises(error, match=message):
        make()
