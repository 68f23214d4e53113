"""The directory of a run: one run writes to it at a time, and an existing model stays until the new one is complete.

A run that replaces a finished model writes to the hidden folder `NEXT` and moves its files into place at the end. Files
that bothways did not write are never deleted.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from bothways.errors import BothwaysError, CheckpointError, InterruptedRunError, OptionError
from bothways.inference.model_directory import CHECKPOINT, EVENTS, RUN, SETTINGS, TEACHER
from bothways.inference.onnx.record import ATTENTIONS, EXPORT, FILES, FOLDER, ExportRecord
from bothways.inference.plan import TUNED
from bothways.model.config import WEIGHTS
from bothways.progress import Reporter

LOCK, NEXT = ".lock", ".new"
CONFIG = "config.json"
_OF_A_RUN = (
    CONFIG,  # first: a directory without it is not a model, so partial models are never read
    *(SETTINGS, WEIGHTS, RUN, CHECKPOINT, TEACHER),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "README.md", "evaluation.json", "metrics.jsonl", "report.html"),
    "curves.png",
)

# Errors after training that do not affect the model: texts without words for a baseline, the system, a killed child
# process, memory.
LATE_FAILURES = (BothwaysError, OSError, RuntimeError, ValueError, MemoryError)


def check_run_directory(out: Path, *, resume: bool, overwrite: bool, besides: tuple[str, ...] = ()) -> None:
    """Raise `OptionError` unless `out` is new or empty, or the options allow a run to write to it.

    Files named in `besides` are ignored.
    """
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file, expected a directory to write the run to")
    if resume and overwrite:
        raise OptionError("--resume continues a run and --overwrite starts again; expected one of them")
    present = _present(out, besides)
    replacing = (out / NEXT / CHECKPOINT).is_file()
    begun = replacing or CHECKPOINT in present
    if resume and not begun:
        why = "holds a finished model" if _finished(out) else "has no checkpoint of a run"
        raise OptionError(f"{out} {why}, so there is nothing to resume; --overwrite starts again")
    if overwrite and present and RUN not in present and SETTINGS not in present:
        raise OptionError(f"{out} holds {present[0]} and no run of bothways, so it is not overwritten; choose another")
    if present and not resume and not overwrite:
        state = "a finished model" if _finished(out) and CHECKPOINT not in present else "other files"
        if CHECKPOINT in present:
            state = "an unfinished run"
        elif RUN in present and not _finished(out):
            state = "a run that stopped before its first checkpoint"
        state += " and an unfinished run that was to replace it" if replacing else ""
        advice = "--resume to continue it, or " if begun else ""
        raise OptionError(
            f"{out} holds {state} ({', '.join(present[:3])}{' ...' if len(present) > 3 else ''}); "
            f"choose another directory, or {advice}--overwrite to replace it"
        )


def work_directory(out: Path, *, resume: bool) -> Path:
    """Return the directory that a run writes to: `out`, or `NEXT` if `out` contains a model."""
    if resume:
        return out / NEXT if (out / NEXT / CHECKPOINT).is_file() else out
    return out / NEXT if _finished(out) else out


def clear_run_directory(out: Path, work: Path) -> None:
    """Make the directory `work` of a new run in `out`, and delete the files of an unfinished run."""
    shutil.rmtree(out / NEXT, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    if work == out:
        _remove_run(out)


def publish(work: Path, out: Path, reporter: Reporter) -> None:
    """Move a complete run from `work` to `out`, replacing the run there.

    The checkpoint is moved last, so that an interrupted run can be resumed.
    """
    if work == out:
        return
    _remove_run(out)
    files = sorted(path.relative_to(work) for path in work.rglob("*") if path.is_file())
    for name in sorted(files, key=lambda name: (str(name) == CHECKPOINT, str(name) == CONFIG)):
        target = out / name
        target.parent.mkdir(exist_ok=True)
        if len(name.parts) > 1 and target.exists():
            kept = target.with_name(f"{target.name}.kept")
            target.replace(kept)
            reporter.note(f"{target} was not written by bothways; it is now called {kept.name}")
        (work / name).replace(target)
    shutil.rmtree(work, ignore_errors=True)


def refuse_if_in_use(out: Path) -> None:
    """Raise `OptionError` if a run is writing to `out`."""
    if (out / LOCK).is_file():
        lock = FileLock(out / LOCK)
        _acquire(lock, out, timeout=1.0)  # another process may be checking at the same time
        lock.release()


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Lock `out` against other processes and threads; raises `OptionError` if it is locked.

    The operating system releases the lock if the process is killed.
    """
    new = not out.exists()
    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _acquire(lock, out)
    except OSError as error:
        raise BothwaysError(f"{out}: cannot be written ({error.strerror}); choose another directory") from error
    try:
        yield
    finally:
        if os.name != "nt":  # Windows cannot delete an open file; an unlocked lock file is harmless
            (out / LOCK).unlink(missing_ok=True)
        lock.release()
        if new:
            with suppress(OSError):  # not empty
                out.rmdir()


@contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM (`docker stop`, Slurm, systemd) like Ctrl-C in the block."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: leave signals alone
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: not set from Python


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """In the block after training, add to errors how to finish the run in `out`."""
    rest = f"training is complete and its checkpoint is saved in {out}; repeat the command with --resume to finish"
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"stopped after the training; {rest}") from None
    except (BothwaysError, OSError) as error:
        raise BothwaysError(f"{error}; {rest}") from error


@contextmanager
def guarded(what: str, reporter: Reporter) -> Iterator[None]:
    """Report failures in the block as a note that begins with `what`, to keep the trained model."""
    try:
        yield
    except LATE_FAILURES as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        reporter.note(f"{what} ({reason[-1]})")


def _acquire(lock: BaseFileLock, out: Path, timeout: float = 0.0) -> None:
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise OptionError(
            f"{out}: another process is writing a run there; wait until it has ended, or choose another directory"
        ) from None
    except NotImplementedError as error:
        raise BothwaysError(f"{out}: cannot be locked on this file system; choose a directory on another") from error


def _present(out: Path, besides: tuple[str, ...]) -> list[str]:
    hidden = (*besides, LOCK, NEXT)
    return sorted(path.name for path in out.iterdir() if path.name not in hidden) if out.is_dir() else []


def _finished(out: Path) -> bool:
    return (out / SETTINGS).is_file() or ((out / RUN).is_file() and (out / WEIGHTS).is_file())


def _remove_run(out: Path) -> None:
    """Delete the files that bothways wrote, and no others."""
    for name in _OF_A_RUN:
        (out / name).unlink(missing_ok=True)
    graphs = out / FOLDER
    if (graphs / EXPORT).is_file():
        names = [*FILES.values(), ATTENTIONS]
        with suppress(CheckpointError):
            export = ExportRecord.read(out)
            names = [path.name for path in export.files()] if export is not None else []
        for name in (*names, EXPORT, TUNED):
            (graphs / name).unlink(missing_ok=True)
    for path in (out / "tensorboard").glob(f"*{EVENTS}"):
        path.unlink()
    for folder in (graphs, out / "tensorboard"):
        with suppress(OSError):  # not empty, or missing
            folder.rmdir()
