import pytest
from warmstart.text import read_conll

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

# NN B-NP O
Peter NNP B-NP B-PER
"""


def test_sentences_are_words_and_labels(tmp_path):
    (tmp_path / "train.txt").write_text(CONLL_2003)
    assert read_conll(tmp_path / "train.txt") == [
        (["EU", "rejects", "German"], ["B-ORG", "O", "B-MISC"]),
        (["#", "Peter"], ["O", "B-PER"]),
    ]
    assert read_conll(tmp_path / "train.txt", label_col=1)[0][1] == ["NNP", "VBZ", "JJ"]


def test_columns_may_be_parted_by_tabs_and_lines_end_in_any_way(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"1\tNew York\tB-LOC\r\n\r\n\r\n1\tis\tO\r\n")
    assert read_conll(tmp_path / "a.tsv", word_col=1, delimiter="\t") == [(["New York"], ["B-LOC"]), (["is"], ["O"])]


def test_a_line_without_a_label_is_named(tmp_path):
    (tmp_path / "bad.txt").write_text("EU B-ORG\nrejects\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 2: 'rejects' has no word in column 0 and label in column -1"):
        read_conll(tmp_path / "bad.txt")
    (tmp_path / "bad.txt").write_text("EU B-ORG\n")
    with pytest.raises(ValueError, match=r"line 1.*label in column 3"):
        read_conll(tmp_path / "bad.txt", label_col=3)


def test_another_encoding_is_named_with_its_line_and_byte(tmp_path):
    (tmp_path / "old.txt").write_bytes("Bob B-PER\nKöln B-LOC\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"old\.txt is not utf-8: line 2 holds the byte 0xf6"):
        read_conll(tmp_path / "old.txt")
    assert read_conll(tmp_path / "old.txt", encoding="latin-1") == [(["Bob", "Köln"], ["B-PER", "B-LOC"])]
