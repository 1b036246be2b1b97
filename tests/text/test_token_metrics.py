import pytest
import torch
from torch.nn import functional as F
from warmstart.text.token_metrics import EntityF1, TokenAccuracy, entities

VOCAB = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def logits_for(rows):
    return F.one_hot(torch.tensor(rows), len(VOCAB)).float()


def test_accuracy_is_of_tokens_with_a_label_however_they_are_batched():
    metric = TokenAccuracy()
    metric.update(logits_for([[0, 1, 2, 3], [0, 0, 0, 0]]), torch.tensor([[0, 1, 0, -100], [0, -100, -100, -100]]))
    metric.update(logits_for([[1, 1]]), torch.tensor([[1, 0]]))
    assert metric.compute().item() == pytest.approx(4 / 6) and metric.name == "token_accuracy"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], {("PER", 0, 2), ("LOC", 3, 4)}),
        (["B-PER", "B-PER", "I-PER"], {("PER", 0, 1), ("PER", 1, 3)}),
        (["I-PER", "I-LOC", "I-LOC", "O"], {("PER", 0, 1), ("LOC", 1, 3)}),
        (["O", "O"], set()),
        (["PER", "PER", "O", "LOC"], {("PER", 0, 2), ("LOC", 3, 4)}),
        (["B-new-york", "I-new-york"], {("new-york", 0, 2)}),
    ],
)
def test_entities_begin_and_end(labels, expected):
    assert entities(labels) == expected


def test_f1_is_of_whole_entities():
    targ = torch.tensor([[-100, 1, 2, 0, 3, -100], [-100, 0, 3, 4, 1, 0]])  # PER, LOC; LOC, PER
    guess = logits_for([[1, 1, 2, 0, 0, 3], [1, 0, 3, 0, 1, 0]])  # PER right; LOC too short, PER right
    metric = EntityF1(VOCAB)
    metric.update(guess, targ)
    assert metric.compute().item() == pytest.approx(2 * 2 / (3 + 4)) and metric.name == "entity_f1"
    metric.update(logits_for([[1, 2]]), torch.tensor([[1, 2]]))  # in a batch of another width
    assert metric.compute().item() == pytest.approx(2 * 3 / (4 + 5))


def test_without_entities_there_is_no_score():
    metric = EntityF1(VOCAB)
    metric.update(logits_for([[0, 0]]), torch.tensor([[0, 0]]))
    assert metric.compute().isnan()


def test_f1_is_that_of_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics", reason="only for comparison")
    torch.manual_seed(0)
    targ, guess = torch.randint(0, 5, (50, 12)), torch.randint(0, 5, (50, 12))
    guess = targ.where(torch.rand(50, 12) < 0.7, guess)
    metric = EntityF1(VOCAB)
    metric.update(logits_for(guess.tolist()), targ)
    names = [[[VOCAB[i] for i in row] for row in rows.tolist()] for rows in (targ, guess)]
    assert metric.compute().item() == pytest.approx(seqeval.f1_score(*names))
