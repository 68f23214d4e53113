"""What the user sees during a job: messages and progress, always on stderr, never on stdout."""

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
PLAIN_SECONDS = 10.0  # between two lines of progress where no bar can be drawn
# Control characters and half surrogates command a terminal or cannot be written; bidirectional overrides and
# isolates (U+202A-202E, U+2066-2069) make a text show in another order than it has.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """The text with each character that commands a terminal or hides the order of a text as U+FFFD.

    >>> printable("a\\x1b[2Jb")
    'a\\ufffd[2Jb'
    """
    return _UNPRINTABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """The printable text, with its line ends as spaces."""
    return printable(" ".join(text.splitlines()).replace("\t", " "))


class Bar:
    """The progress of one job: a bar in a terminal or notebook, otherwise a line every ten seconds.

    `total` None: how much there is to do is not known, so what is done is counted.
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
        """Show that `done` of `total` is reached, followed by `text`."""
        if self.total is not None and done > self.total:
            self.total = None  # it was a guess
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

    Messages go to the logger "bothways": `note` as WARNING, `say` as INFO. The command line prints them; in Python a
    program decides as usual, and without a decision only warnings are shown. Progress is drawn as a bar on stderr if
    it is a terminal or a notebook, unless the level of the logger is set above INFO. `quiet` draws no bar; `stream`
    takes messages and progress itself.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet, self._stream = quiet, stream
        self._live: Console | None = None

    def note(self, text: str) -> None:
        """A line that the user must see: a fallback, something left out. Logged as WARNING."""
        self._tell(logging.WARNING, text)

    def say(self, text: str) -> None:
        """A line about progress. Logged as INFO."""
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
        """A bar for a job of `total` units (None: not known), of which `done` are done; it disappears at the end."""
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
    """Whether a bar can be drawn: on a terminal, or in a notebook that has widgets."""
    if stream is None:
        return False
    if stream.isatty():
        return True
    notebook = sys.modules.get("ipykernel") is not None and hasattr(sys.modules.get("IPython"), "get_ipython")
    return notebook and importlib.util.find_spec("ipywidgets") is not None


class _Printed(logging.Handler):
    """Prints records on the stderr of the moment, which a bar may have taken over."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # nobody reads stderr; the job goes on
            print(one_line(self.format(record)), file=sys.stderr, flush=True)


@contextmanager
def messages_on_stderr(level: int, *, times: bool = False) -> Iterator[None]:
    """Print the messages of the logger "bothways" from `level` on while the block runs, with `times` if wanted."""
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
    """Seconds as people say them.

    >>> clock(75), clock(4.2), clock(3700)
    ('1:15', '4 s', '1:01:40')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
