"""What tokens add to a score: by hand where that can be worked out, and by a plain sum over many small steps."""

import pytest
import torch
from torch import nn
from warmstart.text import AWD_LSTM, TransformerLM
from warmstart.text import integrated_gradients as module
from warmstart.text.classifier import TextClassifierSpec
from warmstart.text.integrated_gradients import integrated_gradients

torch.set_num_threads(1)
CONFIGS = {AWD_LSTM: {"emb_sz": 16, "n_hid": 24, "n_layers": 2},
           TransformerLM: {"emb_sz": 16, "n_hid": 24, "n_layers": 2, "n_heads": 2}}  # fmt: skip
both = pytest.mark.parametrize("arch", [AWD_LSTM, TransformerLM])
WORDS = 40


class OfSum(nn.Module):
    """`power` of the sum of one number for each token, `(bs, 1)`."""

    def __init__(self, power):
        super().__init__()
        self.embedding, self.power = nn.Embedding(WORDS, 1), power

    def forward(self, x):
        return self.embedding(x).sum(1) ** self.power


def only_output(output):
    return output[:, 0]


def classifier(arch, seq_len=5, max_len=1000):
    torch.manual_seed(0)
    model = TextClassifierSpec(arch, WORDS, 2, CONFIGS[arch], seq_len=seq_len, max_len=max_len).build()
    for p in model.parameters():  # of a trained one, whose words differ
        p.data *= 3
    return model


def text(n, seed=1):
    return torch.randint(9, WORDS, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("power", [1, 2])
def test_they_are_what_is_worked_out_by_hand(power):
    torch.manual_seed(0)
    model, x = OfSum(power), text(6)
    average = model.embedding.weight.mean().item()
    change = model.embedding(x)[:, 0].detach() - average
    begin, end = 6 * average, 6 * average + change.sum().item()
    expected = change if power == 1 else change * (begin + end)  # 2 s, averaged over a straight line from begin to end
    values, at_average, at_text = integrated_gradients(model, model.embedding, x, only_output)
    torch.testing.assert_close(values, expected)
    assert at_average == pytest.approx(begin**power) and at_text == pytest.approx(end**power, rel=1e-5)


def test_of_words_that_are_given_nothing_is_said():
    torch.manual_seed(0)
    model, x = OfSum(1), text(6)
    given = torch.tensor([True, False, False, False, False, True])
    values, at_average, _ = integrated_gradients(model, model.embedding, x, only_output, given)
    numbers, average = model.embedding(x)[:, 0].detach(), model.embedding.weight.mean().item()
    torch.testing.assert_close(values, (numbers - average).masked_fill(given, 0))
    assert at_average == pytest.approx((numbers[given].sum() + 4 * average).item())
    nothing, at_average, at_text = integrated_gradients(model, model.embedding, x, only_output, torch.ones(6).bool())
    assert nothing.tolist() == [0] * 6 and at_average == at_text


@both
def test_they_add_up_to_what_the_text_is_above_average_words_also_over_pieces(arch):
    model, x = classifier(arch), text(23)
    values, average, score = integrated_gradients(model, model[0].encoder.embedding, x, only_output)
    with torch.no_grad():
        assert score == pytest.approx(model.eval()(x[None])[0, 0].item(), rel=1e-5)
        weight = model[0].encoder.embedding.weight
        weight[x.min()] = weight.mean(0)  # a text of average words
        assert average == pytest.approx(model(torch.full((1, 23), x.min()))[0, 0].item(), rel=1e-5)
    assert values.sum().item() == pytest.approx(score - average, abs=0.01 * values.abs().sum().item())
    assert (values != 0).all()


@both
def test_pieces_count_as_one_text(arch):
    one, many = classifier(arch, 100), classifier(arch, 4)
    found = [integrated_gradients(m, m[0].encoder.embedding, text(23), only_output)[0] for m in (one, many)]
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)


def test_they_are_a_plain_sum_over_many_steps():
    """The LSTM's layers, the pool and the head, written out once more."""
    model, x = classifier(AWD_LSTM, 100).eval(), text(12)
    encoder = model[0].encoder
    begin = encoder.embedding.weight.detach().mean(0).expand(12, -1)
    end = encoder.embedding(x).detach()
    total = torch.zeros(12)
    for i in range(400):
        words = (begin + (i + 0.5) / 400 * (end - begin)).requires_grad_()
        output = words[None]
        for rnn in encoder.rnns:
            output, _ = rnn(output)
        pooled = torch.cat([output[:, -1], output.amax(1), output.mean(1)], 1)
        total += (torch.autograd.grad(model[1](pooled)[0, 0], words)[0] * (end - begin)).sum(1) / 400
    values, *_ = integrated_gradients(model, encoder.embedding, x, only_output)
    torch.testing.assert_close(values, total, atol=0.02 * total.abs().max().item(), rtol=0)


def test_of_a_long_text_the_last_tokens_count_and_those_before_are_given():
    model, x = classifier(AWD_LSTM, 5, 10), text(37)
    values, average, score = integrated_gradients(model, model[0].encoder.embedding, x, only_output)
    assert values[:27].tolist() == [0] * 27 and (values[27:] != 0).all()
    assert values.sum().item() == pytest.approx(score - average, abs=0.01 * values.abs().sum().item())
    with torch.no_grad():
        assert score == pytest.approx(model.eval()(x[None])[0, 0].item(), rel=1e-5)


def test_memory_is_for_a_part_of_the_steps(monkeypatch):
    model, x = classifier(AWD_LSTM), text(12)
    expected, *_ = integrated_gradients(model, model[0].encoder.embedding, x, only_output)
    monkeypatch.setattr(module, "AT_ONCE", 30)
    sizes = []
    hook = model.register_forward_pre_hook(lambda model, args: sizes.append(len(args[0])))
    found, *_ = integrated_gradients(model, model[0].encoder.embedding, x, only_output)
    hook.remove()
    assert max(sizes) == 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_steps_are_doubled_until_the_parts_add_up(monkeypatch):
    model, x = classifier(TransformerLM), text(12)
    monkeypatch.setattr(module, "N_STEPS", 1)
    values, average, score = integrated_gradients(model, model[0].encoder.embedding, x, only_output)
    assert values.sum().item() == pytest.approx(score - average, abs=0.01 * values.abs().sum().item())


def test_the_model_is_left_as_it_was():
    model = classifier(AWD_LSTM).train()
    encoder = model[0].encoder
    encoder.embedding.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    integrated_gradients(model, encoder.embedding, text(12), only_output)
    with pytest.raises(ZeroDivisionError):
        integrated_gradients(model, encoder.embedding, text(12), lambda output: 1 / 0)
    assert [p.requires_grad for p in model.parameters()] == before and model.training
    assert not encoder.embedding._forward_hooks and model[0].cuts_gradients
    assert all(p.grad is None for p in model.parameters())
