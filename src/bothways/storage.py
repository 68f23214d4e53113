"""Atomic file writes: a temporary file, then a rename."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bothways.errors import BothwaysError

# Errors that concern the file being written, even if they do not name it.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` if the block succeeds, and is deleted otherwise.

    Links are followed; pipes and devices are written to directly. Raises `BothwaysError` if the file cannot be written
    (no space, no permission, a directory), and leaves the old file. Other errors of the block propagate unchanged.
    """
    path = path.resolve()
    if path.is_dir():
        raise BothwaysError(f"{path}: is a directory, expected a file to write to")
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = path.parent / f".{path.name[:40]}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Create the file here, so that the system applies the umask, which can only be read by setting it.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            mode = stat.S_IMODE((path if path.exists() else temporary).stat().st_mode)
        try:
            yield temporary
        except OSError as error:
            if _is_about(error, temporary):
                raise _unwritten(path, error) from error
            raise
        with _writing(path):
            with temporary.open("r+b") as written:  # Windows does not flush a file that is open for reading only
                os.fsync(written.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
    finally:
        with suppress(OSError):  # an error here would hide the original one
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # the rename is done; if the directory cannot be flushed, the system does it later
        flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make renames in a directory survive a power failure; raises `OSError` on systems that cannot."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> BothwaysError:
    return BothwaysError(f"{path}: cannot be written ({error.strerror or error}); an existing file is unchanged")


def _is_about(error: OSError, temporary: Path) -> bool:
    if error.filename is None:
        return error.errno in _NO_ROOM
    return isinstance(error.filename, str) and Path(error.filename) == temporary


def user_cache() -> Path | None:
    """Return the directory for cached data about this machine; None if the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bothways"
    except RuntimeError:
        return None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
