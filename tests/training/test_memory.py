"""Memory that training keeps, and gives back where it has grown."""

import sys

import pytest

from bothways.training import memory

MEGABYTE = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc's malloc is told what to keep")


def held() -> int:
    return int(memory.STATUS.read_text().split()[1]) * 4096


def test_kept_memory_goes_back_once_it_has_doubled(tmp_path, monkeypatch):
    status = tmp_path / "statm"
    status.write_text("0 100 0")
    monkeypatch.setattr(memory, "STATUS", status)
    with memory.keeping_freed_memory() as tidy:
        for _ in range(memory.STEPS_TO_SETTLE):
            tidy()
        monkeypatch.undo()
        blocks = [bytearray(MEGABYTE // 8) for _ in range(8 * 64)]
        last = bytearray(MEGABYTE // 8)  # above the others, so that freeing alone does not lower the heap's end
        full = held()
        blocks.clear()
        kept = held()
        tidy()  # the first steps held next to nothing
        given_back = held()
    assert kept > full - 16 * MEGABYTE
    assert given_back < kept - 32 * MEGABYTE
    del last
