"""Archives of people who mean harm."""

import io
import random
import tarfile
import zipfile

import pytest
from warmstart.data.archives import ArchiveError, extract


def member(name, kind=tarfile.REGTYPE, link="", content=b"x"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def tar_of(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for info, content in members:
            file.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
ATTACKS = {
    "absolute": [member("/tmp/escaped")],
    "above": [member("a/../../escaped")],
    "drive": [member("C:\\escaped")],
    "backslash": [member("..\\escaped")],
    "link to an absolute path": [member("link", SYM, "/etc"), member("link/escaped")],
    "link above": [member("a/link", SYM, "../../escaped")],
    "hard link above": [member("link", HARD, "../escaped")],
    "hard link to an absolute path": [member("link", HARD, "/etc/passwd")],
    "through a link": [member("a/up", SYM, ".."), member("a/up/escaped")],
    "link through a link": [member("a/b/up", SYM, ".."), member("esc", SYM, "a/b/up/../.."), member("esc/escaped")],
    "link placed through a link": [member("a/b/up", SYM, ".."), member("a/b/up/esc", SYM, "../../x")],
    "hard link to a link": [member("a/b/up", SYM, "../x"), member("esc", HARD, "a/b/up")],
    "device": [member("dev", tarfile.CHRTYPE)],
    "pipe": [member("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_leaves_the_folder(tmp_path, attack):
    inner = tmp_path / "one" / "two"
    inner.mkdir(parents=True)
    archive = tar_of(tmp_path / "bad.tgz", *ATTACKS[attack])
    with pytest.raises(ArchiveError, match="not unpacked"):
        extract(archive, inner / "target", 1000)
    assert list(inner.iterdir()) == [] and not list(tmp_path.rglob("*escaped*"))


def test_links_that_stay_inside_are_kept(tmp_path):
    archive = tar_of(tmp_path / "good.tgz", member("top/data/1"), member("top/same", SYM, "data/1"),
                     member("top/b/up", SYM, "../data/1"), member("top/hard", HARD, "top/data/1"))  # fmt: skip
    extract(archive, tmp_path / "target", 1000)
    for name in ("same", "b/up", "hard", "data/1"):
        assert (tmp_path / "target" / name).read_bytes() == b"x"


def test_an_archive_that_grows_too_large_is_refused(tmp_path):
    archive = tar_of(tmp_path / "bomb.tgz", member("zeros", content=bytes(10**6)))
    with pytest.raises(ArchiveError, match="grows to more than 999,999 bytes"):
        extract(archive, tmp_path / "target", 999_999)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(10**6))
    with pytest.raises(ArchiveError, match="grows to more than"):
        extract(tmp_path / "bomb.zip", tmp_path / "target", 999_999)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", ["/tmp/escaped", "../escaped", "a/../../escaped", "C:/escaped"])
def test_a_zip_stays_inside_too(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(name, "x")
    with pytest.raises(ArchiveError, match="outside of its folder"):
        extract(tmp_path / "bad.zip", tmp_path / "target", 1000)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "w"])
def test_archives_with_bytes_changed_anywhere_give_an_error_or_what_was_in_them(tmp_path, mode):
    rand = random.Random(0)
    whole = tar_of(
        tmp_path / "whole.tgz", member("top/a", content=bytes(range(256)) * 8), member("top/b"), mode=mode
    ).read_bytes()
    changed = tmp_path / "inner" / "changed.tgz"
    changed.parent.mkdir()
    for number in range(150):
        content = bytearray(whole)
        if number % 3 == 0:
            content = content[: rand.randrange(len(content))]
        else:
            content[rand.randrange(len(content))] ^= 1 << rand.randrange(8)
        changed.write_bytes(content)
        target = changed.parent / f"target{number}"
        try:
            extract(changed, target, 10**6)
        except ArchiveError as error:
            assert "changed.tgz" in str(error) and "\n" not in str(error)
            assert not target.exists()
    outside = {path.name for path in tmp_path.iterdir()}
    assert outside == {"whole.tgz", "inner"}
