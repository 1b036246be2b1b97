"""AWD-LSTM: its sizes, and that reading in pieces is reading at once."""

import copy

import pytest
import torch
from torch import nn
from warmstart.text import AWD_LSTM

torch.set_num_threads(1)


def encoder(**changes):
    torch.manual_seed(0)
    return AWD_LSTM(50, **{"emb_sz": 8, "n_hid": 12, "n_layers": 3, **changes})


def tokens(bs, seq, seed=0):
    return torch.randint(50, (bs, seq), generator=torch.Generator().manual_seed(seed))


def test_outputs_have_the_size_of_the_embedding():
    output, state = encoder()(tokens(4, 7))
    assert output.shape == (4, 7, 8)
    assert [(h.shape, c.shape) for h, c in state] == [((4, 12),) * 2, ((4, 12),) * 2, ((4, 8),) * 2]


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_hidden_layers_have_n_hid_units_and_the_last_has_emb_sz(n_layers):
    model = encoder(n_layers=n_layers)
    assert [rnn.hidden_size for rnn in model.rnns] == [12] * (n_layers - 1) + [8]
    assert model(tokens(2, 3))[0].shape == (2, 3, 8)


def test_reading_in_pieces_gives_what_reading_at_once_gives():
    model, x = encoder().eval(), tokens(4, 20)
    whole, _ = model(x)
    state, parts = None, []
    for piece in x.split([1, 7, 12], 1):
        output, state = model(piece, state)
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_in_evaluation_it_is_an_embedding_and_lstms_of_pytorch():
    model, x = encoder().eval(), tokens(4, 20)
    expected = nn.functional.embedding(x, model.embedding.weight)
    for rnn in model.rnns:
        plain = nn.LSTM(rnn.input_size, rnn.hidden_size, batch_first=True)
        plain.load_state_dict(rnn.state_dict())
        expected, _ = plain(expected)
    torch.testing.assert_close(model(x)[0], expected)


def test_every_dropout_has_its_place():
    """Each of them alone changes the output; without any, training is evaluation."""
    off = {"input_p": 0.0, "hidden_p": 0.0, "weight_p": 0.0, "embed_p": 0.0}
    x = tokens(4, 20)
    expected, _ = encoder(**off).eval()(x)
    torch.testing.assert_close(encoder(**off)(x)[0], expected)
    for name in off:
        assert not torch.allclose(encoder(**off | {name: 0.5})(x)[0], expected), name


def test_all_parameters_get_gradients_and_are_in_one_layer_group():
    model = encoder()
    model(tokens(4, 7))[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    groups = model.layer_groups()
    assert [len(group) for group in groups] == [1, 4, 4, 4]
    assert {id(p) for group in groups for p in group} == set(map(id, model.parameters()))


def test_a_copy_gives_the_same():
    model = encoder().eval()
    torch.testing.assert_close(copy.deepcopy(model)(tokens(2, 5))[0], model(tokens(2, 5))[0])


def test_settings_are_those_that_fast_ai_has_published():
    assert AWD_LSTM.lm_config == {
        "emb_sz": 400, "n_hid": 1152, "n_layers": 3, "input_p": 0.25, "hidden_p": 0.15, "weight_p": 0.2,
        "embed_p": 0.02, "output_p": 0.1, "tie_weights": True, "out_bias": True,
    }  # fmt: skip
    assert AWD_LSTM.clas_config["weight_p"] == 0.5 and AWD_LSTM.clas_config["output_p"] == 0.4
