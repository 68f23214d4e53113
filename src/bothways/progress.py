"""Messages and progress of a job, always on stderr, never on stdout."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

LOGGER = logging.getLogger("bothways")
PLAIN_SECONDS = 10.0  # between two progress lines, if no bar can be drawn
# Control characters and lone surrogates control a terminal or cannot be encoded; bidirectional overrides and isolates
# (U+202A-202E, U+2066-2069) change the displayed order of a text.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Replace characters that control a terminal or reorder the displayed text with U+FFFD.

    >>> printable("a\\x1b[2Jb")
    'a\\ufffd[2Jb'
    """
    return _UNPRINTABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """Return the printable text with line breaks and tabs as spaces."""
    return printable(" ".join(text.splitlines()).replace("\t", " "))


class Bar:
    """The progress of a job: a bar in a terminal or notebook, otherwise a line every ten seconds.

    If `total` is None (unknown), the bar shows only a count.
    """

    def __init__(
        self,
        title: str,
        total: float | None,
        reporter: Reporter,
        live: tuple[Progress, TaskID] | None,
        done: float = 0.0,
    ) -> None:
        self.title, self.total, self.reporter, self._live, self._first = title, total, reporter, live, done
        self._began = self._spoke = time.monotonic()

    def update(self, done: float, text: str = "") -> None:
        """Show progress of `done` out of `total`, followed by `text`."""
        if self.total is not None and done > self.total:
            self.total = None  # it was an estimate
        counted = f"{done:,.0f} {text}".rstrip() if self.total is None else text
        if self._live is not None:
            progress, task = self._live
            if self.total is None:
                next(item for item in progress.tasks if item.id == task).total = None
            progress.update(task, completed=done, text=counted)
            return
        now = time.monotonic()
        if now - self._spoke < PLAIN_SECONDS:
            return
        self._spoke = now
        if self.total is None:
            self.reporter.say(f"{self.title}: {counted}")
            return
        left = (now - self._began) / max(done - self._first, 1e-9) * max(self.total - done, 0.0)
        share = 100 * done / max(self.total, 1e-9)
        self.reporter.say(f"{self.title}: {share:.0f} %, {clock(left)} left {text}".rstrip())


class Reporter:
    """Messages and progress of a job.

    Messages go to the logger "bothways": `note` as WARNING, `say` as INFO. The command line prints them; Python
    programs configure logging as usual (by default only warnings are shown). Progress is a bar on stderr if that is a
    terminal or a notebook, unless the level of the logger is above INFO. `quiet` disables the bar; `stream` receives
    messages and progress instead of the logger and stderr.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet, self._stream = quiet, stream
        self._live: Console | None = None

    def note(self, text: str) -> None:
        """Report a message that the user must see, such as a fallback or skipped data. Logged as WARNING."""
        self._tell(logging.WARNING, text)

    def say(self, text: str) -> None:
        """Report progress. Logged as INFO."""
        self._tell(logging.INFO, text)

    def _tell(self, level: int, text: str) -> None:
        if self.quiet or self._stream is None:
            LOGGER.log(level, "%s", text)
        elif self._live is not None:
            self._live.print(printable(text), markup=False, highlight=False)
        else:
            print(printable(text), file=self._stream, flush=True)

    @contextmanager
    def bar(self, title: str, total: float | None, done: float = 0.0) -> Iterator[Bar]:
        """Show a bar for `total` units (None: unknown), starting at `done`; it disappears at the end."""
        stream = sys.stderr if self._stream is None else self._stream
        if self.quiet or self._live is not None or LOGGER.level > logging.INFO or not _draws(stream):
            yield Bar(title, total, self, None, done)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        console = Console(file=stream)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            self._live = console
            try:
                yield Bar(title, total, self, (progress, progress.add_task(title, total=total, text="")), done)
            finally:
                self._live = None


def _draws(stream: TextIO | None) -> bool:
    """Return whether a bar can be drawn: on a terminal, or in a notebook with widgets."""
    if stream is None:
        return False
    if stream.isatty():
        return True
    notebook = sys.modules.get("ipykernel") is not None and hasattr(sys.modules.get("IPython"), "get_ipython")
    return notebook and importlib.util.find_spec("ipywidgets") is not None


class _Printed(logging.Handler):
    """Print records to the current stderr, which a bar may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # stderr may be closed; the job continues
            print(one_line(self.format(record)), file=sys.stderr, flush=True)


@contextmanager
def messages_on_stderr(level: int, *, times: bool = False) -> Iterator[None]:
    """Print messages of the logger "bothways" of at least `level` in the block; `times` adds timestamps."""
    handler = _Printed()
    if times:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]


def clock(seconds: float) -> str:
    """Format a duration in seconds.

    >>> clock(75), clock(4.2), clock(3700)
    ('1:15', '4 s', '1:01:40')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
