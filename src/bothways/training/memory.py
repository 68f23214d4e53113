"""Keep freed memory for the next training step.

The C library returns large freed blocks to the system and requests them again, page by page, a moment later; in
training this happens for every activation and gradient of every step. Blocks of varying sizes leave gaps, so the
retained memory grows; it is released when it has doubled.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}
STATUS = Path("/proc/self/statm")
STEPS_TO_SETTLE = 10  # steps until memory use is stable


@contextmanager
def keeping_freed_memory() -> Iterator[Callable[[], None]]:
    """Make glibc's malloc keep freed memory while the block runs; other C libraries are unaffected.

    Yields a function to call after each step. It releases memory if the process holds more than twice as much as in
    the first steps.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        yield lambda: None
        return
    held: list[int] = []  # bytes, in the first steps

    def tidy() -> None:
        now = int(STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if len(held) < STEPS_TO_SETTLE:
            held.append(now)
        elif now > 2 * max(held):
            library.malloc_trim(0)

    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(_MMAP_MAX, 0)
    try:
        yield tidy
    finally:
        for option, value in _DEFAULTS.items():
            library.mallopt(option, value)
        library.malloc_trim(0)
