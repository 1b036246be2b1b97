"""Differences between two records, in sentences."""

import copy

from hypothesis import given
from hypothesis import strategies as st
from warmstart.learner.differences import differences

CENSUS = {"tensors": 2, "numbers": 1_234, "sha256": "a"}
RECORD = {
    "recipe": {
        "n_epoch": 5,
        "bs": 64,
        "optimizer": {"class": "SGD", "lr": 0.1, "betas": [0.9, 0.99]},
        "schedules": {"lr": [[0.0, 0.5, 1.0] * 4]},
        "loss": {"function": "loss", "own code": "3.11:aa"},
        "metrics": {"accuracy": {"function": "accuracy"}},
        "callbacks": [{"class": "MixUp", "alpha": 0.4}, {"class": "Own", "own code": "3.11:aa"}],
        "batch_tfms": [{"class": "Geometry", "size": 8}, {"class": "Normalize"}],
        "model": {
            "class": "Net",
            "layers": {"the whole": "Net()", "0": "Linear(2, 3)", "1": "ReLU()"},
            "tensors": CENSUS,
            "trainable": CENSUS,
            "groups": [CENSUS],
            "layer_classes": {"Net": {"own code": "3.11:aa"}},
        },
    },
    "data": {
        "train": {"kind": "Dataset", "items": 1244, "content": "a", "names": "b", "sizes": "c"},
        "valid": {"kind": "Dataset", "items": 60, "content": "a"},
        "vocab": {"1": ["ants", "bees"]},
    },
    "seed": {"data": 1, "torch": None},
    "environment": {"threads": 2},
}


def changed(*paths_and_values):
    """The sentences after values, given by turns with their dotted path, have replaced those of the record."""
    new = copy.deepcopy(RECORD)
    for path, value in zip(paths_and_values[::2], paths_and_values[1::2], strict=True):
        *path, last = path.split("/")
        place = new
        for key in path:
            place = place[int(key)] if isinstance(place, list) else place[key]
        place[int(last) if isinstance(place, list) else last] = value
    return differences(RECORD, new)


def test_equal_records_have_none():
    assert changed() == changed("environment/threads", 8) == []


def test_numbers_are_told_before_and_after():
    assert changed("recipe/n_epoch", 3) == ["the number of epochs was 5 and is 3"]
    assert changed("recipe/optimizer/lr", [0.1, 0.2]) == ["the learning rate was 0.1 and is [0.1, 0.2]"]
    assert changed("recipe/optimizer/betas", [0.8, 0.99]) == ["optimizer.betas was [0.9, 0.99] and is [0.8, 0.99]"]
    assert changed("seed/data", 2, "seed/torch", 4) == [
        "the seed of the data was 1 and is 2",
        "the seed of torch was None and is 4",
    ]


def test_callbacks_are_gone_new_or_changed():
    own = RECORD["recipe"]["callbacks"][1]
    assert changed("recipe/callbacks", [own]) == ["callback MixUp(alpha=0.4) is gone"]
    assert changed("recipe/callbacks/0/alpha", 0.2) == ["callback MixUp.alpha was 0.4 and is 0.2"]
    two = [*RECORD["recipe"]["callbacks"], {"class": "MixUp", "alpha": 1.0}]
    assert changed("recipe/callbacks", two) == ["callback MixUp(alpha=1.0) is new"]
    assert changed("recipe/callbacks", [{"class": "CutMix"}, own]) == [
        "callback MixUp(alpha=0.4) is gone",
        "callback CutMix() is new",
    ]
    assert changed("recipe/metrics", {}) == ["metric accuracy is gone"]


def test_the_order_of_transforms_counts_and_that_of_callbacks_does_not():
    assert changed("recipe/batch_tfms", RECORD["recipe"]["batch_tfms"][::-1]) == [
        "the batch transforms come in another order"
    ]
    assert changed("recipe/callbacks", RECORD["recipe"]["callbacks"][::-1]) == []


def test_code_is_compared_where_the_same_python_has_compiled_it():
    assert changed("recipe/loss/own code", "3.11:bb") == ["the code of the loss has changed"]
    assert changed("recipe/callbacks/1/own code", "3.11:bb") == ["the code of callback Own has changed"]
    assert changed("recipe/model/layer_classes/Net/own code", "3.11:bb") == ["the code of layer Net has changed"]
    assert changed("recipe/loss/own code", "3.12:bb") == []
    assert changed("recipe/loss", {"function": "loss"}) == ["the code of the loss has changed"]


def test_a_model_that_differs_in_many_layers_takes_few_sentences():
    assert changed(
        "recipe/model/layers/0", "Linear(2, 9)", "recipe/model/layers/1", "GELU()",
        "recipe/model/tensors", {**CENSUS, "numbers": 5_678}, "recipe/model/trainable", {**CENSUS, "numbers": 5_678},
    ) == [
        "the model's layer 0 was Linear(2, 3) and is Linear(2, 9), and 1 more of its layers differ",
        "the model's weights were 2 tensors of 1,234 numbers and are 2 tensors of 5,678 numbers",
    ]  # fmt: skip
    assert changed("recipe/model/layers", {"the whole": "Net()", "0": "Linear(2, 3)"}) == [
        "the model's layer 1, ReLU(), is gone"
    ]
    assert changed("recipe/model/trainable", {**CENSUS, "sha256": "b"}) == [
        "the parameters that train were 2 tensors of 1,234 numbers and are 2 tensors of 1,234 numbers with other "
        "names, shapes or types"
    ]


def test_schedules_are_told_by_their_beginning_middle_and_end():
    assert changed("recipe/schedules/lr", [[float(number) for number in range(11)]]) == [
        "the schedule of lr was 0 → 1 → 0.5 and is 0 → 5 → 10"
    ]
    assert changed("recipe/schedules", {}) == ["the schedule of lr was 0 → 1 → 0.5 and is absent"]


def test_data_are_told_by_what_of_them_differs():
    assert changed("data/train/items", 1240) == ["the training data had 1,244 items and have 1,240"]
    assert changed("data/train/sizes", "d", "data/train/names", "d") == [
        "the training data have 1,244 items as before, but other file names and file sizes"
    ]
    assert changed("data/valid/labels", "d") == ["the validation data have 60 items as before, but other labels"]
    assert changed("data/valid", None) == ["the validation data are gone"]
    assert changed("data/valid/kind", "Subset") == ["the validation data were a Dataset and are a Subset"]
    assert changed("data/vocab", {"1": ["ants"]}) == ["the vocabulary was ['ants', 'bees'] and is ['ants']"]


def test_parts_that_one_of_them_does_not_know_are_passed_over():
    new = copy.deepcopy(RECORD)
    new["recipe"]["weather"] = "rain"
    assert differences(RECORD, new) == differences(new, RECORD) == []


def test_of_many_there_are_ten():
    found = changed("recipe/optimizer", {"class": "SGD", **{f"option{number}": number for number in range(15)}})
    assert len(found) == 11 and found[-1] == "and 7 more"


@given(st.sampled_from(["recipe", "data", "seed"]), st.data())
def test_any_other_value_gives_a_sentence(part, data):
    key = data.draw(
        st.sampled_from([key for key in RECORD[part] if not isinstance(RECORD[part][key], (dict, list))] or ["x"])
    )
    value = data.draw(st.none() | st.integers(100) | st.text() | st.lists(st.floats(0, 1)))
    found = changed(f"{part}/{key}", value)
    assert len(found) == (key in RECORD[part] and RECORD[part][key] != value)
