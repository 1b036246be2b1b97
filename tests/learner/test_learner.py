"""The learner: fits that may be repeated, layer groups and their rates, callbacks, and errors that say what to pass."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from warmstart.callbacks import Callback, ParamScheduler, Recorder, sched_no
from warmstart.data import CategoryBlock, DataBlock, DataBunch, IndexSplitter, RegressionBlock
from warmstart.learner import SGD, AdamW, CrossEntropyLoss, Learner, MSELoss, accuracy, error_rate, set_seed

torch.set_num_threads(1)


def batches(n, bs=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(bs, 4, generator=generator, dtype=dtype) for _ in range(n)]
    return [(x, (x.sum(1) > 0).long()) for x in inputs]


def bunch(n_train=3, n_valid=1, **kwargs):
    return DataBunch(batches(n_train, **kwargs), batches(n_valid, seed=1, **kwargs) if n_valid else None, device="cpu")


def network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8))
    return nn.Sequential(body, nn.ReLU(), nn.Linear(8, 2))


def body_and_head(model):
    return [list(model[0].parameters()), list(model[2].parameters())]


def three_groups(model):
    return [list(model[0][:2].parameters()), list(model[0][2:].parameters()), list(model[2].parameters())]


def quiet(learn):
    learn.progress.bar = learn.progress.table = False
    return learn


def make_learn(data=None, model=None, loss_func=None, **kwargs):
    data, model = data or bunch(), network() if model is None else model
    return quiet(Learner(data, model, loss_func or nn.CrossEntropyLoss(), **kwargs))


def weights(learn):
    return copy.deepcopy(learn.model.state_dict())


def changed(learn, before):
    """The parameters and buffers that are no longer as they were."""
    return {name for name, value in learn.model.state_dict().items() if not torch.equal(value, before[name])}


def rates(learn):
    return [group["lr"] for group in learn.opt.param_groups]


# ---- fitting


def test_a_model_learns_to_read_digits_in_a_few_seconds():
    images, numbers = load_digits(return_X_y=True)
    pixels, numbers = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(numbers)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    train, valid = (TensorDataset(pixels[part], numbers[part]) for part in (order[:1400], order[1400:]))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    data = DataBunch.from_dsets(train, valid, bs=64, device="cpu", seed=0)
    learn = quiet(Learner(data, model, CrossEntropyLoss(), metrics=accuracy))
    learn.fit_one_cycle(10, 2e-2)
    assert learn.validate()["accuracy"] > 0.95
    assert learn.recorder.history["accuracy"].iloc[-1] == learn.validate()["accuracy"]


def test_fit_may_be_called_again_and_again_and_keeps_the_optimizers_state():
    once, twice = make_learn(), make_learn()
    once.fit(2)
    twice.fit(1)
    opt = twice.opt
    twice.fit(1)
    assert twice.opt is opt and not changed(once, weights(twice))
    assert twice.recorder.history["epoch"].tolist() == [0, 1]


def test_each_fit_sees_the_data_in_another_order():
    x = torch.randn(16, 4)
    data = DataBunch.from_dsets(TensorDataset(x, (x.sum(1) > 0).long()), bs=4, device="cpu", seed=0)
    seen = []

    class Look(Callback):
        def before_batch(self, learn):
            seen.append(learn.xb[0])

    learn = make_learn(data, cbs=Look())
    learn.fit(1)
    learn.fit(1)
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert not torch.equal(first, second) and torch.equal(first.sort(0).values, second.sort(0).values)


def test_fit_takes_its_rate_from_the_learner_unless_told():
    learn = make_learn(lr=0.2)
    learn.fit(1)
    learn.fit(1, 0.1)
    learn.fit(1)
    assert learn.recorder.lrs == [0.2] * 3 + [0.1] * 3 + [0.2] * 3


def test_callbacks_of_a_fit_are_there_for_this_fit_only():
    class Count(Callback):
        n = 0

        def before_epoch(self, learn):
            self.n += 1

    learn, count, other = make_learn(), Count(), Count()
    learn.fit(2, cbs=count)
    learn.fit(1, cbs=[other])
    assert (count.n, other.n) == (2, 1) and count not in learn.cbs


@pytest.mark.parametrize("n_epoch", [-1, 1.5, 2.0, "3", None])
def test_the_number_of_epochs_is_a_whole_number(n_epoch):
    with pytest.raises(ValueError, match=f"n_epoch={n_epoch}: the number of epochs is a whole number, 0 or more"):
        make_learn().fit(n_epoch)


def test_no_epochs_change_nothing():
    learn = make_learn()
    before = weights(learn)
    learn.fit(np.int64(0))
    learn.fit_one_cycle(0)
    assert not changed(learn, before) and learn.recorder.history.empty


@pytest.mark.parametrize("train", [[], DataLoader(TensorDataset(torch.randn(3, 4), torch.ones(3)), 4, drop_last=True)])
def test_a_training_set_without_a_batch_is_an_error(train):
    learn = make_learn(DataBunch(train, device="cpu"))
    for method in (learn.fit, learn.fit_one_cycle):
        with pytest.raises(ValueError, match="There is no training batch: the training set is empty, or smaller than"):
            method(1)
    with pytest.raises(ValueError, match="There is no training batch"):
        learn.lr_find(show_plot=False)


def test_a_loader_without_length_trains_but_for_one_cycle():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(TensorDataset(torch.randn(16, 4), torch.ones(16, dtype=torch.long)))

    learn = make_learn(DataBunch(DataLoader(Stream(), 4), device="cpu"))
    learn.fit(2)
    assert len(learn.recorder.losses) == 8
    with pytest.raises(ValueError, match="A schedule needs the number of batches: give the loader a __len__"):
        learn.fit_one_cycle(1)


def test_a_double_model_trains_on_double_data():
    learn = make_learn(bunch(dtype=torch.float64), network().double(), metrics=accuracy)
    learn.fit_one_cycle(2)
    assert learn.model[2].weight.dtype == torch.float64 and learn.recorder.history.notna().all(axis=None)


def test_without_validation_data_validate_says_so_and_takes_a_loader():
    learn = make_learn(bunch(n_valid=0))
    learn.fit(1)
    with pytest.raises(ValueError, match=r"There is no validation set: pass a loader, validate\(dl=…\)"):
        learn.validate()
    assert set(learn.validate(dl=batches(2))) == {"valid_loss"}


def test_validate_works_before_any_fit_and_changes_nothing():
    learn = make_learn(metrics=accuracy)
    before = weights(learn)
    learn.model.train()
    assert learn.validate() == learn.validate()
    assert learn.opt is None and learn.model.training and not changed(learn, before)


# ---- layer groups


def test_frozen_groups_do_not_change_but_batchnorm_does():
    learn = make_learn(splitter=body_and_head)
    learn.freeze()
    before = weights(learn)
    learn.fit(1, 0.1)
    statistics = {"0.1.running_mean", "0.1.running_var", "0.1.num_batches_tracked"}
    assert changed(learn, before) == {"2.weight", "2.bias", "0.1.weight", "0.1.bias"} | statistics


def test_batchnorm_parameters_are_frozen_too_if_train_bn_is_false():
    learn = make_learn(splitter=body_and_head, train_bn=False)
    learn.freeze()
    before = weights(learn)
    learn.fit(1, 0.1)
    assert {name for name in changed(learn, before) if "running" not in name and "num" not in name} == {
        "2.weight", "2.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("n", "trains"),
    [
        (0, [True, True, True]),
        (1, [False, True, True]),
        (3, [False, False, False]),
        (-1, [False, False, True]),
        (-2, [False, True, True]),
        (-3, [True, True, True]),
    ],
)
def test_freeze_to_trains_the_groups_from_n_on(n, trains):
    learn = make_learn(splitter=three_groups, train_bn=False)
    learn.freeze_to(n)
    assert [all(p.requires_grad for p in group) for group in learn.groups] == trains
    assert [any(p.requires_grad for p in group) for group in learn.groups] == trains


def test_freeze_to_knows_how_many_groups_there_are():
    with pytest.raises(ValueError, match=r"freeze_to\(4\): this model has 3 layer groups"):
        make_learn(splitter=three_groups).freeze_to(4)


def test_unfreeze_thaws_everything():
    learn = make_learn(splitter=three_groups)
    learn.freeze()
    learn.unfreeze()
    before = weights(learn)
    learn.fit(1, 0.1)
    assert changed(learn, before) == set(before)


def test_with_everything_frozen_there_is_nothing_to_train():
    for trained in (False, True):
        learn = make_learn(train_bn=False)
        if trained:
            learn.fit(1)
        learn.freeze_to(1)
        with pytest.raises(
            ValueError, match=r"nothing to train: no parameter requires gradients. learn.unfreeze\(\) t"
        ):
            learn.fit(1)
        with pytest.raises(ValueError, match="nothing to train"):
            learn.lr_find(show_plot=False)


def test_a_model_without_parameters_validates_but_does_not_train():
    learn = make_learn(model=nn.Identity(), loss_func=lambda pred, targ: F.cross_entropy(pred[:, :2], targ))
    assert learn.validate()["valid_loss"] > 0
    with pytest.raises(ValueError, match="nothing to train"):
        learn.fit(1)
    assert "Parameters: 0" in str(learn.summary())


def test_a_slice_spreads_the_rates_over_the_groups():
    learn = make_learn(splitter=three_groups)
    learn.fit(1, slice(1e-4, 1e-2))
    assert rates(learn) == pytest.approx([1e-4, 1e-3, 1e-2])
    learn.fit(1, slice(0.1))
    assert rates(learn) == pytest.approx([0.01, 0.01, 0.1])
    learn.fit(1, [0.1, 0.2, 0.3])
    assert rates(learn) == [0.1, 0.2, 0.3]
    learn.fit(1, 0.5)
    assert rates(learn) == [0.5] * 3


def test_one_cycle_gives_each_group_its_own_cycle():
    class Look(Callback):
        def before_backward(self, learn):
            seen.append(rates(learn))

    seen, learn = [], make_learn(splitter=three_groups, lr=slice(1e-4, 1e-2))
    learn.fit_one_cycle(2, cbs=Look())
    peaks = [max(lrs) for lrs in zip(*seen, strict=True)]
    assert [lr * 25 for lr in seen[0]] == pytest.approx([1e-4, 1e-3, 1e-2])
    assert peaks[1] / peaks[0] == pytest.approx(10) and peaks[2] / peaks[1] == pytest.approx(10)


def test_a_slice_for_one_group_is_an_error():
    learn = make_learn()
    with pytest.raises(
        ValueError, match=r"lr=slice\(0.1, 0.2, None\) spreads over layer groups, and this model has one"
    ):
        learn.fit(1, slice(0.1, 0.2))
    with pytest.raises(ValueError, match="lr_max=slice"):
        learn.fit_one_cycle(1, slice(0.1, 0.2))


def test_a_list_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="lr has 2 values for 3 layer groups: pass one for each, or a slice"):
        make_learn(splitter=three_groups).fit(1, [0.1, 0.2])


def test_fine_tune_trains_the_head_and_then_all_at_half_the_rate():
    class Look(Callback):
        def before_backward(self, learn):
            seen.append(rates(learn))

    seen, learn = [], make_learn(bunch(n_train=20), splitter=body_and_head)
    learn.fine_tune(2, base_lr=0.1, freeze_epochs=1, cbs=Look())
    first, then = np.array(seen[:20]), np.array(seen[20:])
    assert len(then) == 40 and all(p.requires_grad for p in learn.model.parameters())
    assert first[0] == pytest.approx([0.01 / 25, 0.1 / 25]) and first.argmax(0).tolist() == [19, 19]  # 0.99 of the way
    assert then[0] == pytest.approx([0.05 / 100 / 5, 0.05 / 5])
    assert then[12] == pytest.approx([0.05 / 100, 0.05]) and then.argmax(0).tolist() == [12, 12]  # 0.3 of the way


def test_fine_tune_freezes_the_body_at_first():
    learn = make_learn(splitter=body_and_head)
    before = weights(learn)
    learn.fine_tune(0, 0.1, freeze_epochs=1)
    assert not {"0.0.weight", "0.3.bias"} & changed(learn, before)


def test_fine_tune_needs_two_groups():
    with pytest.raises(ValueError, match="fine_tune freezes all layer groups but the last, and this model has one"):
        make_learn().fine_tune(1)


def test_a_splitter_that_gives_no_parameters_is_an_error():
    with pytest.raises(
        TypeError, match="splitter <lambda> returned Sequential where a list of parameters was expected"
    ):
        make_learn(splitter=lambda m: [m[0], m[2]])


def test_a_parameter_in_two_groups_is_an_error():
    with pytest.raises(ValueError, match="splitter <lambda> puts 2 parameters into two groups"):
        make_learn(splitter=lambda m: [list(m.parameters()), list(m[2].parameters())])


# ---- the optimizer


@pytest.mark.parametrize(
    "opt_func",
    [SGD, partial(SGD, momentum=0.9), torch.optim.Adagrad, torch.optim.NAdam, lambda params, lr: SGD(params, lr=lr)],
)
def test_any_optimizer_of_torch_trains(opt_func):
    learn = make_learn(opt_func=opt_func)
    before = weights(learn)
    learn.fit_one_cycle(1, 0.1)
    assert {"0.0.weight", "0.3.bias", "2.weight"} <= changed(learn, before)


def test_an_optimizers_own_defaults_are_kept():
    learn = make_learn(opt_func=partial(AdamW, betas=(0.8, 0.95), eps=1e-5))
    learn.fit(1)
    group = learn.opt.param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-5, 0.01)


def test_what_is_no_optimizer_is_an_error():
    with pytest.raises(TypeError, match=r"opt_func\(params, lr=…\) returned list, not a torch.optim.Optimizer"):
        make_learn(opt_func=lambda params, lr: params).fit(1)


def test_weight_decay_of_a_fit_is_for_this_fit_only():
    def decay(**kwargs):
        learn.fit(1, **kwargs)
        return [group["weight_decay"] for group in learn.opt.param_groups]

    learn = make_learn(wd=0.2)
    assert [decay(), decay(wd=0.3), decay(wd=0.0), decay()] == [[0.2], [0.3], [0.0], [0.2]]
    learn = make_learn()
    assert [decay(), decay(wd=0.3), decay()] == [[0.01], [0.3], [0.01]]


def test_biases_and_norms_do_not_decay_if_one_says_so():
    learn = make_learn(wd=0.1, wd_bn_bias=False)
    learn.fit(1)
    decayed = {id(p) for group in learn.opt.param_groups if group["weight_decay"] == 0.1 for p in group["params"]}
    assert {n for n, p in learn.model.named_parameters() if id(p) in decayed} == {
        "0.0.weight",
        "0.3.weight",
        "2.weight",
    }
    assert {group["weight_decay"] for group in learn.opt.param_groups} == {0.1, 0.0}


# ---- changes between fits


def test_metrics_can_come_later_and_go():
    learn = make_learn()
    learn.metrics = accuracy
    assert set(learn.validate()) == {"valid_loss", "accuracy"}
    learn.metrics = [accuracy, error_rate]
    assert learn.validate()["error_rate"] == pytest.approx(1 - learn.validate()["accuracy"])
    learn.metrics = None
    assert set(learn.validate()) == {"valid_loss"} and learn.metrics == []


def test_a_metric_appended_to_the_list_counts():
    learn = make_learn(metrics=[accuracy])
    learn.metrics.append(error_rate)
    learn.fit(1)
    assert "error_rate" in learn.recorder.history
    learn.metrics += [partial(F.cross_entropy, reduction="mean")]
    assert list(learn.validate()) == ["valid_loss", "accuracy", "error_rate", "cross_entropy"]


@pytest.mark.parametrize("metrics", [[accuracy, accuracy], [accuracy, partial(accuracy, axis=1)]])
def test_two_metrics_of_one_name_are_an_error(metrics):
    with pytest.raises(ValueError, match="two columns would be called 'accuracy': give the metric another name="):
        make_learn(metrics=metrics)


def test_a_metric_cannot_have_the_name_of_another_column():
    def train_loss(pred, targ):
        return targ.sum()

    with pytest.raises(ValueError, match="two columns would be called 'train_loss'"):
        make_learn(metrics=train_loss)


def test_a_metric_with_the_wrong_signature_is_found_before_training():
    def distance(pred):
        return pred.mean()

    with pytest.raises(TypeError, match=r"metric `distance` could not be called with \(pred, targ\)"):
        make_learn(metrics=distance)
    with pytest.raises(TypeError, match="object is a class: pass an instance"):
        make_learn(metrics=object)


def test_other_data_can_be_put_in_between():
    learn = make_learn()
    learn.fit(1)
    learn.data = bunch(n_train=5)
    learn.fit(1)
    assert learn.recorder.epoch_ends == [3, 8]
    with pytest.raises(TypeError, match="data is tuple, not a DataBunch"):
        learn.data = (batches(1), batches(1))


def test_another_model_gets_its_own_groups_and_optimizer():
    learn = make_learn(splitter=body_and_head)
    learn.fit(1)
    old, learn.model = learn.opt, network()
    before = weights(learn)
    learn.fit(1, 0.1)
    assert changed(learn, before) == set(before) and learn.opt is not old


def test_a_new_head_is_trained_too():
    learn = make_learn(splitter=body_and_head)
    learn.fit(1)
    learn.model[2] = nn.Linear(8, 2)
    learn.freeze()
    before = weights(learn)
    learn.fit(1, 0.1)
    assert {"2.weight", "2.bias"} <= changed(learn, before) and not learn.model[0][0].weight.requires_grad


def test_a_wrapped_model_keeps_its_optimizer():
    class Wrapped(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x)

    learn = make_learn()
    learn.fit(1)
    opt, learn.model = learn.opt, Wrapped(learn.model)
    learn.fit(1)
    assert learn.opt is opt


# ---- copies


def test_a_copy_of_a_trained_learner_trains_on_alone():
    learn = make_learn(metrics=accuracy)
    learn.fit_one_cycle(2)
    twin, before = copy.deepcopy(learn), weights(learn)
    for each in (twin, learn):
        torch.manual_seed(0)
        each.fit(1)
        if each is twin:
            assert not changed(learn, before)
    assert not changed(twin, weights(learn)) and twin.validate() == learn.validate()
    assert twin.recorder.losses == learn.recorder.losses


def test_a_learner_can_be_pickled():
    learn = make_learn(metrics=accuracy, cbs=ParamScheduler({"lr": sched_no(0.1, 0.1)}))
    learn.fit_one_cycle(1)
    twin = pickle.loads(pickle.dumps(learn))
    assert twin.validate() == learn.validate() and twin.recorder.history.equals(learn.recorder.history)
    twin.fit(1)


# ---- callbacks


class Hears(Callback):
    def after_create(self, learn):
        self.learn = learn


class Other(Hears):
    pass


def test_callbacks_are_added_and_told():
    first, second, third = Hears(), Hears(), Other()
    learn = make_learn(cbs=[first])
    assert learn.add_cb(second) is learn and learn.add_cbs([third]) is learn
    assert all(cb in learn.cbs and cb.learn is learn for cb in (first, second, third))
    assert learn.add_cbs(None) is learn


def test_callbacks_are_removed_by_themselves_or_by_class():
    first, second, third = Hears(), Hears(), Other()
    learn = make_learn(cbs=[first, second, third])
    learn.remove_cb(first)
    assert first not in learn.cbs and second in learn.cbs
    learn.remove_cb(Hears)
    assert not any(isinstance(cb, Hears) for cb in learn.cbs)
    with pytest.raises(
        ValueError, match=r"this learner has no callback Hears: it has \[Evaluate, Recorder, ProgressBar\]"
    ):
        learn.remove_cb(first)


def test_added_cbs_are_there_inside_only():
    inside, stays = Hears(), Other()
    learn = make_learn()
    before = list(learn.cbs)
    with pytest.raises(ZeroDivisionError), learn.added_cbs(inside) as same:
        assert same is learn and inside in learn.cbs
        learn.add_cb(stays)
        raise ZeroDivisionError
    assert learn.cbs == [*before, stays]
    with pytest.raises(TypeError), learn.added_cbs([inside, "no callback"]):
        raise AssertionError
    assert inside not in learn.cbs


def test_a_class_or_a_function_is_no_callback():
    with pytest.raises(TypeError, match=r"Recorder'> is not a callback: pass an instance, Recorder\(\)"):
        make_learn(cbs=Recorder)
    with pytest.raises(TypeError, match="is not a callback: derive your class from Callback"):
        make_learn().fit(1, cbs=[print])


def test_a_learner_may_do_without_its_own_callbacks():
    learn = make_learn(metrics=accuracy)
    for cb in list(learn.cbs):
        learn.remove_cb(cb)
    learn.fit_one_cycle(1)
    assert learn.validate() == {} and learn.recorder.history.empty


# ---- arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model=nn.Linear), "model is the class Linear, not a torch.nn.Module: pass an instance"),
        (dict(model=print), "model is builtin_function_or_method, not a torch.nn.Module"),
        (dict(data=batches(2)), r"data is list, not a DataBunch: wrap loaders, DataBunch\(train_dl, valid_dl\)"),
        (
            dict(loss_func=nn.CrossEntropyLoss),
            r"loss_func is the class CrossEntropyLoss: pass an instance, CrossEntrop",
        ),
        (dict(loss_func="mse"), r"loss_func is str: pass a function \(pred, targ\) -> scalar tensor, or a module"),
        (dict(opt_func="adam"), r"opt_func is str: pass a torch.optim class, or \(params, lr\) -> Optimizer"),
        (dict(opt_func=SGD([nn.Parameter(torch.ones(1))])), "opt_func is SGD: pass a torch.optim class"),
        (dict(metric=accuracy), "unexpected keyword argument 'metric'"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_an_error_that_says_what_to_pass(changes, message):
    with pytest.raises(TypeError, match=message):
        Learner(**{"data": bunch(), "model": network(), "loss_func": nn.CrossEntropyLoss()} | changes)


def block_data(block, targets):
    items = [(x, y) for x, y in zip(torch.randn(len(targets), 4).tolist(), targets, strict=True)]
    splitter = IndexSplitter(range(len(items) - 2, len(items)))
    block = DataBlock((RegressionBlock, block), get_x=first, get_y=second, splitter=splitter, n_inp=1)
    return block.databunch(items, bs=4, num_workers=0, device="cpu")


def first(item):
    return item[0]


def second(item):
    return item[1]


def test_the_loss_is_the_target_blocks_unless_given():
    assert Learner(block_data(CategoryBlock, list("abababab")), network()).loss_func == CrossEntropyLoss()
    assert Learner(block_data(RegressionBlock, [1.0, 2.0] * 4), network()).loss_func == MSELoss()


def test_data_that_names_no_loss_asks_for_one():
    with pytest.raises(ValueError, match=r"The data names no losses, so which one to use.* Pass loss_func="):
        Learner(bunch(), network())


def test_targets_out_of_range_are_named():
    learn = quiet(Learner(block_data(CategoryBlock, list("abcabcab")), network()))
    with pytest.raises(ValueError, match="targets must lie in 0…1 for a model with 2 outputs, found 2"):
        learn.fit(10)


def test_a_learner_prints_what_it_is_made_of():
    data = "DataBunch(train 3 items, valid 1 items on cpu)"
    expected = f"Learner(Sequential, {data}, loss=CrossEntropyLoss(), metrics=['accuracy'])"
    assert repr(make_learn(metrics=accuracy)) == expected


def test_the_same_seed_gives_the_same_run():
    def losses():
        set_seed(7)
        x = torch.randn(32, 4)
        data = DataBunch.from_dsets(TensorDataset(x, (x.sum(1) > 0).long()), bs=8, device="cpu")
        learn = quiet(Learner(data, nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 2)), CrossEntropyLoss()))
        learn.fit_one_cycle(2)
        return learn.recorder.losses

    assert losses() == losses()
