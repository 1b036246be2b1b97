"""Downloads from a server of our own, which breaks off, forgets and lies as real ones do."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from typing import ClassVar

import pytest
from warmstart.data import DownloadError, download_url, untar_data

CONTENT = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files` with ranges; the `faults` are used up one by one, one for each request."""

    files: ClassVar[dict] = {}
    faults: ClassVar[list] = []
    requests: ClassVar[list] = []
    tag = '"one"'

    def do_GET(self):
        content = self.files.get(self.path)
        self.requests.append(self.headers.get("Range"))
        fault = self.faults.pop(0) if self.faults else None
        if content is None or isinstance(fault, int):
            self.send_error(404 if content is None else fault)
            return
        begin = 0
        if (wanted := self.headers.get("Range")) and self.headers.get("If-Range") == self.tag and fault != "no ranges":
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if begin and begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", self.tag)
        self.end_headers()
        self.wfile.write(content[begin : len(content) // 2] if fault == "breaks off" else content[begin:])

    def log_message(self, *args):
        return


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("WARMSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("warmstart.data.downloads.time.sleep", lambda seconds: None)
    handler = type("Handler", (Server,), {"files": {"/a.bin": CONTENT}, "faults": [], "requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_port}"
        yield handler
        running.shutdown()
        thread.join()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def make_tar(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# ---- one file


def test_a_file_is_downloaded_once(server, tmp_path, capsys):
    file = download_url(f"{server.url}/a.bin", tmp_path / "new" / "a.bin", sha256(CONTENT))
    assert file.read_bytes() == CONTENT
    download_url(f"{server.url}/a.bin", file, sha256(CONTENT))
    assert len(server.requests) == 1 and [f.name for f in file.parent.iterdir()] == ["a.bin"]
    assert capsys.readouterr().out == "Downloading a.bin of 1.0 MB\n"  # a line, where nobody watches


def test_a_connection_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    server.faults += ["breaks off"]
    assert download_url(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_later_call_goes_on_too(server, tmp_path):
    server.faults += ["breaks off"]
    with pytest.raises(DownloadError, match=r"512,000 bytes have come and are kept: call again to go on"):
        download_url(f"{server.url}/a.bin", tmp_path / "a.bin", n_tries=1)
    assert not (tmp_path / "a.bin").exists()
    download_url(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert server.requests[-1] == "bytes=512000-" and (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["other content", "no ranges", "other address"])
def test_what_is_not_the_same_any_more_is_loaded_from_the_start(server, tmp_path, change):
    server.faults += ["breaks off"]
    with pytest.raises(DownloadError):
        download_url(f"{server.url}/a.bin", tmp_path / "a.bin", n_tries=1)
    expected, name = CONTENT, "a.bin"
    if change == "other content":
        server.files["/a.bin"] = expected = CONTENT[::-1]
        server.tag = '"two"'
    elif change == "other address":
        server.files["/b.bin"] = expected = CONTENT[::-1]
        name = "b.bin"
    else:
        server.faults += ["no ranges"]
    assert download_url(f"{server.url}/{name}", tmp_path / "a.bin").read_bytes() == expected


def test_a_whole_part_that_was_never_renamed_is_loaded_again(server, tmp_path):
    (tmp_path / ".a.bin.part").write_bytes(CONTENT)
    (tmp_path / ".a.bin.part.from").write_text(f'{server.url}/a.bin\n"one"')
    assert download_url(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server, tmp_path):
    with pytest.raises(ValueError, match="and 0000 was asked for"):
        download_url(f"{server.url}/a.bin", tmp_path / "a.bin", "0000")
    assert not (tmp_path / "a.bin").exists() and not (tmp_path / ".a.bin.part").exists()


def test_a_file_with_another_checksum_is_loaded_anew(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    assert download_url(f"{server.url}/a.bin", tmp_path / "a.bin", sha256(CONTENT)).read_bytes() == CONTENT


def test_errors_of_the_server_are_tried_again_and_a_wrong_address_is_not(server, tmp_path):
    server.faults += [503, 500]
    download_url(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert len(server.requests) == 3
    with pytest.raises(DownloadError, match=r"nothing.zip answered 404 .* is the address right"):
        download_url(f"{server.url}/nothing.zip", tmp_path / "nothing.zip")
    assert len(server.requests) == 4


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DownloadError, match=r"http://127.0.0.1:9/a.bin could not be downloaded: .*filled by hand"):
        download_url("http://127.0.0.1:9/a.bin", tmp_path / "a.bin", n_tries=1)


# ---- an archive


@pytest.mark.parametrize("suffix, mode", [("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz"), ("tar", "w")])
def test_an_archive_becomes_a_folder_of_its_name(server, tmp_path, suffix, mode):
    server.files[f"/pets.{suffix}"] = make_tar({"pets/cats/1.txt": b"miaow", "pets/dogs/1.txt": b"wow"}, mode)
    path = untar_data(f"{server.url}/pets.{suffix}")
    assert path == tmp_path / "home" / "data" / "pets" and (path / "cats" / "1.txt").read_bytes() == b"miaow"
    assert untar_data(f"{server.url}/pets.{suffix}") == path and len(server.requests) == 1


def test_a_zip_without_a_folder_of_its_own_gets_one(server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("1.txt", "one")
        file.writestr("2.txt", "two")
    server.files["/some files.zip"] = buffer.getvalue()
    server.files["/some%20files.zip"] = buffer.getvalue()
    path = untar_data(f"{server.url}/some%20files.zip", tmp_path / "here")
    assert path == tmp_path / "here" / "some files"
    assert sorted(f.name for f in path.iterdir()) == ["1.txt", "2.txt"]


def test_a_damaged_archive_says_so_and_leaves_no_folder(server, tmp_path):
    server.files["/broken.tgz"] = make_tar({"a/b": CONTENT})[:-20]
    with pytest.raises(ValueError, match=r"broken.tgz cannot be unpacked: .* Remove it if it is damaged"):
        untar_data(f"{server.url}/broken.tgz", tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://host/a.tgz", "a.tgz", "http://host", "javascript:1"])
def test_what_is_no_address_of_a_file_is_refused(url):
    with pytest.raises(ValueError, match="is no address of a file"):
        untar_data(url)


def test_what_is_no_archive_is_refused_before_it_is_loaded(server):
    with pytest.raises(ValueError, match=r"a.bin is no archive that can be unpacked: its name ends with"):
        untar_data(f"{server.url}/a.bin")
    assert server.requests == []
