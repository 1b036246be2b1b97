"""Files: written whole or not at all, and read without running anything that is in them."""

import errno
import io
import os
import pickle
import signal
import stat
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from warmstart.data import DataBunch
from warmstart.learner import CrossEntropyLoss, Learner, load_learner
from warmstart.learner.files import FileError, WriteError, load_file, save_file, save_text

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


def test_a_text_is_written_in_the_same_way(tmp_path):
    file = save_text("früh\n", tmp_path / "new" / "text.json")
    assert file.read_bytes() == "früh\n".encode() and list(file.parent.iterdir()) == [file]
    with pytest.raises(WriteError, match=r"inner\.json could not be written: .*text\.json is a file, not a folder"):
        save_text("", file / "inner.json")
    assert file.read_text("utf-8") == "früh\n"


# ---- a disk that does not take it


def make_learner(path, width=4):
    samples = TensorDataset(torch.randn(8, width), torch.tensor([0, 1] * 4))
    data = DataBunch.from_dsets(samples, samples, bs=4, device="cpu", seed=7)
    learn = Learner(data, nn.Linear(width, 2), CrossEntropyLoss(), path=path, model_dir=".")
    learn.progress.bar = learn.progress.table = False
    return learn


WRITERS = {
    "save_file": (lambda learn, path: save_file({"x": learn.model.weight.detach()}, path), load_file),
    "learn.save": (lambda learn, path: learn.save(path), load_file),
    "learn.export": (lambda learn, path: learn.export(path), load_file),
}


@pytest.mark.parametrize(("write", "read"), WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("width", [131_000, 200_000, 1_000_000], ids=["a little", "twice", "eight times"])
def test_a_full_disk_is_reported_and_the_old_file_stays(small_disk, write, read, width):
    folder, _ = small_disk
    file = write(make_learner(folder), folder / "file.pth")
    before = file.read_bytes()
    with pytest.raises(
        WriteError, match=r"file\.pth could not be written: No space left on device\. Free some"
    ) as caught:
        write(make_learner(folder, width), file)
    assert caught.value.errno == errno.ENOSPC and "\n" not in str(caught.value)
    assert file.read_bytes() == before and list(folder.iterdir()) == [file]
    read(file)


@pytest.mark.parametrize(("write", "read"), WRITERS.values(), ids=WRITERS)
def test_a_read_only_disk_is_reported_and_the_old_file_stays(small_disk, write, read):
    folder, make_read_only = small_disk
    file = write(make_learner(folder), folder / "file.pth")
    make_read_only()
    with pytest.raises(WriteError, match=r"file\.pth could not be written: Read-only file system\. Choose a path"):
        write(make_learner(folder), file)
    with pytest.raises(WriteError, match=r"other\.pth could not be written: Read-only file system"):
        write(make_learner(folder), folder / "new" / "other.pth")
    assert list(folder.iterdir()) == [file]
    read(file)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_reported(saved):
    saved.parent.chmod(0o555)
    try:
        with pytest.raises(WriteError, match=r"file\.pt could not be written: Permission denied\. Choose a path"):
            save_file({"new": 1}, saved)
    finally:
        saved.parent.chmod(0o755)
    assert load_file(saved)["note"] == "hello"


def test_a_file_where_a_folder_should_be_is_named_and_kept(saved):
    with pytest.raises(WriteError, match=r"new\.pt could not be written: .*file\.pt is a file, not a folder"):
        save_file({"new": 1}, saved / "deeper" / "new.pt")
    assert load_file(saved)["note"] == "hello"


def test_a_folder_of_the_files_name_is_reported_and_kept(tmp_path):
    (tmp_path / "file.pt" / "inner").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"file\.pt could not be written"):
        save_file({"new": 1}, tmp_path / "file.pt")
    assert (tmp_path / "file.pt" / "inner").is_dir() and len(list(tmp_path.iterdir())) == 1


def test_an_error_of_torch_is_not_taken_for_the_disks(saved):
    numbers = torch.zeros(4)
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        save_file({"floats": numbers, "ints": numbers.view(torch.int32)}, saved)
    assert load_file(saved)["note"] == "hello" and list(saved.parent.iterdir()) == [saved]


# ---- a process that is killed


KILLED_WHILE_WRITING = """
import os, signal, sys, torch
from warmstart.learner.files import save_file
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
save_file({"new": torch.ones(10)}, sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process in the way of POSIX")
def test_what_a_killed_process_left_is_removed_by_the_next_write(saved):
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, saved])
    assert killed.returncode == -signal.SIGKILL
    (left,) = saved.parent.glob(".file.pt.*.part")
    assert load_file(saved)["note"] == "hello"

    save_file({"x": 1}, saved.with_name("other.pt"))
    assert left.exists()  # of another name, and may be of any age
    save_file({"x": 1}, saved)
    assert {file.name for file in saved.parent.iterdir()} == {"file.pt", "other.pt"}


def test_what_a_running_process_is_writing_is_left_alone(saved):
    theirs = saved.with_name(f".file.pt.{os.getppid()}.part")
    other = saved.with_name(".file.pt.bak.part")
    theirs.touch(), other.touch()
    save_file({"x": 1}, saved)
    assert theirs.exists() and other.exists()


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be synced")
def test_the_file_is_synced_before_it_is_renamed_and_its_folder_afterwards(saved, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace

    def recorded_sync(file):
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        sync(file)

    def recorded_replace(old, new, **options):
        done.append("rename")
        replace(old, new, **options)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, recorded_replace)
    save_file({"x": 1}, saved)
    assert done == ["file", "rename", "folder"]


# ---- a file that is not what it should be


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


# ---- where torch would read other bytes than those that are checked


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """The archive written anew with right checksums, its entries changed by `change(name, content)`."""
    with zipfile.ZipFile(path) as archive:
        entries = [change(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def check_refused(path, match):
    with pytest.raises(FileError, match=rf"file\.pt is damaged or of another kind .*{match}"):
        load_file(path)


def test_a_compressed_file_is_refused_since_it_could_grow(saved):
    assert load_file(rewritten(saved, lambda *entry: entry))["note"] == "hello"
    check_refused(rewritten(saved, lambda *entry: entry, zipfile.ZIP_DEFLATED), "is compressed")


def test_a_torchscript_program_is_refused(saved):
    """Which torch before 2.6 runs even with weights_only=True (CVE-2025-32434)."""
    check_refused(
        rewritten(saved, lambda name, content: (name.replace("byteorder", "constants.pkl"), content)), "TorchScript"
    )


def test_two_files_in_one_are_refused(saved):
    other = save_file({"note": "other"}, saved.with_name("other.pt"))
    saved.write_bytes(other.read_bytes() + saved.read_bytes())
    check_refused(saved, "something stands before the archive")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name.upper(), b"")  # torch pays no attention to case
    check_refused(saved, "two files of one name")


def test_entries_that_share_bytes_to_seem_larger_are_refused(tmp_path):
    file = save_file({f"x{i}": torch.full((4000,), 1.0 * i) for i in range(3)}, tmp_path / "file.pt")
    content = file.read_bytes()
    begin = content.index(b"PK\x01\x02")  # where the directory is
    sizes = [content.index(f"data/{i}".encode(), begin) - 46 - len("archive/") for i in range(3)]
    changed = bytearray(content)
    for entry in sizes:
        changed[entry + 20 : entry + 28] = (len(content) // 2).to_bytes(4, "little") * 2
    file.write_bytes(changed)
    check_refused(file, "more bytes than it has")


def test_weights_of_another_model_are_refused_whether_saved_or_exported(tmp_path):
    other = make_learner(tmp_path, width=5)
    saved, exported = other.save("other"), other.export("export.pt")
    with pytest.raises(ValueError, match=r"other\.pth holds weights of another architecture.*weight: \(2, 5\) there"):
        make_learner(tmp_path).load(saved)
    with pytest.raises(FileError, match=r"export\.pt .*weights of another architecture.*weight: \(2, 5\) there"):
        load_learner(exported, custom={"Linear": lambda: nn.Linear(4, 2)})
