from pathlib import Path

from warmstart.data.portable import describe, restore
from warmstart.text.files import FolderSplitter, get_text_files


def test_text_files_are_listed_in_order(tmp_path):
    for name in ("b/2.txt", "a/1.TXT", "a/3.csv", ".hidden/4.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a text")
    assert get_text_files(tmp_path) == [tmp_path / "a/1.TXT", tmp_path / "b/2.txt"]
    assert get_text_files(tmp_path, folders="b") == [tmp_path / "b/2.txt"]


def test_files_at_any_depth_are_split_by_their_top_folder():
    root = Path("data")
    items = [root / name for name in ("train/1.txt", "train/pos/2.txt", "valid/neg/x/3.txt", "other/4.txt")]
    splitter = FolderSplitter(root)
    assert splitter(items) == ([0, 1], [2])
    assert restore(describe(splitter)) == splitter
