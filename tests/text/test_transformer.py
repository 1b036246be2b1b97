"""The transformer: causal, relative, cached, and begun as GPT-2 is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from warmstart.text import TransformerLM
from warmstart.text.attention import CausalAttention, rotations

torch.set_num_threads(1)


def encoder(**changes):
    torch.manual_seed(0)
    return TransformerLM(50, **{"emb_sz": 16, "n_layers": 2, "n_heads": 2, "n_hid": 32, **changes})


def tokens(bs, seq, seed=0):
    return torch.randint(50, (bs, seq), generator=torch.Generator().manual_seed(seed))


def by_hand(attention, x, places):
    """Attention written out: each pair of features turned by an angle that grows with the place."""
    bs, n, emb_sz = x.shape
    head_sz = emb_sz // attention.n_heads
    q, k, v = (part.view(bs, n, attention.n_heads, head_sz) for part in attention.inputs(x).split(emb_sz, -1))

    def turned(t):
        pairs = torch.complex(t[..., : head_sz // 2], t[..., head_sz // 2 :])
        speeds = torch.tensor([10_000 ** (-2 * i / head_sz) for i in range(head_sz // 2)])
        angles = places[:, None] * speeds
        pairs = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
        return torch.cat([pairs.real, pairs.imag], -1)

    scores = torch.einsum("bqhd,bkhd->bhqk", turned(q), turned(k)) / math.sqrt(head_sz)
    scores = scores + torch.full((n, n), -torch.inf).triu(1)
    return attention.output(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(bs, n, emb_sz))


def test_attention_is_rotary_and_causal():
    torch.manual_seed(0)
    attention, x = CausalAttention(16, 2, drop_p=0.0), torch.randn(3, 9, 16)
    output, _ = attention(x, rotations(9, 8, x.device))
    torch.testing.assert_close(output, by_hand(attention, x, torch.arange(9.0)))


def test_only_distances_count():
    torch.manual_seed(0)
    attention, x = CausalAttention(16, 2, drop_p=0.0), torch.randn(3, 9, 16)
    torch.testing.assert_close(by_hand(attention, x, torch.arange(9.0) + 100), by_hand(attention, x, torch.arange(9.0)),
                               atol=1e-4, rtol=1e-4)  # fmt: skip


def test_a_token_sees_nothing_that_comes_later():
    model, x = encoder().eval(), tokens(2, 12)
    changed = x.clone()
    changed[:, 7:] = tokens(2, 5, seed=1)
    a, b = model(x)[0], model(changed)[0]
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert not torch.allclose(a[:, 7:], b[:, 7:])


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 19), max_size=4, unique=True))
def test_reading_in_any_pieces_gives_what_reading_at_once_gives(cuts):
    model, x = encoder().eval(), tokens(3, 20)
    whole, _ = model(x)
    state, parts = None, []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 20], strict=True):
        output, state = model(x[:, begin:end], state)
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_it_remembers_no_more_than_its_context():
    model = encoder(ctx_len=6)
    _, state = model(tokens(3, 20))
    assert all(k.shape == v.shape == (3, 2, 6, 8) for k, v in state)
    _, state = model(tokens(3, 1), state)
    assert all(k.shape == (3, 2, 6, 8) for k, _ in state)


def test_half_precision_gives_nearly_the_same_and_goes_on_from_any_state():
    model, x = encoder().eval(), tokens(3, 10)
    expected, state = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        output, half = model(x)
        model(x[:, :1], state)
    model(x[:, :1], half)
    torch.testing.assert_close(output.float(), expected, atol=0.05, rtol=0.05)


def test_the_first_weights_are_those_of_gpt_2():
    model = encoder(emb_sz=128, n_hid=512, n_layers=8)
    block = model.blocks[3]
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    for adds in (block.mlp[2], block.attention.output):
        assert adds.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
        assert not adds.bias.any()


def test_all_parameters_get_gradients_and_are_in_one_layer_group():
    model = encoder()
    F.cross_entropy(model(tokens(4, 7))[0].flatten(0, 1), torch.zeros(28, dtype=torch.long)).backward()
    assert all(p.grad is not None for p in model.parameters())
    groups = model.layer_groups()
    assert len(groups) == 3 and sum(map(len, groups)) == len({id(p) for group in groups for p in group})
    assert {id(p) for group in groups for p in group} == set(map(id, model.parameters()))


def test_heads_that_do_not_fit_are_explained():
    with pytest.raises(ValueError, match="emb_sz=30 does not part into 4 heads of an even size: change n_heads"):
        encoder(emb_sz=30, n_heads=4)
