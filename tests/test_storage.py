"""A file is whole or as it was, and an error names the file that it is about."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from bothways.errors import BothwaysError
from bothways.storage import replacing, write_text


def write_half(path: Path, error: BaseException) -> None:
    """Write a part of a file, then fail."""
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.fixture
def windows(monkeypatch):
    """`os.fsync` as on Windows: a handle that is open for reading only is refused."""
    fcntl = pytest.importorskip("fcntl")
    flush, flushed = os.fsync, []

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(handle)
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return flushed


def test_files_are_flushed_by_a_handle_that_is_open_for_writing(tmp_path, windows):
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert windows


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


def test_the_umask_is_never_set(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("umask is of the whole process"))
    write_text(tmp_path / "a.txt", "new")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(mode)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "model_int8.onnx"),
        PermissionError(errno.EACCES, "Permission denied", "/other/file"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError("an engine cannot open its file"),
        OSError(errno.ENOSPC, "No space left on device", "/tmp/cache"),
    ],
    ids=repr,
)
def test_an_error_of_something_else_stays_what_it_is(tmp_path, error):
    path = tmp_path / "answers.jsonl"
    path.write_text("old")
    with pytest.raises(type(error)) as caught:
        write_half(path, error)
    assert caught.value is error
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_full_or_broken_disk_is_told_as_such_and_the_old_file_stays(tmp_path, number):
    path = tmp_path / "answers.jsonl"
    path.write_text("old")
    with pytest.raises(BothwaysError, match=r"answers\.jsonl: cannot be written .*unchanged"):
        write_half(path, OSError(number, os.strerror(number)))
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_of_the_temporary_file_is_of_the_file_itself(tmp_path):
    with pytest.raises(BothwaysError, match=r"a\.txt: cannot be written"), replacing(tmp_path / "a.txt") as temporary:
        raise PermissionError(errno.EACCES, "Permission denied", str(temporary))


def test_a_directory_is_never_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(BothwaysError, match="is a directory, expected a file"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a" / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(BothwaysError, match=r"b\.txt: cannot be written"):
        write_text(tmp_path / "a" / "b.txt", "new")
    assert (tmp_path / "a").read_text() == "mine"


def test_a_long_name_can_be_written(tmp_path):
    path = tmp_path / ("長" * 80 + ".txt")
    write_text(path, "new")
    assert path.read_text() == "new"


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "a.txt", KeyboardInterrupt())
    assert not list(tmp_path.iterdir())


def test_writers_at_once_leave_one_whole_file(tmp_path):
    texts = [letter * 100_000 for letter in "abcdefgh"]
    threads = [threading.Thread(target=write_text, args=(tmp_path / "a.txt", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_followed_and_missing_folders_are_made(tmp_path):
    link = tmp_path / "link.txt"
    link.symlink_to(Path("folder") / "real.txt")
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "folder" / "real.txt").read_text() == "new"
