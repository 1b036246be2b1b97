"""The table of a model's layers."""

import torch
from torch import nn
from warmstart.callbacks import Callback
from warmstart.data import DataBunch
from warmstart.learner import SGD, CrossEntropyLoss, Learner

torch.set_num_threads(1)


def network():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def body_and_head(model):
    return [list(model[0].parameters()), list(model[3].parameters())]


def make_learn(model=None, batch=None, **kwargs):
    batch = batch or (torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.long))
    return Learner(DataBunch([batch], device="cpu"), model or network(), CrossEntropyLoss(), **kwargs)


def test_a_summary_lists_layers_with_shapes_parameters_and_whether_they_train():
    learn = make_learn(splitter=body_and_head, opt_func=SGD)
    learn.freeze()
    text = str(learn.summary())
    assert text == (
        "Sequential (4 × 3 × 8 × 8)\n"
        "layer                 output         parameters  trains\n"
        "--------------------  -------------  ----------  ------\n"
        "0.0: Conv2d           4 × 8 × 6 × 6         224  no\n"
        "0.1: BatchNorm2d      4 × 8 × 6 × 6          16  yes\n"
        "0.2: ReLU             4 × 8 × 6 × 6           0\n"
        "1: AdaptiveAvgPool2d  4 × 8 × 1 × 1           0\n"
        "2: Flatten            4 × 8                   0\n"
        "3: Linear             4 × 2                  18  yes\n"
        "\n"
        "Parameters: 258, trainable 34, frozen 224\n"
        "Layer groups: 2\n"
        f"Loss: {learn.loss_func}\n"
        "Optimizer: SGD\n"
        "Callbacks: Evaluate, Recorder, ProgressBar"
    )


def test_a_summary_shows_itself_with_line_breaks():
    summary = make_learn().summary()
    assert repr(summary) == str(summary) and isinstance(summary, str)


def test_looking_at_a_model_does_not_change_it():
    learn = make_learn()
    learn.model[0][1].eval()
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    learn.summary()
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())
    assert learn.model.training and not learn.model[0][1].training and learn.model[0][0].training
    assert not any(module._forward_hooks for module in learn.model.modules())


def test_a_layer_that_is_not_called_or_partly_frozen_is_marked():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 2), nn.Linear(4, 3)
            self.used.bias.requires_grad_(False)

        def forward(self, x):
            return self.used(x)

    lines = str(make_learn(Net(), (torch.randn(4, 4), torch.zeros(4).long())).summary()).splitlines()
    assert lines[3].split() == ["used:", "Linear", "4", "×", "2", "10", "in", "part"]
    assert lines[4].split() == ["unused:", "Linear", "not", "used", "15", "yes"]


def test_inputs_and_outputs_of_any_structure_have_shapes():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.linear = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, text, length):
            return self.linear(self.lstm(text)[0][:, -1])

    batch = {"text": torch.randn(4, 7, 3), "length": torch.full((4,), 7), "label": torch.zeros(4).long()}
    lines = str(make_learn(Net(), batch).summary()).splitlines()
    assert lines[0] == "Net (4 × 7 × 3, 4)"
    assert "lstm: LSTM      4 × 7 × 5, 1 × 4 × 5, 1 × 4 × 5" in lines[3]


def test_a_model_of_one_layer_and_one_without_parameters_have_summaries():
    flat = (torch.randn(4, 4), torch.zeros(4).long())
    assert "\nLinear  4 × 2           10  yes\n" in str(make_learn(nn.Linear(4, 2), flat).summary())
    assert "Parameters: 0, trainable 0, frozen 0" in str(make_learn(nn.Identity(), flat).summary())


def test_callbacks_and_an_optimizer_without_name_are_printed():
    class Mine(Callback): ...

    text = str(make_learn(cbs=Mine(), opt_func=lambda params, lr: SGD(params, lr)).summary())
    assert "Callbacks: Evaluate, Recorder, ProgressBar, Mine" in text and "Optimizer: <lambda>" in text


def test_a_forward_pass_that_fails_leaves_shapes_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.second(self.first(x))

    text = str(make_learn(Net(), (torch.randn(4, 4), torch.zeros(4).long())).summary())
    assert "first: Linear   4 × 2            10  yes\nsecond: Linear  unknown           8  yes\n" in text
    assert "\nOutputs are left out where the forward pass failed, with RuntimeError: mat1 and mat2" in text
    assert "Parameters: 18, trainable 18, frozen 0" in text


def test_optimizers_of_a_system_are_named():
    class Pair(nn.Linear):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for opt in self.optimizers():
                opt.step()

        def configure_optimizers(self):
            self.expected_steps = self.trainer.estimated_stepping_batches
            return [torch.optim.Adam([self.weight]), SGD([self.bias], 0.1)]

    data = DataBunch([(torch.randn(4, 4), torch.zeros(4).long())], device="cpu")
    learn = Learner(data, Pair(4, 2))
    learn.progress.bar = learn.progress.table = False
    assert "Optimizer: Adam, SGD\n" in learn.summary() and learn.opt is None and learn.model.expected_steps == 1
    learn.fit(1)
    assert "Optimizer: Adam, SGD\n" in learn.summary()
