"""Data from the network: downloads that resume and are verified, archives that stay inside their folder.

    path = untar_data("https://example.org/photos.tgz", sha256="9f86d08…")

That is a folder; the first time it is downloaded and unpacked, from then on it is there at once.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from .archives import extract, stem
from .home import warmstart_home

__all__ = ["DownloadError", "download_url", "untar_data"]

CHUNK = 1 << 20
RANGE_PAST_END = 416  # an answer of HTTP
REFRESH = 0.5  # seconds between two looks at the progress


class DownloadError(OSError):
    """A download that failed; what has come is kept, and the next call goes on from there."""


def untar_data(url: str, dest: str | Path | None = None, sha256: str | None = None,
               max_bytes: int = 50 << 30) -> Path:  # fmt: skip
    """The folder of an archive (tar in any compression, or zip) from the network; downloaded and unpacked once.

    It is `dest/<name of the archive>`, by default in `WARMSTART_HOME/data`; a single folder at the top of the archive
    becomes it. `sha256` is what the archive's checksum has to be. Raises `DownloadError`, `ArchiveError` for an archive
    that would leave its folder, holds devices, or grows beyond `max_bytes`, ValueError for a wrong checksum.
    """
    name = _file_name(url)
    folder = Path(dest) if dest is not None else warmstart_home() / "data"
    target = folder / stem(name)
    if not target.exists():
        archive = download_url(url, warmstart_home() / "archive" / name, sha256)
        extract(archive, target, max_bytes)
    return target


def download_url(url: str, file: str | Path, sha256: str | None = None, timeout: float = 20.0,
                 n_tries: int = 3) -> Path:  # fmt: skip
    """Download `url` to `file`, unless it is there with the right checksum; returns the file.

    A download that broke off goes on where it stopped, if the server can do that and the content is still the same. It
    has a temporary name until it is whole and `sha256` fits. Raises `DownloadError` after `n_tries`, ValueError for a
    checksum that does not fit, which removes the download.
    """
    file = Path(file)
    if file.exists() and (sha256 is None or _sha256(file) == sha256.lower()):
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    for attempt in range(n_tries):
        try:
            _download(url, part, timeout)
            break
        except (URLError, TimeoutError, ConnectionError, EOFError) as error:
            code = error.code if isinstance(error, HTTPError) else None
            if code == RANGE_PAST_END:  # what there is, is more than the whole
                part.unlink(missing_ok=True)
            elif attempt + 1 == n_tries or (code is not None and code < 500):
                raise DownloadError(_failure(url, error, part)) from error
            else:
                time.sleep(0.2 * 2**attempt)
    _check_sum(part, sha256, url)
    part.replace(file)
    _note_of(part).unlink(missing_ok=True)
    return file


def _file_name(url: str) -> str:
    name = Path(unquote(urlsplit(url).path)).name
    if urlsplit(url).scheme not in ("http", "https", "file") or not name:
        raise ValueError(
            f"{url!r} is no address of a file: it begins with http://, https:// or file://, and has a name."
        )
    return name


def _download(url: str, part: Path, timeout: float) -> None:
    """Bring `part` to its end. EOFError where the connection ended before the content did."""
    with _opened(url, part, timeout) as (response, begin, total):
        with part.open("ab" if begin else "wb") as file:
            for chunk in _chunks(response, begin, total, part.name.removeprefix(".").removesuffix(".part")):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            done = file.tell()
        if total is not None and done < total:
            raise EOFError(f"the connection ended after {done:,} of {total:,} bytes")


@contextmanager
def _opened(url: str, part: Path, timeout: float) -> Iterator[tuple]:
    """The response, where in the file it begins, and how long that will be in the end (None: unknown)."""
    begin, validator = part.stat().st_size if part.exists() else 0, _read_note(part, url)
    headers = {"User-Agent": "warmstart"}
    if begin and validator:
        headers |= {"Range": f"bytes={begin}-", "If-Range": validator}
    with urlopen(Request(url, headers=headers), timeout=timeout) as response:  # the scheme is checked
        begin = begin if getattr(response, "status", None) == 206 else 0
        length = response.headers.get("Content-Length")
        _note_of(part).write_text(f"{url}\n{_validator(response.headers)}", encoding="utf-8")
        yield response, begin, None if length is None else begin + int(length)


def _validator(headers: Any) -> str:
    """What tells whether content is still the same: a strong ETag, or when it was changed; "" where neither is said."""
    tag = headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.from")


def _read_note(part: Path, url: str) -> str:
    """The validator of what has come so far, if it came from this address."""
    lines = _note_of(part).read_text(encoding="utf-8").split("\n") if _note_of(part).exists() else []
    return lines[1] if len(lines) == 2 and lines[0] == url else ""


def _chunks(response: Any, begin: int, total: int | None, name: str) -> Iterator[bytes]:
    """The content piece by piece; a terminal sees how far it is."""
    done, next_look, moving = begin, 0.0, sys.stdout.isatty()
    size = "" if total is None else f" of {total / 1e6:,.1f} MB"
    print(f"Downloading {name}{size}", end="" if moving else "\n", flush=True)
    while chunk := response.read(CHUNK):
        done += len(chunk)
        yield chunk
        if moving and time.monotonic() >= next_look:
            next_look = time.monotonic() + REFRESH
            print(f"\rDownloading {name}: {done / 1e6:,.1f} MB{size}", end="", flush=True)
    if moving:
        print(f"\rDownloading {name}: {done / 1e6:,.1f} MB{size}")


def _check_sum(part: Path, sha256: str | None, url: str) -> None:
    if sha256 is not None and (found := _sha256(part)) != sha256.lower():
        part.unlink()
        raise ValueError(
            f"{url} gave a file with the SHA-256 {found}, and {sha256} was asked for. It has been removed: has it "
            "changed there, or been damaged or replaced on the way?"
        )


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _failure(url: str, error: Exception, part: Path) -> str:
    if isinstance(error, HTTPError):
        return f"{url} answered {error.code} {error.reason}: is the address right, and may you read it?"
    kept = f" {part.stat().st_size:,} bytes have come and are kept: call again to go on." if part.exists() else ""
    reason = getattr(error, "reason", None) or error
    return f"{url} could not be downloaded: {reason}.{kept} The folder may also be filled by hand: {part.parent}."
