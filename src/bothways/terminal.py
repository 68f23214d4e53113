"""What the user sees while work goes on: notes and progress, always on stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal


class Bar:
    """The progress of one job: a bar on a terminal, else a line now and then."""

    def __init__(
        self, title: str, total: float, reporter: Reporter, live: tuple[Progress, TaskID] | None, done: float = 0.0
    ) -> None:
        self.title, self.total, self.reporter, self._live, self._first = title, total, reporter, live, done
        self._began = self._spoke = time.monotonic()

    def update(self, done: float, text: str = "") -> None:
        """Show that `done` of `total` is reached, with `text` behind it."""
        if self._live is not None:
            progress, task = self._live
            progress.update(task, completed=done, text=text)
            return
        now = time.monotonic()
        if now - self._spoke >= PLAIN_SECONDS:
            self._spoke = now
            left = (now - self._began) / max(done - self._first, 1e-9) * max(self.total - done, 0.0)
            share = 100 * done / max(self.total, 1e-9)
            self.reporter.say(f"{self.title}: {share:.0f} %, {clock(left)} left {text}".rstrip())


LOGGER = logging.getLogger("bothways")


class Reporter:
    """Where messages and progress go: to stderr, or for use from Python (`quiet`) to the logger "bothways"."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = sys.stderr if stream is None else stream
        self._live: Console | None = None

    def note(self, text: str) -> None:
        """A line that the user should see: a fallback, something left out. Logged as a warning."""
        if self.quiet:
            LOGGER.warning(text)
            return
        self._print(text)

    def say(self, text: str) -> None:
        """A line about what goes on. Logged as information."""
        if self.quiet:
            LOGGER.info(text)
            return
        self._print(text)

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    @contextmanager
    def bar(self, title: str, total: float, done: float = 0.0) -> Iterator[Bar]:
        """A bar for a job of `total` units, of which `done` are done; gone from the terminal at its end."""
        if self.quiet or not self.stream.isatty() or self._live is not None:
            yield Bar(title, total, self, None, done)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        console = Console(file=self.stream)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            self._live = console
            try:
                yield Bar(title, total, self, (progress, progress.add_task(title, total=total, text="")))
            finally:
                self._live = None


def clock(seconds: float) -> str:
    """Seconds as people say them.

    >>> clock(75), clock(4.2), clock(3700)
    ('1:15', '4 s', '1:01:40')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
