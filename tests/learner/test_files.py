"""Files: written whole or not at all, and read without running anything that is in them."""

import io
import pickle
import zipfile

import pytest
import torch
from torch import nn
from warmstart.learner.files import FileError, load_file, save_file

CONTENT = {"weights": {"a": torch.arange(1000.0), "b": torch.tensor(True)}, "note": "hello", "n": 3, "none": None}


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.fixture
def saved(tmp_path):
    return save_file(CONTENT, tmp_path / "file.pt")


def test_tensors_and_plain_values_come_back(saved):
    found = load_file(saved)
    assert found["weights"]["a"].equal(torch.arange(1000.0)) and found["weights"]["b"].item() is True
    assert (found["note"], found["n"], found["none"]) == ("hello", 3, None)


def test_missing_folders_are_made(tmp_path):
    assert load_file(save_file({"x": 1}, str(tmp_path / "new" / "folders" / "file.pt"))) == {"x": 1}


def test_a_crash_while_writing_leaves_the_old_file_and_no_other(saved, monkeypatch):
    def half_of_it(content, file):
        file.write(b"PK half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half_of_it)
    with pytest.raises(OSError, match="No space left"):
        save_file({"new": 1}, saved)
    assert load_file(saved)["note"] == "hello"
    assert list(saved.parent.iterdir()) == [saved]


def test_a_missing_file_is_named_with_its_neighbours(saved):
    with pytest.raises(FileNotFoundError, match=r"fill\.pt does not exist; its folder has \['file\.pt'\]"):
        load_file(saved.with_name("fill.pt"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_file(saved.parent / "nowhere" / "file.pt")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_file(tmp_path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_reported(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FileError, match=r"file\.pt is not a file that torch\.save wrote, or its end is missing"):
        load_file(saved)


def test_a_single_changed_bit_is_reported(saved):
    changed = bytearray(saved.read_bytes())
    changed[len(changed) // 2] ^= 1
    saved.write_bytes(changed)
    torch.load(saved, weights_only=True)  # torch itself does not notice
    with pytest.raises(FileError, match=r"damaged.*checksum of .*data/0"):
        load_file(saved)


def test_an_end_that_names_another_disk_is_reported(saved):
    changed = bytearray(saved.read_bytes())
    changed[changed.rindex(b"PK\x06\x07") + 4] = 1  # the number of a disk, in times of floppy disks
    saved.write_bytes(changed)
    with pytest.raises(FileError, match=r"file\.pt is"):
        load_file(saved)


def test_an_archive_of_another_kind_is_reported(tmp_path):
    path = tmp_path / "slides.pptx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("slide.xml", "<slide/>")
    with pytest.raises(FileError, match=r"slides\.pptx is damaged or of another kind"):
        load_file(path)


def test_a_whole_model_is_refused_with_advice(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(FileError, match=r"asks for torch\.nn\.modules\.linear\.Linear.*save the state_dict\(\)"):
        load_file(tmp_path / "model.pt")


def plain_pickle(bomb):
    return pickle.dumps(bomb)


def torch_archive(bomb):
    file = io.BytesIO()
    torch.save({"weights": {"a": torch.ones(2)}, "bomb": bomb}, file)
    return file.getvalue()


def torch_before_1_6(bomb):
    file = io.BytesIO()
    torch.save(bomb, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def pickle_that_ends_like_an_archive(bomb):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as empty:
        empty.writestr("x", "")
    return pickle.dumps(bomb, protocol=2) + archive.getvalue()


@pytest.mark.parametrize(
    "disguise",
    [plain_pickle, torch_archive, torch_before_1_6, pickle_that_ends_like_an_archive],
    ids=lambda f: f.__name__,
)
def test_a_pickle_bomb_does_not_go_off(tmp_path, disguise):
    marker, path = tmp_path / "marker", tmp_path / "export.pt"
    path.write_bytes(disguise(Bomb(marker)))
    with pytest.raises(FileError):
        load_file(path)
    assert not marker.exists()
    pickle.loads(plain_pickle(Bomb(marker)))  # the bomb is a real one
    assert marker.exists()


def test_the_error_for_code_names_it_and_says_that_it_did_not_run(tmp_path):
    (tmp_path / "x.pt").write_bytes(torch_archive(Bomb(tmp_path / "marker")))
    with pytest.raises(FileError, match=r"it asks for .*exec\. It was refused, and nothing in it was run"):
        load_file(tmp_path / "x.pt")
