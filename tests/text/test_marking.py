import pytest
from warmstart.text.marking import Marking


class OfATransformer:
    vocab = ("[PAD]", "[CLS]", "a")

    def __call__(self, text):
        return ["[CLS]", *text.split()]


def test_a_text_begins_with_xxbos():
    assert Marking(str.split)(("the text",)) == ["xxbos", "the", "text"]


def test_fields_are_marked_by_their_number():
    marked = Marking(str.split)(("a title", "the text"))
    assert " ".join(marked) == "xxbos xxfld 1 a title xxfld 2 the text"


def test_a_batch_is_the_same_as_one_by_one():
    texts = [("one",), ("a", "b"), ("two words",)]
    marking = Marking(str.split)
    assert marking.batch(texts) == [marking(fields) for fields in texts]


def test_padding_that_is_written_in_a_text_is_left_out():
    assert Marking(str.split)(("an xxpad here xxpad",)) == ["xxbos", "an", "here"]


def test_a_tokenizer_with_other_special_tokens_keeps_its_own():
    assert Marking(OfATransformer())(("a title", "the text")) == ["[CLS]", "a", "title", "the", "text"]


def test_it_knows_how_many_tokens_stand_around_every_text():
    class WithMarks(OfATransformer):
        around = (1, 2)

    class WithMarksAndOurs(WithMarks):
        vocab = ("xxbos",)

    tokenizers = (str.split, OfATransformer(), WithMarks(), WithMarksAndOurs())
    assert [Marking(tokenizer).around for tokenizer in tokenizers] == [(1, 0), (0, 0), (1, 2), (2, 2)]


def test_a_tokenizer_that_gives_no_list_of_texts_is_named():
    with pytest.raises(TypeError, match="the tokenizer gave 'abc' for 'ABC': it returns a list of texts"):
        Marking(str.lower)(("ABC",))
