"""Read UTF-8 text files line by line, decompressed and with size limits; errors name the line."""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from bothways.errors import DataError

STDIN = "-"


LONGEST_ROW = 2**24  # maximum bytes of a table line and of a CSV field, so an open quote cannot consume a whole file


LONGEST_LINE = 2**28  # maximum bytes of any other line


LARGEST_UNPACKED = 2**30  # decompressed bytes that are always allowed;


LARGEST_RATIO = 250  # beyond that, the maximum ratio to the file size (text compresses by a factor of 3 to 30)


class Line(NamedTuple):
    """A line of a file with its line end, numbered from 1; `error` is the reason why it cannot be read."""

    number: int
    text: str
    error: str | None


def suffix_of(name: str) -> str:
    """Return the suffix of a file in lower case, ignoring a compression suffix.

    >>> suffix_of("data/Train.CSV.gz")
    '.csv'
    """
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in UNPACK else path).suffix.lower()


def shown(name: str) -> str:
    """Return the name of a file for messages."""
    return "standard input" if name == STDIN else name


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """Open a file or standard input ("-") as decompressed bytes; raises `DataError` if that fails."""
    if "\0" in name:
        raise DataError(f"{name!r}: not a path; expected a readable file")
    try:
        if name == STDIN:
            yield _unpacked(sys.stdin.buffer, "", None)
            return
        with open(name, "rb") as file:  # noqa: PTH123
            mode = Path(name).stat()
            size = mode.st_size if stat.S_ISREG(mode.st_mode) else None
            with _unpacked(file, Path(name).suffix.lower(), size) as unpacked:
                yield unpacked
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as problem:
        raise DataError(f"{shown(name)}: damaged or cut off ({problem}); fetch or compress it again") from problem
    except OSError as problem:
        reason = problem.strerror or problem
        raise DataError(
            f"{shown(name)}: {reason}; expected a readable file (current directory: {Path.cwd()})"
        ) from problem


def _unpacked(file: IO[bytes], suffix: str, size: int | None) -> IO[bytes]:
    """Decompress a file if its suffix or its first bytes indicate compression."""
    first: bytes = file.peek(6) if hasattr(file, "peek") else b""
    unpack = UNPACK.get(suffix)
    if unpack is None:
        unpack = next((UNPACK[kind] for kind, magic in _MAGIC.items() if first.startswith(magic)), None)
    if unpack is None:
        return file
    most = None if size is None else max(LARGEST_UNPACKED, LARGEST_RATIO * size)
    return io.BufferedReader(BoundedFile(unpack(file), most))


class BoundedFile(io.RawIOBase):
    """A decompressed file; reading more than `most` bytes raises `OSError`."""

    def __init__(self, file: Any, most: int | None) -> None:
        self.file, self.most, self.done = file, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self.file.read(len(buffer))
        buffer[: len(part)] = part
        self.done += len(part)
        if self.most is not None and self.done > self.most:
            raise OSError(f"it unpacks to more than {self.most:,} bytes, {LARGEST_RATIO} times its size")
        return len(part)


def numbered_lines(name: str) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and text of each line of a UTF-8 file; raises `DataError` for an unreadable line."""
    for line in checked_lines(name):
        if line.error is not None:
            raise DataError(f"{shown(name)}:{line.number}: {line.error}")
        yield line.number, line.text


def checked_lines(name: str) -> Iterator[Line]:
    """As `numbered_lines`, but a line that cannot be read has an `error`."""
    with opened(name) as file:
        yield from lines_of(file, shown(name), LONGEST_LINE)


def lines_of(file: IO[bytes], name: str, longest: int = LONGEST_ROW) -> Iterator[Line]:
    """Yield the lines of a file; a line that cannot be read has an `error`, and reading continues."""
    # Bytes, not text: the line of an invalid byte is then known, and only LF ends a line, as in editors.
    for number, raw in enumerate(iter(lambda: file.readline(longest + 1), b""), start=1):
        text, error = "", None
        if len(raw) > longest:
            end = raw
            while end and not end.endswith(b"\n"):
                end = file.readline(longest)
            error = f"the line is longer than {longest:,} bytes; end lines with LF or CRLF"
        elif number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{name}:1: found UTF-16, expected UTF-8; save the file as UTF-8")
        else:
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as problem:
                error = f"byte 0x{raw[problem.start]:02x} is not UTF-8; save the file as UTF-8"
                text = raw.decode("utf-8", "replace")  # CSV needs its quotes and its line end
            if 4 * text.count("\0") > len(text):  # a few are harmless
                error = "mostly NUL bytes, as in UTF-16; save the file as UTF-8"
                if number == 1:
                    raise DataError(f"{name}:1: {error}")
        yield Line(number, text, error)


def without_end(text: str) -> str:
    """Remove the line end, LF or CRLF."""
    return text.removesuffix("\n").removesuffix("\r")


UNPACK: dict[str, Callable[[IO[bytes]], Any]] = {".gz": lambda file: gzip.GzipFile(fileobj=file), ".xz": lzma.LZMAFile}


_MAGIC = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\0"}
