"""300 archives that were damaged or are meant to harm: what comes out stays in its folder, or there is an error."""

import io
import os
import random
import stat
import tarfile
import zipfile

import pytest
from warmstart.data.archives import ArchiveError, extract

MAX_BYTES = 100_000
SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture
def place(tmp_path):
    """A folder two levels down; beside and above it are a file and a folder that must stay as they are."""
    for folder in (tmp_path, tmp_path / "one"):
        (folder / "neighbour").mkdir(parents=True)
        (folder / "neighbour" / "secret").write_text("secret")
        (folder / "escaped").write_text("not yet")
    (tmp_path / "one" / "two").mkdir()
    return tmp_path / "one" / "two"


def check(place, archive, expected=None):
    """Unpack: nothing around is touched; what comes out is `expected`, where that is known, or one paragraph."""
    target, outside = place / "target", surroundings(place)
    try:
        extract(archive, target, MAX_BYTES)
    except ArchiveError as error:
        said = str(error)
        assert str(archive) in said and said.isprintable()
        assert len(said.replace(str(archive), "").replace(str(place), "")) < 600, said
        assert not target.exists()
    else:
        assert target.is_dir() and not target.is_symlink()
        assert leads_nowhere_else(target)
        assert expected is None or tree(target) == expected
        remove(target)
    assert surroundings(place) == outside
    assert list(place.iterdir()) == []


def surroundings(place):
    """What is around the place: names, sizes, and how many names each file has."""
    paths = (path for path in place.parents[1].rglob("*") if place not in path.parents and path != place)
    return {(str(path), path.lstat().st_size, path.lstat().st_nlink, path.is_file() and path.read_bytes())
            for path in paths if path.parent.name != "archives" and path.name != "archives"}  # fmt: skip


def leads_nowhere_else(target):
    """Whether every link is to something inside, and none is shared with a file outside."""
    paths = [os.path.join(folder, name) for folder, folders, files in os.walk(target) for name in folders + files]
    root = os.path.realpath(target)
    return all(os.path.commonpath([os.path.realpath(path), root]) == root for path in paths)


def remove(target):
    for folder, folders, files in os.walk(target, topdown=False):
        for name in files + folders:
            path = os.path.join(folder, name)
            os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    target.rmdir()


def tree(folder):
    """What is in a folder: of a link where it points, of a file what it holds."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


def member(name, kind=tarfile.REGTYPE, link="", content=b"x", **attributes):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def tar_of(members, mode="w", **options):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, **options) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return file.getvalue()


def zip_of(entries, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def written(tmp_path, content, name="mutated.tgz"):
    (tmp_path / "archives").mkdir(exist_ok=True)
    (tmp_path / "archives" / name).write_bytes(content)
    return tmp_path / "archives" / name


# ---- damage


PHOTOS = [("top/a", bytes(range(256)) * 20), ("top/b/c", b"hello" * 300), ("top/b/empty", b""), ("top/ä.txt", b"x")]
MEMBERS = [*(member(name, content=content) for name, content in PHOTOS), member("top/same", SYM, "b/c"),
           member("top/hard", HARD, "top/a")]  # fmt: skip
WHOLE = {
    "tar": lambda: tar_of(MEMBERS),
    "tar.gz": lambda: tar_of(MEMBERS, "w:gz"),
    "tar.bz2": lambda: tar_of(MEMBERS, "w:bz2"),
    "tar.xz": lambda: tar_of(MEMBERS, "w:xz"),
    "zip": lambda: zip_of(PHOTOS),
    "stored zip": lambda: zip_of(PHOTOS, zipfile.ZIP_STORED),
}


def damaged(whole, rand):
    content = bytearray(whole)
    begin, n = rand.randrange(len(content)), rand.choice([1, 64, 512])
    kind = rand.choice(["bit", "bits", "cut", "zeros", "swap", "out", "in"])
    if kind in ("bit", "bits"):
        for _ in range(1 if kind == "bit" else rand.randint(2, 30)):
            content[rand.randrange(len(content))] ^= 1 << rand.randrange(8)
    elif kind == "cut":
        del content[begin:]
    elif kind == "zeros":
        content[begin : begin + n] = bytes(len(content[begin : begin + n]))
    elif kind == "swap":
        a, b = (n * rand.randrange(len(content) // n) for _ in range(2))
        content[a : a + n], content[b : b + n] = content[b : b + n], content[a : a + n]
    elif kind == "out":
        del content[begin : begin + n]
    else:
        content[begin:begin] = rand.randbytes(n)
    return bytes(content)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_damaged_archive_gives_what_was_in_it_or_an_error(tmp_path, place, kind):
    whole, rand = WHOLE[kind](), random.Random(kind)
    extract(written(tmp_path, whole), place / "target", MAX_BYTES)
    expected = tree(place / "target")
    assert expected["a"] == PHOTOS[0][1] and len(expected) >= 5
    remove(place / "target")
    for _ in range(20):
        check(place, written(tmp_path, damaged(whole, rand)), None if kind == "tar" else expected)


@pytest.mark.parametrize("at", range(5))
def test_a_tar_archive_without_checksums_still_tells_that_members_are_missing(tmp_path, place, at):
    whole = WHOLE["tar"]()
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        begin = archive.getmembers()[at].offset
    changed, empty = bytearray(whole), bytearray(whole)
    changed[begin + 10] ^= 1
    empty[begin : begin + 512] = bytes(512)
    for content in (changed, empty, whole[:begin]):
        with pytest.raises(ArchiveError, match=r"mutated\.tgz cannot be unpacked"):
            extract(written(tmp_path, bytes(content)), place / "target", MAX_BYTES)
    assert list(place.iterdir()) == []


def test_a_tar_archive_that_ends_with_a_zip_archive_is_a_tar_archive(tmp_path, place):
    inner = zip_of([("inside", b"y")])
    extract(written(tmp_path, tar_of([member("a"), member("z.zip", content=inner)])), place / "target", MAX_BYTES)
    assert tree(place / "target") == {"a": b"x", "z.zip": inner}


def test_a_zip_archive_whose_directory_hides_a_file_is_refused(tmp_path, place):
    whole = zip_of([("one", b"x"), ("foo", b"x"), ("two", b"x")])
    begin = whole.index(b"PK\x01\x02")
    swallowed, folder = bytearray(whole), bytearray(whole)
    swallowed[begin + 32] = 46 + 3  # the first entry's comment is all of the second
    folder[whole.rindex(b"foo") + 2] ^= 0x40  # "fo/"
    for content in (swallowed, folder):
        with pytest.raises(ArchiveError, match=r"mutated\.zip cannot be unpacked"):
            extract(written(tmp_path, bytes(content), "mutated.zip"), place / "target", MAX_BYTES)
    assert list(place.iterdir()) == []


# ---- names and links that are meant to lead out


BAD_NAMES = [
    "/tmp/escaped", "//escaped", "../escaped", "../../escaped", "a/../../escaped", "./../escaped", "a/./../../escaped",
    "..", ".", "", "/", "...", "..\\escaped", "a\\..\\..\\escaped", "\\escaped", "\\\\host\\share\\escaped",
    "C:escaped", "C:\\escaped", "c:/escaped", "a\0/../../escaped", "../\0escaped", "~/escaped", "a/" * 300 + "b",
    "n" * 300, "ü" * 200, "a\nb", "a\x1b[31m", "\udcff", "a/", "a//b", "neighbour/../../neighbour/secret",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_bad_name_leads_nowhere(tmp_path, place, name):
    as_pax = tar_of([member("ok"), member(name), member("last")], errors="surrogateescape", format=tarfile.PAX_FORMAT)
    check(place, written(tmp_path, as_pax))
    as_gnu = tar_of([member(name, tarfile.DIRTYPE), member(name), member("last")], "w:gz", format=tarfile.GNU_FORMAT,
                    errors="surrogateescape")  # fmt: skip
    check(place, written(tmp_path, as_gnu))
    if name not in ("", "\udcff"):  # which zipfile does not write
        check(place, written(tmp_path, zip_of([("ok", b"x"), (name, b"x")]), "mutated.zip"))


LINKS = {
    "the folder's own target": [member("top/x", SYM, "../y"), member("top/z")],
    "only a link": [member("top", SYM, ".")],
    "a link changed by a later one": [
        member("x/keep"), member("link", SYM, "a/b/../../escaped"), member("a/b", SYM, "../x"), member("link"),
    ],
    "a link changed by a later one, unused": [
        member("x/keep"), member("link", SYM, "a/b/../../neighbour"), member("a/b", SYM, "../x"),
    ],
    "a folder replaced by a link": [member("d", tarfile.DIRTYPE), member("d", SYM, ".."), member("d/escaped")],
    "a full folder replaced by a link": [member("d/x"), member("d", SYM, "x"), member("d/escaped")],
    "a file replaced by a link": [member("d"), member("d", SYM, "../escaped"), member("d")],
    "a link written through": [member("d/x"), member("l", SYM, "d/x"), member("l", content=b"other")],
    "a link in other letters": [
        member("a/b/Up", SYM, ".."), member("esc", SYM, "A/B/uP/../.."), member("ESC/escaped"),
    ],
    "a link in other accents": [member("a/b/é", SYM, ".."), member("esc", SYM, "a/b/é/../..")],
    "a link by a longer way": [member("./a/b/../c", SYM, ".."), member("a/./c/escaped")],
    "a link to itself": [member("l", SYM, "l"), member("l/x")],
    "two links in a circle": [member("a", SYM, "b"), member("b", SYM, "a"), member("b/x")],
    "a link to the top": [member("a/b", SYM, "../.."), member("a/b/escaped")],
    "a link with backslashes": [member("l", SYM, "..\\..\\escaped")],
    "a link with a drive": [member("l", SYM, "C:\\escaped")],
    "a link to nothing": [member("l", SYM, "")],
    "a link with a zero in it": [member("l", SYM, "a\0/../../..")],
    "a link with a long name": [member("l", SYM, "a/" * 3000)],
    "a hard link above": [member("l", HARD, "../neighbour/secret"), member("l")],
    "a hard link to an absolute path": [member("l", HARD, "/etc/passwd")],
    "a hard link before its file": [member("l", HARD, "later"), member("later")],
    "a hard link to a folder": [member("d", tarfile.DIRTYPE), member("l", HARD, "d")],
    "a hard link to itself": [member("l", HARD, "l")],
    "a hard link by way of a link": [member("a/b", SYM, ".."), member("l", HARD, "a/b/../../neighbour/secret")],
    "a device": [member("sda", tarfile.BLKTYPE, devmajor=8, devminor=0)],
    "a character device": [member("mem", tarfile.CHRTYPE, devmajor=1, devminor=1)],
    "a pipe": [member("pipe", tarfile.FIFOTYPE)],
    "an unknown kind": [member("odd", b"Z", content=b"")],
    "a file that runs as its owner": [member("suid", mode=0o6777)],
    "a time long ago": [member("old", mtime=-(2**62))],
    "a time that is no number": [member("old", pax_headers={"mtime": "nan"})],
}  # fmt: skip


@pytest.mark.parametrize("members", LINKS.values(), ids=LINKS)
def test_a_bad_link_leads_nowhere(tmp_path, place, members):
    check(place, written(tmp_path, tar_of(members)))


def test_members_in_any_order_lead_nowhere(tmp_path, place):
    rand = random.Random(0)
    names = [
        "a",
        "a/b",
        "a/b/c",
        "l",
        "l/x",
        "A/b",
        "./a",
        "a/./b",
        "a//b",
        "x/../a",
        "escaped",
        "neighbour",
        "L",
        "a/l",
    ]
    links = [
        "..",
        "../..",
        "../../escaped",
        "../escaped",
        "a",
        "a/b",
        "l",
        "a/../..",
        ".",
        "a/b/../..",
        "l/../x",
        "/tmp",
    ]
    kinds = [tarfile.REGTYPE, tarfile.DIRTYPE, SYM, SYM, HARD]
    for _ in range(60):
        members = [
            member(rand.choice(names), rand.choice(kinds), rand.choice(links)) for _ in range(rand.randint(2, 6))
        ]
        check(place, written(tmp_path, tar_of(members)))


def test_a_link_in_a_zip_archive_is_a_file_with_its_text(tmp_path, place):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "../../neighbour")
        archive.writestr("link2", "x")
    check(place, written(tmp_path, file.getvalue(), "mutated.zip"), {"link": b"../../neighbour", "link2": b"x"})


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names", [("a", "a/b"), ("a/b", "a"), ("a/", "a"), ("a", "a/"), ("a", "a"), ("A", "a")], ids=str
)
def test_names_of_a_zip_archive_that_exclude_each_other_lead_nowhere(tmp_path, place, names):
    check(place, written(tmp_path, zip_of([(name, b"x") for name in names]), "mutated.zip"))


# ---- archives that grow


def with_size(name, size, content=b""):
    """A member whose header says another size than it has."""
    return tar_header(member(name, size=size)[0]) + content


def tar_header(info):
    return info.tobuf(tarfile.GNU_FORMAT)


def zip_with_size(said, compression=zipfile.ZIP_DEFLATED):
    """A million zeros, of which the archive's directory says that they are `said` bytes."""
    content = bytearray(zip_of([("zeros", bytes(10**6))], compression))
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = said.to_bytes(4, "little")
    return bytes(content)


def sparse(size, parts):
    """A GNU sparse file of `size` bytes with data at `parts`, and half a million zeros after its header."""
    header = bytearray(with_size("sparse", 512))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    for i, (offset, n) in enumerate(parts):
        header[386 + 24 * i : 410 + 24 * i] = b"%011o\0%011o\0" % (offset, n)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    return bytes(header) + bytes(500_000)


def with_long_header(kind, size):
    """A description, such as a long name, of `size` bytes."""
    return tar_header(member("././@LongLink", kind, size=size)[0]) + b"x" * min(max(size, 0), 3 << 20) + bytes(1024)


GROWING = {
    "a large file": lambda: tar_of([member("zeros", content=bytes(10**6))], "w:gz"),
    "many files": lambda: tar_of([member(f"f{i}", content=bytes(1000)) for i in range(101)], "w:gz"),
    "a size that is not there": lambda: with_size("f", 10**15),
    "a size below zero": lambda: with_size("f", -512) + WHOLE["tar"](),
    "a size below zero in an extension": lambda: tar_of([member("f", pax_headers={"size": "-1024"}), member("g")]),
    "a size below zero after a large one": lambda: with_size("f", 90_000, bytes(90_112)) + with_size("g", -90_000),
    "copies by hard links": lambda: tar_of(
        [member("f", content=bytes(50_000)), *(member(f"l{i}", HARD, "nowhere/../f") for i in range(50))], "w:gz"
    ),
    "copies by hard links to a folder's name": lambda: tar_of(
        [member("f", content=bytes(50_000)), *(member(f"l{i}", HARD, "f/") for i in range(50))], "w:gz"
    ),
    "a sparse file": lambda: sparse(10**9, [(10**9 - 1, 1)]),
    "a sparse file with more in it than its size": lambda: sparse(10, [(0, 400_000)]),
    "a sparse file that goes back": lambda: sparse(10, [(2**32, 10), (0, 10)]),
    "a long name": lambda: with_long_header(tarfile.GNUTYPE_LONGNAME, 3 << 20),
    "a long name below zero": lambda: with_long_header(tarfile.GNUTYPE_LONGNAME, -512),
    "a long extension": lambda: with_long_header(tarfile.XHDTYPE, 10**12),
    "a long extension for all": lambda: with_long_header(tarfile.XGLTYPE, 3 << 20),
    "a thousand extensions": lambda: 2000 * tar_header(member("x", tarfile.XHDTYPE)[0]),
    "zeros after the end": lambda: (
        tar_of([member("f")], "w:gz") + tar_of([member("z", content=bytes(5 << 20))], "w:gz")
    ),
    "a large file in a zip": lambda: zip_of([("zeros", bytes(10**6))]),
    "a zip that says less": lambda: zip_with_size(1000),
    "a zip that says less, stored": lambda: zip_with_size(1000, zipfile.ZIP_STORED),
    "a zip that says nothing": lambda: zip_with_size(0),
    "a zip that says more": lambda: zip_with_size(2**32 - 2),
    "a bz2 zip that says less": lambda: zip_with_size(1000, zipfile.ZIP_BZIP2),
    "an xz zip that says less": lambda: zip_with_size(1000, zipfile.ZIP_LZMA),
}


@pytest.mark.parametrize("make", GROWING.values(), ids=GROWING)
def test_an_archive_that_grows_is_refused(tmp_path, place, make):
    archive = written(tmp_path, make())
    with pytest.raises(ArchiveError, match=r"mutated\.tgz"):
        extract(archive, place / "target", MAX_BYTES)
    check(place, archive)


@pytest.mark.parametrize("name", ["a sparse file with more in it than its size", "copies by hard links"])
def test_what_is_refused_has_written_little_before(tmp_path, place, monkeypatch, name):
    archive, sizes, copy = written(tmp_path, GROWING[name]()), [], tarfile.copyfileobj

    def counted(source, target, length, *arguments, **options):
        sizes.append(length)
        copy(source, target, length, *arguments, **options)

    monkeypatch.setattr(tarfile, "copyfileobj", counted)
    with pytest.raises(ArchiveError):
        extract(archive, place / "target", MAX_BYTES)
    assert sum(sizes) <= 2 * MAX_BYTES
