"""From one sequence to another, as in translation: an encoder reads the source, a decoder with attention writes.

    spec = Seq2SeqSpec(source_sz=8000, target_sz=6000)
    model = spec.build()
    logits = model(x, y)                           # (64, 20), (64, 15) int64 to (64, 15, 6000): of the tokens after y's
    logits = model(x)                              # (64, n, 6000): what it writes by itself

Sutskever, Vinyals, Le 2014, arXiv:1409.3215; attention is global, of the kind called general, by Luong, Pham, Manning
2015, arXiv:1508.04025: its result is not fed into the next step, so all tokens of a known target are read at once.
Padding of a source is neither read nor attended to, and a text is translated the same in any batch.

Texts begin with the token `begin`. After the last one, the model writes the padding token: nothing more comes.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.portable import Portable
from .sentence_encoder import text_lengths
from .seq2seq_learning import Seq2SeqLearner
from .special import BOS, PAD_ID, SPECIAL

__all__ = ["Memory", "Seq2Seq", "Seq2SeqSpec"]


@dataclass
class Seq2SeqSpec(Portable):
    """The description of a `Seq2Seq` model, from which it can be built again.

    `source_sz` and `target_sz` are the sizes of the vocabularies, in which padding is `source_pad` and `pad`. Words are
    vectors of `emb_sz` numbers; `n_layers` GRUs have `n_hid` units, those of the encoder half in each direction;
    `drop_p` drops features of words, between layers and before the decision. With `tie_weights` a decision is made by
    the weights of the target's embedding. A translation has at most `max_len` tokens.
    """

    source_sz: int
    target_sz: int
    emb_sz: int = 256
    n_hid: int = 512
    n_layers: int = 2
    drop_p: float = 0.2
    tie_weights: bool = True
    begin: int = SPECIAL.index(BOS)
    source_pad: int = PAD_ID
    pad: int = PAD_ID
    max_len: int = 100

    learner: ClassVar[type] = Seq2SeqLearner  # what an exported file is loaded as

    def __post_init__(self):
        if self.n_hid % 2:
            raise ValueError(f"n_hid={self.n_hid}: the encoder has half in each direction, so it is even.")
        if self.max_len < 1:
            raise ValueError(f"max_len={self.max_len}: a translation may have one token or more.")

    def build(self, pretrained: bool = False) -> "Seq2Seq":
        """The model with random weights; there are no pretrained ones."""
        return Seq2Seq(self)


class Memory(NamedTuple):
    """What the encoder makes of a source: outputs and attention's keys `(bs, n, n_hid)`, and where padding is."""

    outputs: Tensor
    keys: Tensor
    is_padding: Tensor  # (bs, n)


class Seq2Seq(nn.Module):
    """Source ids `(bs, n)` int64, padded at the ends, to logits `(bs, n_out, target_sz)` of what is written.

    Given targets `y` `(bs, n_out)` it writes as many tokens, after each of these the next one (teacher forcing); each
    token that it reads is the true one with probability `forced`, else the one that it has just written itself. Without
    `y` it goes on until all texts have ended; what comes after an end are logits for padding.
    """

    def __init__(self, spec: Seq2SeqSpec):
        super().__init__()
        self.begin, self.pad, self.max_len = spec.begin, spec.pad, spec.max_len
        self.encoder, self.decoder = _Encoder(spec), _Decoder(spec)

    def forward(self, x: Tensor, y: Tensor | None = None, forced: float = 1.0) -> Tensor:
        memory, state = self.read(x)
        if y is None:
            return self._written(memory, state)
        if forced >= 1:
            return self.decoder(y, state, memory)[0]
        return self._guided(y, forced, memory, state)

    def read(self, x: Tensor) -> tuple[Memory, Tensor]:
        """What the decoder attends to, and the state that it begins with."""
        outputs, state = self.encoder(x)
        return Memory(outputs, self.decoder.keys(outputs), x == self.encoder.pad), state

    def _guided(self, y: Tensor, forced: float, memory: Memory, state: Tensor) -> Tensor:
        token, logits = y[:, :1], []
        for true in [*y.split(1, 1)[1:], None]:
            step, state = self.decoder(token, state, memory)
            logits.append(step)
            if true is not None:
                is_true = torch.rand(len(y), 1, device=y.device) < forced
                token = true.where(is_true, step.argmax(-1))
        return torch.cat(logits, 1)

    def _written(self, memory: Memory, state: Tensor) -> Tensor:
        token, logits = torch.full_like(memory.is_padding[:, :1], self.begin, dtype=torch.int64), []
        ended = torch.zeros_like(token, dtype=torch.bool)
        for _ in range(self.max_len):
            step, state = self.decoder(token, state, memory)
            only_padding = F.one_hot(token.new_tensor(self.pad), step.shape[-1]).to(step.dtype)
            logits.append(only_padding.where(ended[..., None], step))
            token = logits[-1].argmax(-1)
            ended = token == self.pad
            if ended.all():  # which waits for the device: writing can, other than training
                break
        return torch.cat(logits, 1)


class _Encoder(nn.Module):
    """Ids `(bs, n)` to outputs `(bs, n, n_hid)` of the last layer, and each layer's last state `(n_layers, bs, n_hid)`.

    Layers of two GRUs, one of which reads backwards, from each text's own end. (What torch packs for this purpose needs
    the lengths on the CPU.)
    """

    def __init__(self, spec: Seq2SeqSpec):
        super().__init__()
        self.pad = spec.source_pad
        self.embedding, self.dropout = _embedding(spec.source_sz, spec.emb_sz), nn.Dropout(spec.drop_p)
        sizes = [spec.emb_sz, *[spec.n_hid] * (spec.n_layers - 1)]
        self.ahead, self.back = (
            nn.ModuleList(nn.GRU(size, spec.n_hid // 2, batch_first=True) for size in sizes) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lengths = text_lengths(x, self.pad)[:, None]
        places = torch.arange(x.shape[1], device=x.device).expand_as(x)
        reverse = (lengths - 1 - places).where(places < lengths, places)
        output, states = self.embedding(x), []
        for ahead, back in zip(self.ahead, self.back, strict=True):
            output = self.dropout(output)
            forwards, backwards = ahead(output)[0], _taken(back(_taken(output, reverse))[0], reverse)
            states.append(torch.cat([_taken(forwards, lengths - 1)[:, 0], backwards[:, 0]], -1))
            output = torch.cat([forwards, backwards], -1)
        return output, torch.stack(states)


class _Decoder(nn.Module):
    """The next tokens' logits `(bs, n, target_sz)` after `tokens` `(bs, n)`, and the state to go on from."""

    def __init__(self, spec: Seq2SeqSpec):
        super().__init__()
        self.embedding, self.dropout = _embedding(spec.target_sz, spec.emb_sz), nn.Dropout(spec.drop_p)
        between = spec.drop_p if spec.n_layers > 1 else 0.0
        self.rnn = nn.GRU(spec.emb_sz, spec.n_hid, spec.n_layers, batch_first=True, dropout=between)
        self.keys = nn.Linear(spec.n_hid, spec.n_hid, bias=False)
        self.join, self.linear = nn.Linear(2 * spec.n_hid, spec.emb_sz), nn.Linear(spec.emb_sz, spec.target_sz)
        if spec.tie_weights:
            self.linear.weight = self.embedding.weight

    def forward(self, tokens: Tensor, state: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        output, state = self.rnn(self.dropout(self.embedding(tokens)), state)
        scores = (output @ memory.keys.transpose(1, 2)).masked_fill(memory.is_padding[:, None], -torch.inf)
        context = scores.softmax(-1) @ memory.outputs
        return self.linear(self.dropout(self.join(torch.cat([output, context], -1)).tanh())), state


def _embedding(n_words: int, emb_sz: int) -> nn.Embedding:
    """With numbers so large that, tied, they make logits of about 1."""
    embedding = nn.Embedding(n_words, emb_sz)
    nn.init.normal_(embedding.weight, std=emb_sz**-0.5)
    return embedding


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """Of `x` `(bs, n, c)` what is at `places` `(bs, m)`: `(bs, m, c)`."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
