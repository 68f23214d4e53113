"""Structured logs: one JSON object per line, without the texts of requests and responses."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from bothways.progress import Reporter, one_line

LOGGER = logging.getLogger("bothways.serving")


class JsonLines(logging.Formatter):
    """JSON with the time, level, event and fields of a record."""

    def format(self, record: logging.LogRecord) -> str:
        """One line. An exception is shown by its type only, because its message may contain user text."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=True, default=str)


class TextLines(logging.Formatter):
    """The same as readable text: time, event and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = json.loads(JsonLines().format(record))
        time, level, event = (line.pop(key) for key in ("time", "level", "event"))
        line.pop("request_id", None)
        shown = [f"{key}={value}" for key, value in line.items() if value not in ("", None)]
        return " ".join([time[11:19], *([] if level == "info" else [level]), event, *shown])


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # stderr is closed; the server keeps running
            print(one_line(self.format(record)), file=sys.stderr, flush=True)


class LogReporter(Reporter):
    """Logs the messages of model loading."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def note(self, text: str) -> None:
        """Log a warning."""
        LOGGER.warning(text)

    def say(self, text: str) -> None:
        """Log progress."""
        LOGGER.info(text)


@contextmanager
def logging_to_stderr(level: int, *, as_json: bool = True) -> Iterator[None]:
    """Write log records of the server and uvicorn, from `level` on, to stderr while the block runs."""
    handler = _Stderr()
    handler.setFormatter(JsonLines() if as_json else TextLines())
    loggers = [LOGGER, logging.getLogger("uvicorn.error")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    LOGGER.setLevel(level)
    loggers[1].setLevel(max(level, logging.WARNING))  # the server logs its own progress
    try:
        yield
    finally:
        for logger, (was, propagates) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(was)
            logger.propagate = propagates
