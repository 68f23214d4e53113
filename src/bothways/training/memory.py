"""Keeping freed memory for the next step.

The C library gives large blocks back to the system when they are freed and takes them anew, page by page,
a moment later; in training that is every activation and gradient of every step. Blocks of ever other sizes
leave gaps, though, so what is kept grows, and is given back when it has doubled.
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
STEPS_TO_SETTLE = 10  # after which a run has taken about what it needs


@contextmanager
def keeping_freed_memory() -> Iterator[Callable[[], None]]:
    """Within, glibc's malloc keeps what is freed; elsewhere than on glibc nothing changes.

    Yields what is to be called after each step: it gives memory back where twice as much is held as in the
    first steps.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        yield lambda: None
        return
    held: list[int] = []  # in the first steps, bytes

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
