"""The directory of a run: one run writes to it at a time, and a model in it stays until the new one is complete.

A run that replaces a finished model writes to the hidden folder `NEXT` of the directory, and what it wrote is moved
into place at its end. Files that no run of bothways wrote are never removed.
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
    CONFIG,  # first: without it a directory is not a model, so half of one is never read
    *(SETTINGS, WEIGHTS, RUN, CHECKPOINT, TEACHER),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "README.md", "evaluation.json", "metrics.jsonl", "report.html"),
    "curves.png",
)

# What can fail after a training without the model being at fault: the texts (no words for a baseline), the system, a
# child process that was killed, memory.
LATE_FAILURES = (BothwaysError, OSError, RuntimeError, ValueError, MemoryError)


def check_run_directory(out: Path, *, resume: bool, overwrite: bool, besides: tuple[str, ...] = ()) -> None:
    """Raise `OptionError` unless a run may write to `out`: a new or empty directory, or as the options say.

    Files named in `besides` do not count.
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
    """Where a run that may write to `out` writes: in `out` itself, or in `NEXT` while `out` holds a model."""
    if resume:
        return out / NEXT if (out / NEXT / CHECKPOINT).is_file() else out
    return out / NEXT if _finished(out) else out


def clear_run_directory(out: Path, work: Path) -> None:
    """Make the directory `work` of a new run in `out`; what an unfinished run left there is removed."""
    shutil.rmtree(out / NEXT, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    if work == out:
        _remove_run(out)


def publish(work: Path, out: Path, reporter: Reporter) -> None:
    """Move a complete run from `work` to `out`, in place of the run that is there.

    The checkpoint is moved last: a run that is stopped before can be resumed.
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
    """Raise `OptionError` if a run is writing to `out` now."""
    if (out / LOCK).is_file():
        lock = FileLock(out / LOCK)
        _acquire(lock, out, timeout=1.0)  # other processes may be asking the same
        lock.release()


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Within, no other process or thread runs in `out`; raises `OptionError` if one does.

    The lock is the system's, so that of a process that was killed does not block.
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
        if os.name != "nt":  # there an open file cannot be removed, and a free lock file does no harm
            (out / LOCK).unlink(missing_ok=True)
        lock.release()
        if new:
            with suppress(OSError):  # it is not empty
                out.rmdir()


@contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM (`docker stop`, Slurm, systemd) ends a job as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: whoever owns it decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: not of Python


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Within, the training is over and saved in `out`: what stops the job says how to finish it."""
    rest = f"the training is saved in {out}: the same command with --resume finishes the rest"
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"stopped after the training; {rest}") from None
    except (BothwaysError, OSError) as error:
        raise BothwaysError(f"{error}; {rest}") from error


@contextmanager
def guarded(what: str, reporter: Reporter) -> Iterator[None]:
    """Within, a failure is a note that begins with `what`: it does not lose the model that was trained before."""
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
    """Remove what a run of bothways wrote, and nothing else."""
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
        with suppress(OSError):  # it holds other files, or is not there
            folder.rmdir()
