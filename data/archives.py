"""Unpacking archives of strangers: nothing leaves the folder, nothing is half there."""

import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

__all__ = ["ArchiveError", "extract", "stem"]

SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".tar", ".zip")

CHUNK = 1 << 20
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)


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
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        unpack = _unpack_zip if zipfile.is_zipfile(archive) else _unpack_tar
        try:
            unpack(archive, beside, max_bytes)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the archive's
            reason = str(error).partition("\n")[0].rstrip(":.")
            raise ArchiveError(f"{archive} cannot be unpacked: {reason}. Remove it if it is damaged.") from error
        top = list(beside.iterdir())
        os.replace(top[0] if len(top) == 1 and top[0].is_dir() else beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _unpack_zip(archive: Path, folder: Path, max_bytes: int) -> None:
    with zipfile.ZipFile(archive) as file:
        _check_names((info.filename for info in file.infolist()), archive)
        _check_size(sum(info.file_size for info in file.infolist()), max_bytes, archive)
        file.extractall(folder)


def _unpack_tar(archive: Path, folder: Path, max_bytes: int) -> None:
    total, links = 0, set()
    options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # old Pythons have none
    with tarfile.open(archive) as file:
        for member in file:
            total += member.size
            _check_size(total, max_bytes, archive)
            _check_names([member.name], archive)
            _check_kind(member, links, archive)
            file.extract(member, folder, **options)
        rest: Any = file.fileobj
        while chunk := rest.read(CHUNK):  # to where a compressed file has its checksum
            total += len(chunk)
            _check_size(total, max_bytes + CHUNK, archive)


def _check_names(names: Iterable[str], archive: Path) -> None:
    for name in names:
        is_absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\")
        if is_absolute or ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts:
            raise ArchiveError(f"{archive} has a member {name!r}, which would be outside of its folder: not unpacked.")


def _check_kind(member: tarfile.TarInfo, links: set[PurePosixPath], archive: Path) -> None:
    """Refuse devices, and links that lead out of the folder.

    `links` are the symbolic ones so far. Nothing goes through one: what a name says and where it leads would differ.
    """
    name = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir() or member.islnk() or member.issym()):
        raise ArchiveError(f"{archive} has a member {member.name!r}, which is a device or pipe: not unpacked.")
    if links.intersection(name.parents):
        raise ArchiveError(f"{archive} has a member {member.name!r}, whose path goes through a link: not unpacked.")
    if member.islnk() or member.issym():
        target = PurePosixPath(member.linkname)
        place = name.parent / target if member.issym() else target
        if target.is_absolute() or _leads_out(place) or links.intersection([place, *place.parents]):
            raise ArchiveError(
                f"{archive} has a link {member.name!r} to {member.linkname!r}, which is outside of its folder or goes "
                "through another link: not unpacked."
            )
    if member.issym():
        links.add(name)


def _leads_out(path: PurePosixPath) -> bool:
    """Whether a relative path goes above where it starts, at any point."""
    depth = 0
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _check_size(total: int, max_bytes: int, archive: Path) -> None:
    if total > max_bytes:
        raise ArchiveError(
            f"{archive} grows to more than {max_bytes:,} bytes: not unpacked. Raise max_bytes if that is expected."
        )
