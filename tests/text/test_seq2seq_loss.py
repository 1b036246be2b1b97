import pytest
import torch
from torch.nn import functional as F
from warmstart.learner import CrossEntropyLoss
from warmstart.text.seq2seq_loss import BLEU, Seq2SeqLoss

BOS, PAD = 2, 1
TARG = torch.tensor([[BOS, 5, 6, 7], [BOS, 4, PAD, PAD]])  # expected: 5 6 7 end, and 4 end


def logits_for(ids, c=9, sure=50.0):
    return sure * F.one_hot(torch.tensor(ids), c).float()


def test_what_is_right_costs_nothing_whatever_comes_after_the_end():
    right = logits_for([[5, 6, 7, PAD, 3], [4, PAD, 8, 8, 8]])
    assert Seq2SeqLoss()(right, TARG) < 1e-6


def test_the_mean_is_over_the_tokens_that_are_expected():
    torch.manual_seed(0)
    pred = torch.randn(2, 4, 9)
    expected = torch.tensor([[5, 6, 7, PAD], [4, PAD, -100, -100]])
    reference = F.cross_entropy(pred.reshape(-1, 9), expected.flatten(), ignore_index=-100)
    torch.testing.assert_close(Seq2SeqLoss()(pred, TARG), reference)
    each = Seq2SeqLoss(reduction="none")(pred, TARG)
    assert each.shape == TARG.shape and each[1, 2:].tolist() == [0, 0]
    smooth = Seq2SeqLoss(label_smoothing=0.1)(pred, TARG)
    torch.testing.assert_close(smooth, CrossEntropyLoss(label_smoothing=0.1)(pred, expected))


def test_tokens_that_are_missing_were_guessed():
    short = logits_for([[5, 6], [4, PAD]])
    torch.testing.assert_close(Seq2SeqLoss()(short, TARG), 2 * torch.tensor(9.0).log() / 6, atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_is_explained():
    with pytest.raises(ValueError, match=r"Logits \(bs, n, c\)"):
        Seq2SeqLoss().check(torch.randn(2, 9), TARG)
    with pytest.raises(ValueError, match=r"targets must lie in 0…5"):
        Seq2SeqLoss().check(torch.randn(2, 4, 6), TARG)


def test_bleu_is_of_the_words_without_beginning_and_end():
    torchmetrics = pytest.importorskip("torchmetrics", reason="comes with the extra detection")
    torch.manual_seed(0)
    metric, reference = BLEU(), torchmetrics.text.BLEUScore()
    for _ in range(3):
        targ = torch.randint(3, 7, (20, 12))
        targ[:, 0] = BOS
        guess = targ[:, 1:].where(torch.rand(20, 11) < 0.8, torch.randint(3, 7, (20, 11)))
        for row in range(20):
            targ[row, 12 - row % 5 :], guess[row, 11 - row % 7 :] = PAD, PAD
        metric.update(logits_for(guess.tolist()), targ)
        texts = [[" ".join(map(str, row[row != PAD].tolist())) for row in ids] for ids in (guess, targ[:, 1:])]
        reference.update(texts[0], [[text] for text in texts[1]])
    torch.testing.assert_close(metric.compute().float(), reference.compute())
    assert metric.name == "bleu"
