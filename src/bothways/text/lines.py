"""Opens text files: packed or not, of bounded size, line by line as UTF-8, with the line of each error."""

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


LONGEST_ROW = 2**24  # bytes of a line of a table, and of a CSV field: an open quote must not take the rest of a file


LONGEST_LINE = 2**28  # bytes of any other line


LARGEST_UNPACKED = 2**30  # bytes that any packed file may become,


LARGEST_RATIO = 250  # and beyond them, as a multiple of its size (text is 3 to 30 times smaller when packed)


class Line(NamedTuple):
    """A line of a file with its end, counted from 1; `error` says why it cannot be read."""

    number: int
    text: str
    error: str | None


def suffix_of(name: str) -> str:
    """The suffix of a file in small letters, without that of its packing.

    >>> suffix_of("data/Train.CSV.gz")
    '.csv'
    """
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in UNPACK else path).suffix.lower()


def shown(name: str) -> str:
    """What messages call a file."""
    return "standard input" if name == STDIN else name


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """The bytes of a file or of standard input ("-"), unpacked; what is wrong with it as a `DataError`."""
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
    """A file as it is, or unpacked if its suffix or its first bytes say that it is packed."""
    first: bytes = file.peek(6) if hasattr(file, "peek") else b""
    unpack = UNPACK.get(suffix)
    if unpack is None:
        unpack = next((UNPACK[kind] for kind, magic in _MAGIC.items() if first.startswith(magic)), None)
    if unpack is None:
        return file
    most = None if size is None else max(LARGEST_UNPACKED, LARGEST_RATIO * size)
    return io.BufferedReader(BoundedFile(unpack(file), most))


class BoundedFile(io.RawIOBase):
    """The bytes of a packed file, as long as they are not absurdly many for its size."""

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
    """The lines of a UTF-8 file with their ends, counted from 1."""
    for line in checked_lines(name):
        if line.error is not None:
            raise DataError(f"{shown(name)}:{line.number}: {line.error}")
        yield line.number, line.text


def checked_lines(name: str) -> Iterator[Line]:
    """As `numbered_lines`, but a line that cannot be read has an `error`."""
    with opened(name) as file:
        yield from lines_of(file, shown(name), LONGEST_LINE)


def lines_of(file: IO[bytes], name: str, longest: int = LONGEST_ROW) -> Iterator[Line]:
    """The lines of a file; one that cannot be read has an error, and the next one is read."""
    # Read as bytes: only so is the line of a bad byte known, and only LF ends a line, as editors count.
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
                text = raw.decode("utf-8", "replace")  # its quotes and its end count in CSV
            if 4 * text.count("\0") > len(text):  # a few in a text do no harm
                error = "mostly NUL bytes, as in UTF-16; save the file as UTF-8"
                if number == 1:
                    raise DataError(f"{name}:1: {error}")
        yield Line(number, text, error)


def without_end(text: str) -> str:
    """A line without its end."""
    return text.removesuffix("\n").removesuffix("\r")


UNPACK: dict[str, Callable[[IO[bytes]], Any]] = {".gz": lambda file: gzip.GzipFile(fileobj=file), ".xz": lzma.LZMAFile}


_MAGIC = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\0"}
