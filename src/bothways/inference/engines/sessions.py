"""What one process has open of an engine, lent to one thread at a time."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from bothways.errors import CheckpointError


class Sessions:
    """Places for `places` threads at a time in at most `most` sessions, each opened when it is first needed.

    A place belongs to a thread: one that was interrupted and did not give its place back gets the same again.
    In a forked process the sessions are never released: that would wait for ever for threads that are not there.
    """

    def __init__(self, make: Callable[[], Any], places: int, most: int) -> None:
        self.process = os.getpid()
        self._make = make
        self._made: list[Any] = [None] * min(places, most)
        self._opening = threading.Lock()
        self._users: list[int | None] = [None] * places
        self._changed = threading.Condition()
        weakref.finalize(self, _keep_after_fork, self._made, self.process)  # also at the interpreter's end

    def __getitem__(self, place: int) -> Any:
        return self._made[place % len(self._made)]

    def take(self) -> int:
        """A place that nobody has, with its session open; waits for one."""
        with self._changed:
            while (place := self._free()) is None:
                self._changed.wait()
            self._users[place] = threading.get_ident()
        try:
            if self[place] is None:
                self._fill(place % len(self._made))
        except BaseException:
            self.give(place)
            raise
        return place

    def open(self) -> None:
        """Open all sessions now, not when they are first taken."""
        for number in range(len(self._made)):
            self._fill(number)

    def give(self, place: int) -> None:
        """Let others have a place."""
        with self._changed:
            self._users[place] = None
            self._changed.notify()

    def _free(self) -> int | None:
        """The place to take: best one whose session nobody uses, of those one that is open."""
        me, count = threading.get_ident(), len(self._made)
        busy = [0] * count
        for place, user in enumerate(self._users):
            busy[place % count] += user not in (None, me)
        free = [place for place, user in enumerate(self._users) if user in (None, me)]
        return min(free, key=lambda place: (busy[place % count], self[place] is None), default=None)

    def _fill(self, number: int) -> None:
        """Open a session; if the file is not that of the others any more, share one of them."""
        with self._opening:
            if self._made[number] is not None:
                return
            there = next((session for session in self._made if session is not None), None)
            try:
                self._made[number] = self._make()
            except CheckpointError:
                if there is None:
                    raise
                self._made[number] = there


def _keep_after_fork(made: list[Any], process: int) -> None:
    """In another process than the one that opened them, take a reference to sessions that is never given back."""
    if process != os.getpid():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
