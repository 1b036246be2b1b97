"""Differences between two records, in sentences."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st
from warmstart.learner.differences import differences

CENSUS = "2 tensors of 1,234 numbers (1a2b)"
RECORD = {
    "recipe": {
        "n_epoch": 5,
        "bs": 64,
        "optimizer": {"class": "SGD", "lr": 0.1, "betas": [0.9, 0.99]},
        "schedules": {"lr": [[0.0, 0.5, 1.0] * 4]},
        "loss": {"function": "loss", "own code": "3.11:aa"},
        "metrics": {"accuracy": {"function": "accuracy"}},
        "callbacks": [{"class": "MixUp", "alpha": 0.4}, {"class": "Own"}],
        "batch_tfms": [{"class": "Geometry", "size": 8}, {"class": "Normalize"}],
        "model": {
            "class": "Net",
            "layers": {"the whole": "Net()", "0": "Linear(2, 3)", "1": "ReLU()"},
            "tensors": CENSUS,
            "trainable": CENSUS,
            "groups": [CENSUS],
        },
    },
    "data": {
        "train": {"kind": "Dataset", "items": 1244, "content": "a", "names": "b", "sizes": "c"},
        "valid": {"kind": "Dataset", "items": 60, "content": "a"},
        "vocab": [["ants", "bees"]],
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
        "the seed of the data was 1 and is 2 "
        "(for the same in each run, give databunch(seed=…) or call set_seed(…) first)",
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
    assert changed("recipe/loss/own code", "3.12:bb") == []


def test_a_model_that_differs_in_many_layers_takes_few_sentences():
    assert changed(
        "recipe/model/layers/0", "Linear(2, 9)", "recipe/model/layers/1", "GELU()",
        "recipe/model/tensors", "2 tensors of 5,678 numbers (3c4d)", "recipe/model/trainable", "as many",
    ) == [
        "the model's layer 0 was Linear(2, 3) and is Linear(2, 9), and 1 more of its layers differ",
        "what the model holds was 2 tensors of 1,234 numbers (1a2b) and is 2 tensors of 5,678 numbers (3c4d)",
    ]  # fmt: skip
    assert changed("recipe/model/layers", {"the whole": "Net()", "0": "Linear(2, 3)"}) == [
        "the model's layer 1 is gone, it was ReLU()"
    ]


def test_what_trains_is_told_in_all_and_by_group():
    fewer = "1 tensors of 34 numbers (3c4d)"
    assert changed("recipe/model/trainable", fewer, "recipe/model/groups", [fewer]) == [
        f"what trains of the model was {CENSUS} and is {fewer}",
        f"what trains in each group was ['{CENSUS}'] and is ['{fewer}']",
    ]


def test_schedules_are_told_by_their_beginning_middle_and_end():
    assert changed("recipe/schedules/lr", [[float(number) for number in range(11)]]) == [
        "the schedule of lr was 0 → 1 → 0.5 and is 0 → 5 → 10"
    ]
    assert changed("recipe/schedules", {}) == ["the schedule of lr was 0 → 1 → 0.5 and is absent"]


def test_data_are_told_by_what_of_them_differs():
    assert changed("data/train/items", 1240) == ["the training data had 1244 items and have 1240"]
    assert changed("data/train/sizes", "d", "data/train/names", "d") == [
        "the training data have 1244 items as before, but other file names and file sizes"
    ]
    assert changed("data/valid/labels", "d") == ["the validation data have 60 items as before, but other labels"]
    assert changed("data/valid", None) == ["the validation data are gone"]
    assert changed("data/valid/kind", "Subset") == ["the validation data were a Dataset and are a Subset"]
    assert changed("data/vocab", [["ants"]]) == ["the vocabulary was [['ants', 'bees']] and is [['ants']]"]


def test_parts_that_one_of_them_does_not_know_are_passed_over():
    new = copy.deepcopy(RECORD)
    new["recipe"]["weather"] = "rain"
    assert differences(RECORD, new) == differences(new, RECORD) == []


def test_of_many_there_are_ten():
    found = changed("recipe/optimizer", {"class": "SGD", **{f"option{number}": number for number in range(15)}})
    assert len(found) == 11 and found[-1] == "and 7 more"


# ---- a record from a file may be anything


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(10**6) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["class", "function", "own code", "x"]), inner),
    max_leaves=8,
)


def places(value, path=()):
    """The way to each value in a record, and to those within it."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def put(record, path, value):
    """The record with another value at that place."""
    if not path:
        return value
    changed = copy.copy(record)
    changed[path[0]] = put(record[path[0]], path[1:], value)
    return changed


@settings(max_examples=60)
@given(st.sampled_from([path for path in places(RECORD) if path[:1] != ("environment",)]), JSON)
def test_where_a_record_holds_something_else_a_sentence_says_so(path, value):
    damaged = put(RECORD, path, value)
    found = differences(damaged, RECORD)
    assert all(isinstance(sentence, str) and sentence.isprintable() for sentence in found)
    is_passed_over = isinstance(value, dict) and len(path) == 1  # an older version may not have known the rest
    is_of_another_python = path[-1:] == ("own code",)
    assert found or damaged == RECORD or is_passed_over or is_of_another_python


def test_no_record_at_all_differs():
    for old in (None, [], "text", {}, {"recipe": {}}, {**RECORD, "seed": [1]}):
        assert differences(old, RECORD) == ["what was recorded of it is no record of a run"]


def test_a_very_deep_record_differs():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert differences({**RECORD, "recipe": {"n_epoch": deep}}, RECORD)
