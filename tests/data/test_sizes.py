import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warmstart.data import sizes
from warmstart.data.sizes import as_bytes, free_memory, in_words


def test_sizes_are_read_as_people_write_them():
    assert [as_bytes(size) for size in ("20GB", "1.5 mb", "300", 7, "2TB")] == [2 * 10**10, 1500000, 300, 7, 2 * 10**12]


@pytest.mark.parametrize("size", ["", "GB", "many", "-1GB", 0, "0.1", "20 G", "nan", "inf", "1e999"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match="is no size: give a number of bytes, or a text such as '20GB'"):
        as_bytes(size)


@given(st.integers(1, 10**15))
def test_a_size_in_words_is_that_size_to_three_digits(n):
    assert as_bytes(in_words(n).removesuffix(" bytes")) == pytest.approx(n, rel=0.006)
    assert in_words(262_144) == "262 KB" and in_words(999) == "999 bytes"


def test_free_memory_is_that_of_the_container_parted_among_the_ranks(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "CONTAINER", tmp_path)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert 10**6 < free_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "memory.max").write_text("9000\n")
    assert free_memory() == 8000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory() == 2000
