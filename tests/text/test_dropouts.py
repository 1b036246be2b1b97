"""Dropouts of AWD-LSTM: what is dropped, that the rest keeps its mean, and that the kernel is PyTorch's."""

import warnings

import pytest
import torch
from torch import nn
from warmstart.text import dropouts
from warmstart.text.dropouts import EmbeddingDropout, RNNDropout, WeightDropLSTM, _in_one_piece

torch.set_num_threads(1)


def lstm_pair(weight_p):
    """A layer of ours, and PyTorch's with the same weights."""
    torch.manual_seed(0)
    ours = WeightDropLSTM(3, 5, weight_p)
    theirs = nn.LSTM(3, 5, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_locked_dropout_drops_the_same_features_at_all_places_of_a_row():
    torch.manual_seed(0)
    dropped = RNNDropout(0.4)(torch.ones(50, 7, 20))
    assert (dropped == dropped[:, :1]).all()
    assert not (dropped[0] == dropped[1]).all()
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert abs((dropped == 0).float().mean() - 0.4) < 0.05


def test_dropouts_do_nothing_in_evaluation():
    x = torch.randn(2, 3, 4)
    assert RNNDropout(0.5).eval()(x) is x
    embedding = EmbeddingDropout(10, 4, 0.9).eval()
    assert torch.equal(embedding(torch.arange(10)), embedding.weight)


def test_embedding_dropout_drops_a_word_wherever_it_stands():
    torch.manual_seed(0)
    embedding = EmbeddingDropout(1000, 4, 0.3)
    x = torch.arange(1000).repeat(2, 1)
    dropped = embedding(x)
    assert torch.equal(dropped[0], dropped[1])
    is_zero = (dropped[0] == 0).all(1)
    assert abs(is_zero.float().mean() - 0.3) < 0.05
    torch.testing.assert_close(dropped[0][~is_zero], embedding.weight[~is_zero] / 0.7)


def test_the_gradient_of_a_dropped_word_is_zero():
    torch.manual_seed(0)
    embedding = EmbeddingDropout(100, 4, 0.5)
    dropped = embedding(torch.arange(100))
    dropped.sum().backward()
    torch.testing.assert_close(embedding.weight.grad.sum(1), 8.0 * (dropped != 0).all(1))


def test_without_dropping_it_is_the_lstm_of_pytorch():
    x, hx = torch.randn(4, 6, 3), (torch.randn(1, 4, 5), torch.randn(1, 4, 5))
    for weight_p, training in [(0.0, True), (0.9, False)]:
        ours, theirs = lstm_pair(weight_p)
        output, (h, c) = ours.train(training)(x, hx)
        expected, (their_h, their_c) = theirs(x, hx)
        torch.testing.assert_close((output, h, c), (expected, their_h, their_c))


def test_dropped_weights_are_the_same_for_all_steps_and_only_those_from_hidden_to_hidden():
    """PyTorch's LSTM with the weights that were dropped gives the same outputs and gradients."""
    ours, theirs = lstm_pair(0.5)
    x = torch.randn(4, 6, 3)
    torch.manual_seed(1)
    output, state = ours(x)
    torch.manual_seed(1)
    with torch.no_grad():
        theirs.weight_hh_l0.copy_(nn.functional.dropout(theirs.weight_hh_l0, 0.5))
    assert 0.3 < (theirs.weight_hh_l0 == 0).float().mean() < 0.7
    expected, their_state = theirs(x)
    torch.testing.assert_close((output, state), (expected, their_state))
    output.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.weight_ih_l0.grad, theirs.weight_ih_l0.grad)
    scale = (theirs.weight_hh_l0 != 0) * 2.0  # of dropout
    torch.testing.assert_close(ours.weight_hh_l0.grad, theirs.weight_hh_l0.grad * scale)


def test_weights_for_cudnn_lie_in_one_piece_of_memory_in_its_order():
    ours, _ = lstm_pair(0.5)
    weights = ours._dropped()
    parts = _in_one_piece(weights)
    torch.testing.assert_close(parts, weights)
    assert [part.shape for part in parts] == [(20, 3), (20, 5), (20,), (20,)]
    begins = [part.storage_offset() for part in parts]
    assert begins == [0, 60, 160, 180] and len({part.untyped_storage().data_ptr() for part in parts}) == 1
    assert parts[0].untyped_storage().nbytes() == 4 * 200


def test_it_warns_of_nothing():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WeightDropLSTM(3, 5, 0.5)(torch.randn(2, 4, 3))[0].sum().backward()
    assert caught == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_through_the_kernel_where_the_processor_has_one(dtype):
    ours, plain = lstm_pair(0.5)
    with torch.autocast("cpu", dtype):
        output, state = ours(torch.randn(2, 4, 3))
        again, _ = ours(torch.randn(2, 4, 3), state)
        try:
            expected = plain(torch.randn(2, 4, 3))[0].dtype
        except RuntimeError:  # PyTorch's own would need it
            expected = torch.float32
    assert output.dtype == again.dtype == expected
    again.float().sum().backward()
    assert ours.weight_hh_l0.grad.dtype == torch.float32


def test_without_a_kernel_for_half_precision_it_computes_in_float32(monkeypatch):
    monkeypatch.setattr(dropouts, "_has_kernel", lambda dtype: False)
    ours, plain = lstm_pair(0.0)
    x = torch.randn(2, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = ours(x)
        again, _ = ours(x.bfloat16(), tuple(s.bfloat16() for s in state))
    torch.testing.assert_close(output, plain(x)[0])
    assert again.dtype == torch.float32
