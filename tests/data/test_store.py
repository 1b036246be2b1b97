"""Bytes that processes share. Damage of every kind may lose an item, and must never give another one's bytes."""

import errno
import hashlib
import multiprocessing
import os
import pickle
import random
import signal
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warmstart.data import store as store_module
from warmstart.data.store import MANY, RECORD, Store, StoreFull

BIG = 2**40


def key(i: int) -> bytes:
    return hashlib.blake2b(str(i).encode(), digest_size=16).digest()


def content(i: int, n: int = 0) -> bytes:
    """Bytes that belong to that key alone."""
    return random.Random(i).randbytes(n or 1000 + 37 * (i % 50))


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return Store.in_memory(BIG) if request.param == "memory" else Store.on_disk(tmp_path / "a" / "b", BIG)


@pytest.fixture
def on_disk(tmp_path):
    return Store.on_disk(tmp_path / "store", BIG)


def another(store: Store) -> Store:
    """As another process has it."""
    return Store(os.dup(store.index), os.dup(store.data), store.limit, store.folder)


def fill(store, items):
    for i in items:
        store.put(key(i), content(i))


def right(store, items) -> int:
    """How many are found; none may be wrong."""
    found = {i: store.get(key(i)) for i in items}
    assert all(value == content(i) for i, value in found.items() if value is not None)
    return sum(value is not None for value in found.values())


# ---- keys and bytes


def test_what_is_put_is_found(store):
    assert store.get(key(0)) is None and len(store) == 0
    fill(store, range(20))
    assert right(store, range(30)) == 20 and len(store) == 20
    assert store.n_bytes == sum(len(content(i)) for i in range(20))


def test_a_key_is_put_once(store):
    fill(store, [1, 1, 2, 1])
    assert len(store) == 2


def test_what_is_found_may_be_changed(store):
    fill(store, [1])
    store.get(key(1))[:] = b"\0" * len(content(1))
    assert right(store, [1]) == 1


def test_empty_bytes_are_found_as_well(store):
    store.put(key(1), b"")
    assert store.get(key(1)) == b""


def test_thousands_of_records_are_found_sorted_or_not(store):
    n = 3 * MANY
    for i in range(n):
        store.put(key(i), i.to_bytes(4, "little"))
    for reader in (store, another(store)):
        assert all(reader.get(key(i)) == i.to_bytes(4, "little") for i in range(0, n, 7))
        assert reader.get(key(n)) is None
    assert len(store._recent) <= n / 2


def test_two_keys_with_the_same_first_half_are_kept_apart(store):
    first, second = b"12345678" + b"a" * 8, b"12345678" + b"b" * 8
    store.put(first, b"first")
    assert store.get(second) is None
    store.put(second, b"second")
    assert store.get(second) == b"second" and store.get(first) in (None, b"first")


# ---- several processes


def in_process(method, function, *args):
    process = multiprocessing.get_context(method).Process(target=function, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def put_more(store):
    assert right(store, range(10)) == 10
    fill(store, range(5, 15))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_what_one_of_them_puts(store, method):
    if method == "spawn" and store.folder is not None:
        pytest.skip("is pickled as for any other process: see the next test")
    fill(store, range(10))
    in_process(method, put_more, store)
    assert right(store, range(20)) == 15 and len(store) == 15


def test_a_pickled_store_on_disk_is_the_same_and_one_in_memory_begins_anew(store):
    fill(store, range(3))
    again = pickle.loads(pickle.dumps(store))
    assert right(again, range(3)) == (0 if store.folder is None else 3) and again.limit == store.limit
    fill(again, range(3, 5))
    assert right(again, range(3, 5)) == 2


def put_many(store, seed, n):
    items = list(range(n))
    random.Random(seed).shuffle(items)
    fill(store, items)
    assert right(store, items) == n


def test_writers_at_once_put_each_key_once(store):
    processes = [multiprocessing.get_context("fork").Process(target=put_many, args=(store, i, 60)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert right(store, range(60)) == 60 == len(store)


def put_for_ever(store, begin):
    i = begin
    while True:
        store.put(key(i), content(i, 400_000))
        i += 1


def test_a_writer_may_be_killed_at_any_moment(store):
    """What it has put is there, at most the last one is lost, and others go on."""
    begin = 0
    for round_number in range(20):
        process = multiprocessing.get_context("fork").Process(target=put_for_ever, args=(store, begin))
        process.start()
        end = time.monotonic() + 20
        while len(store) < begin + 2 and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(random.Random(round_number).random() * 0.004)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        n = len(store)
        assert n >= begin + 2
        assert all(store.get(key(i)) == content(i, 400_000) for i in range(max(begin - 2, 0), n))
        begin = n
        if store.n_bytes > 10**8:
            os.ftruncate(store.index, 0), os.ftruncate(store.data, 0)
            begin = 0
    fill(store, range(10**6, 10**6 + 5))
    assert right(store, range(10**6, 10**6 + 5)) == 5


def wait_with_memory(names):
    store = Store.in_memory(BIG)
    fill(store, [1])
    names.put(os.readlink(f"/proc/self/fd/{store.data}"))
    time.sleep(60)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")
def test_memory_is_given_back_when_its_processes_are_killed():
    """The file has no name, so that the system removes it."""
    context = multiprocessing.get_context("fork")
    names = context.Queue()
    process = context.Process(target=wait_with_memory, args=(names,))
    process.start()
    name = names.get(timeout=60)
    process.kill()
    process.join()
    assert "(deleted)" in name and not os.path.exists(name.removesuffix(" (deleted)"))


def hold(store, ready):
    with store_module._locked(store.index):
        ready.set()
        time.sleep(60)


def test_a_stopped_writer_does_not_stop_the_others(store, monkeypatch):
    monkeypatch.setattr(store_module, "PATIENCE", 0.05)
    ready = multiprocessing.get_context("fork").Event()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(store, ready))
    process.start()
    assert ready.wait(20)
    store.put(key(1), content(1))
    assert len(store) == 0
    process.kill()
    process.join()
    store.put(key(1), content(1))
    assert right(store, [1]) == 1


# ---- damage


@given(st.data())
@settings(max_examples=25)
def test_flipped_bits_lose_items_and_falsify_none(data):
    store = Store.in_memory(BIG)
    fill(store, range(8))
    for file in (store.index, store.data):
        size = os.fstat(file).st_size
        for place in data.draw(st.lists(st.integers(0, size - 1), max_size=3)):
            byte = os.pread(file, 1, place)[0] ^ (1 << data.draw(st.integers(0, 7)))
            os.pwrite(file, bytes([byte]), place)
    found = right(store, range(8))
    assert found >= 2
    fill(store, range(8))
    assert right(store, range(8)) == 8 and right(another(store), range(8)) == 8


@pytest.mark.parametrize("name", ["index", "data"])
@pytest.mark.parametrize("share", [0, 0.3, 0.77])
def test_files_that_were_cut_off_lose_items_and_take_new_ones(on_disk, name, share):
    fill(on_disk, range(10))
    other = Store.on_disk(on_disk.folder, BIG)
    assert right(other, range(10)) == 10
    file = getattr(on_disk, name)
    os.ftruncate(file, int(os.fstat(file).st_size * share))
    for store in (on_disk, other, Store.on_disk(on_disk.folder, BIG)):
        assert right(store, range(10)) <= 9
    for store in (other, on_disk):
        fill(store, range(10))
        assert right(store, range(10)) == 10 == right(other, range(10))


def test_files_of_another_kind_are_no_records(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "index").write_bytes(random.Random(0).randbytes(1000))
    (folder / "data").write_bytes(b"something else")
    store = Store.on_disk(folder, BIG)
    fill(store, range(5))
    assert right(store, range(5)) == 5 and right(Store.on_disk(folder, BIG), range(5)) == 5


def test_a_record_that_asks_for_more_than_there_is_takes_no_memory(on_disk):
    record = RECORD.pack(key(1), 0, 2**62, 0, 0)[:-4]
    os.pwrite(on_disk.index, record + zlib.crc32(record).to_bytes(4, "little"), 0)
    assert on_disk.get(key(1)) is None
    fill(on_disk, [1])
    assert right(on_disk, [1]) == 1


# ---- no room


def test_the_limit_holds_and_what_is_there_stays(store):
    store.limit = 5000
    with pytest.raises(StoreFull, match="its 5 KB are used up"):
        fill(store, range(10))
    n = len(store)
    assert 0 < n < 10 and store.n_bytes <= 5000 and right(store, range(10)) == n


@pytest.mark.parametrize("in_last", [False, True])
def test_a_full_disk_is_said_and_what_is_there_stays(small_disk, monkeypatch, in_last):
    monkeypatch.setattr(store_module, "_is_nearly_full", lambda file, n_bytes: False)
    folder, _ = small_disk
    store = Store.on_disk(folder / "store", BIG)
    with pytest.raises(StoreFull, match="No space left on device"):
        for i in range(100):
            store.put(key(i), content(i, 99_991 if in_last else 300_000))
    n = len(store)
    assert n in (3, 9, 10)
    size = 99_991 if in_last else 300_000
    assert all(store.get(key(i)) == content(i, size) for i in range(n))
    (folder / "other").write_bytes(b"1" * 8_000)
    (folder / "other").unlink()
    assert Store.on_disk(store.folder, BIG).get(key(0)) == content(0, size)


def test_a_disk_is_not_filled_to_the_last_byte(small_disk):
    folder, _ = small_disk
    store = Store.on_disk(folder / "store", BIG)
    with pytest.raises(StoreFull, match="the disk is nearly full"):
        for i in range(100):
            store.put(key(i), content(i, 20_000))
    assert os.statvfs(folder).f_bavail > 0 and right(store, []) == 0 and len(store) > 40


def test_a_disk_that_became_read_only_is_read(small_disk):
    folder, make_read_only = small_disk
    fill(Store.on_disk(folder / "store", BIG), range(3))
    make_read_only()
    store = Store.on_disk(folder / "store", BIG)
    assert right(store, range(3)) == 3
    with pytest.raises(StoreFull, match="it can only be read"):
        fill(store, [4])
    with pytest.raises(OSError) as caught:
        Store.on_disk(folder / "other", BIG)
    assert caught.value.errno in (errno.EROFS, errno.ENOENT)
