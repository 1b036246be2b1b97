"""Unpacking archives of strangers: nothing leaves the folder, nothing is half there."""

import errno
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

__all__ = ["ArchiveError", "extract", "stem"]

SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".tar", ".zip")

CHUNK = 1 << 20
MAX_HEADER = 1 << 20  # bytes of what describes a member of a tar archive, which is read as a whole
MAX_END = 22 + (1 << 16)  # bytes of the end of a zip archive, with a comment
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE)  # not the archive's fault


class ArchiveError(ValueError):
    """An archive that is not unpacked: the message says which member, and why."""


def stem(name: str) -> str:
    """An archive's name without what says its kind. ArchiveError for another kind of file."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    raise ArchiveError(f"{name} is no archive that can be unpacked: its name ends with one of {', '.join(SUFFIXES)}.")


def extract(archive: Path, target: Path, max_bytes: int) -> None:
    """Unpack a tar or zip archive into the new folder `target`; a single folder at its top becomes `target`.

    It is unpacked beside, and renamed when it is whole. Raises `ArchiveError` for a damaged archive, one whose members
    would be outside (absolute paths, `..`, links that lead out), devices, and more than `max_bytes` in all.
    """
    with archive.open("rb") as file:
        unpack = _unpack_zip if file.read(2) == b"PK" else _unpack_tar  # a tar archive may well end with a zip archive
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        try:
            unpack(archive, beside, max_bytes)
        except ArchiveError:
            raise
        except Exception as error:  # a damaged archive fails in many ways
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            reason = str(error).partition("\n")[0].rstrip(":.")[:200] or type(error).__name__
            raise ArchiveError(f"{archive} cannot be unpacked: {reason}. Remove it if it is damaged.") from error
        top = list(beside.iterdir())
        only_folder = len(top) == 1 and top[0].is_dir() and not top[0].is_symlink()
        whole = top[0] if only_folder else beside
        _check_links(whole, archive)
        os.replace(whole, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _unpack_zip(archive: Path, folder: Path, max_bytes: int) -> None:
    with zipfile.ZipFile(archive) as file:
        _check_names((info.filename for info in file.infolist()), archive)
        _check_size(sum(info.file_size for info in file.infolist()), max_bytes, archive)
        _check_directory(file, archive)
        file.extractall(folder)


def _check_directory(file: zipfile.ZipFile, archive: Path) -> None:
    """Raise BadZipFile where the directory does not fit: a damaged byte can hide a file, or make it a folder."""
    entries = file.infolist()
    with archive.open("rb") as content:
        content.seek(-min(MAX_END, archive.stat().st_size), os.SEEK_END)
        end = content.read()
    at = end.rfind(b"PK\x05\x06")
    said = int.from_bytes(end[at + 10 : at + 12], "little")
    if said not in (len(entries) % 2**16, 2**16 - 1):  # which is how many it says where there are more
        raise zipfile.BadZipFile(f"its directory has {len(entries):,} entries and should have {said:,}")
    for entry in entries:
        if entry.is_dir():
            file.open(entry).close()  # compares its name with the one that stands before the content


def _unpack_tar(archive: Path, folder: Path, max_bytes: int) -> None:
    total = 0
    options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # old Pythons have none
    with tarfile.open(archive, tarinfo=_Member) as file:
        for member in file:
            _check_sizes(member)
            total += member.size
            _check_size(total, max_bytes, archive)
            _check_names([member.name], archive)
            _check_kind(member, folder, archive)
            file.extract(member, folder, **options)
            if member.islnk():  # of which tarfile makes a copy where it finds that easier
                total += (folder / member.name).stat().st_size
        _check_end(file)
        rest: Any = file.fileobj
        while chunk := rest.read(CHUNK):  # to where a compressed file has its checksum
            total += len(chunk)
            _check_size(total, max_bytes + CHUNK, archive)


class _Member(tarfile.TarInfo):
    """A member of a tar archive whose description, such as a long name, cannot fill the memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in DESCRIPTIONS and not 0 <= self.size <= MAX_HEADER:
            raise ValueError(f"a header says that it has {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]  # tarfile's sources offer it for overriding


DESCRIPTIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def _check_sizes(member: tarfile.TarInfo) -> None:
    """Raise ValueError for sizes that go back, or a sparse file with more in it than its size."""
    parts: Any = getattr(member, "sparse", None) or []
    if member.size < 0 or any(min(part) < 0 for part in parts) or sum(size for _, size in parts) > member.size:
        raise ValueError(f"the size of {_short(member.name)} is not possible")


def _check_end(file: tarfile.TarFile) -> None:
    """Raise EOFError where the archive breaks off, or a header is damaged, which tarfile takes for the end.

    The true end is two blocks of zeros; some archives have one, with nothing after it.
    """
    stream: Any = file.fileobj
    stream.seek(file.offset)
    end = stream.read(2 * tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise EOFError(f"it breaks off or is damaged after {file.offset:,} bytes")


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:79]}…")


def _check_names(names: Iterable[str], archive: Path) -> None:
    for name in names:
        is_absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\")
        if is_absolute or ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts:
            raise ArchiveError(
                f"{archive} has a member {_short(name)}, which would be outside of its folder: not unpacked."
            )


def _check_kind(member: tarfile.TarInfo, folder: Path, archive: Path) -> None:
    """Refuse devices, and links that lead out of the folder.

    Nothing goes through a symbolic link that is there: what a name says and where it leads would differ.
    """
    name, shown = PurePosixPath(member.name), f"{archive} has a member {_short(member.name)}"
    if not (member.isfile() or member.isdir() or member.islnk() or member.issym()):
        raise ArchiveError(f"{shown}, which is a device or pipe: not unpacked.")
    if _meets_link(folder, name):
        raise ArchiveError(f"{shown}, whose path is or goes through a link: not unpacked.")
    if member.islnk() or member.issym():
        target = PurePosixPath(member.linkname)
        place = name.parent / target if member.issym() else target
        is_outside = target.is_absolute() or "\\" in member.linkname or _leads_out(place)
        if is_outside or _meets_link(folder, place):
            raise ArchiveError(
                f"{shown}, a link to {_short(member.linkname)}, which is outside of its folder or goes through another "
                "link: not unpacked."
            )


def _meets_link(folder: Path, path: PurePosixPath) -> bool:
    """Whether `path` or a folder on the way to it is a symbolic link, as the disk, which may ignore case, has it."""
    whole = folder / path
    return any(step.is_symlink() for step in (whole, *whole.parents) if folder in step.parents)


def _leads_out(path: PurePosixPath) -> bool:
    """Whether a relative path goes above where it starts, at any point."""
    depth = 0
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _check_links(folder: Path, archive: Path) -> None:
    """Refuse links that lead out of `folder` now that all is there: a later link may change where an earlier leads."""
    root = Path(os.path.realpath(folder))
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise ArchiveError(
                    f"{archive} has a link {_short(path.name)} to {_short(os.readlink(path))}, which is outside of its "
                    "folder: not unpacked."
                )


def _check_size(total: int, max_bytes: int, archive: Path) -> None:
    if total > max_bytes:
        raise ArchiveError(
            f"{archive} grows to more than {max_bytes:,} bytes: not unpacked. Raise max_bytes if that is expected."
        )
