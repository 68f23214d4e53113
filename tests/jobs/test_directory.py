"""One run at a time in a directory; an old model stays until the new one is whole; files of others stay."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bothways.errors import BothwaysError, OptionError
from bothways.jobs.directory import (
    LOCK,
    NEXT,
    check_run_directory,
    claimed,
    clear_run_directory,
    guarded,
    publish,
    refuse_if_in_use,
    terminable,
    work_directory,
)
from bothways.progress import Reporter

QUIET = Reporter(quiet=True)


def finished(out: Path) -> Path:
    """What a finished run leaves, with an ONNX model."""
    (out / "onnx").mkdir(parents=True)
    for name in ("config.json", "bothways.json", "model.safetensors", "run.json", "tokenizer.json", "README.md"):
        (out / name).write_text("old")
    (out / "onnx" / "model_int8.onnx").write_text("old")
    record = {"format": 1, "head": "classify", "outputs": 2, "config": "", "weights": "", "parameters": 1}
    (out / "onnx" / "export.json").write_text(json.dumps(record | {"models": {"int8": {"sha256": ""}}}))
    return out


def fresh(out: Path, **more: str) -> Path:
    """What a new run writes to its folder."""
    work = work_directory(out, resume=False)
    clear_run_directory(out, work)
    (work / "onnx").mkdir()
    for name in ("config.json", "bothways.json", "model.safetensors", "run.json", "resume.safetensors"):
        (work / name).write_text("new")
    (work / "onnx" / "model_int8.onnx").write_text("new")
    return work


def test_a_second_process_is_refused_and_a_killed_one_does_not_block(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from bothways.jobs.directory import claimed\n"
        "with claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OptionError, match="another process is writing a run there; wait"), claimed(tmp_path):
            pass
        with pytest.raises(OptionError, match="another process is writing a run there"):
            refuse_if_in_use(tmp_path)
        assert (tmp_path / LOCK).is_file()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert (tmp_path / LOCK).is_file()
    refuse_if_in_use(tmp_path)
    with claimed(tmp_path):
        check_run_directory(tmp_path, resume=False, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_a_second_thread_is_refused(tmp_path):
    found = []

    def second():
        try:
            with claimed(tmp_path):
                found.append("got in")
        except OptionError as error:
            found.append(str(error))

    with claimed(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another process is writing" in found[0]


def test_a_directory_that_was_made_for_nothing_is_removed(tmp_path):
    with claimed(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


def test_a_new_run_writes_beside_a_finished_model_and_takes_its_place_at_the_end(tmp_path):
    out = finished(tmp_path)
    work = fresh(out)
    assert work == out / NEXT
    assert (out / "model.safetensors").read_text() == (out / "onnx" / "model_int8.onnx").read_text() == "old"
    publish(work, out, QUIET)
    names = {"config.json", "bothways.json", "model.safetensors", "run.json", "resume.safetensors", "onnx"}
    assert {path.name for path in out.iterdir()} == names
    assert {path.name for path in (out / "onnx").iterdir()} == {"model_int8.onnx"}
    assert all(path.read_text() == "new" for path in out.rglob("*") if path.is_file())


def test_files_of_others_stay_also_in_the_folders_of_a_run(tmp_path):
    out = finished(tmp_path)
    theirs = [
        *("notes.txt", "onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/README.md", "pictures/a.png"),
        "tensorboard/events.out.tfevents.1.host.1.0",
    ]
    for name in theirs:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    (out / "tensorboard" / "events.out.tfevents.2.host.1.0.bothways").write_text("old")
    publish(fresh(out), out, QUIET)
    assert all((out / name).read_text() == "mine" for name in theirs)
    assert not list((out / "tensorboard").glob("*.bothways"))
    assert (out / "onnx" / "model_int8.onnx").read_text() == "new"


def test_a_file_of_others_under_the_name_of_an_onnx_model_is_renamed_and_told(tmp_path, caplog):
    out = finished(tmp_path)
    (out / "onnx" / "export.json").unlink()  # so the ONNX model is not one of ours
    publish(fresh(out), out, QUIET)
    assert (out / "onnx" / "model_int8.onnx").read_text() == "new"
    assert (out / "onnx" / "model_int8.onnx.kept").read_text() == "old"
    assert "was not written by bothways" in caplog.text


def test_a_run_stopped_while_it_takes_its_place_can_be_resumed(tmp_path, monkeypatch):
    out = finished(tmp_path)
    work = fresh(out)
    moved, replace = [], Path.replace

    def stopped(path, target):
        moved.append(path.name)
        if len(moved) == 4:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        publish(work, out, QUIET)
    monkeypatch.undo()
    assert not (out / "config.json").exists()  # nobody takes the half for a model
    check_run_directory(out, resume=True, overwrite=False)
    assert work_directory(out, resume=True) == work
    publish(work, out, QUIET)
    assert (out / "config.json").read_text() == "new"


def test_an_unfinished_run_that_is_to_replace_a_model_is_named_and_can_be_resumed(tmp_path):
    out = finished(tmp_path)
    fresh(out)
    with pytest.raises(OptionError, match=r"a finished model and an unfinished run that was to replace it .*--resume"):
        check_run_directory(out, resume=False, overwrite=False)
    check_run_directory(out, resume=True, overwrite=False)
    check_run_directory(out, resume=False, overwrite=True)
    assert work_directory(out, resume=True) == out / NEXT


@pytest.mark.parametrize(
    ("present", "options", "message"),
    [
        (("thesis.tex",), {"overwrite": True}, "holds thesis.tex and no run of bothways"),
        (("thesis.tex",), {}, "holds other files"),
        (("run.json", "resume.safetensors"), {}, "an unfinished run .*--resume to continue it"),
        (("run.json", "model.safetensors"), {}, r"a finished model .*choose another directory, or --overwrite"),
        (("bothways.json",), {"resume": True}, "holds a finished model, so there is nothing to resume"),
        ((), {"resume": True}, "has no checkpoint of a run"),
        ((), {"resume": True, "overwrite": True}, "expected one of them"),
    ],
    ids=str,
)
def test_a_directory_that_cannot_be_written_to_is_told(tmp_path, present, options, message):
    for name in present:
        (tmp_path / name).touch()
    with pytest.raises(OptionError, match=message):
        check_run_directory(tmp_path, **{"resume": False, "overwrite": False} | options)


def test_a_directory_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with (
        pytest.raises(BothwaysError, match=r"run: cannot be written \(Read-only file system\)"),
        claimed(tmp_path / "run"),
    ):
        pass


def test_a_file_in_place_of_the_directory_is_told(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OptionError, match="is a file, expected a directory"):
        check_run_directory(tmp_path / "out", resume=False, overwrite=False)


def test_sigterm_within_a_job_is_an_interrupt_and_outside_what_it_was():
    before = signal.getsignal(signal.SIGTERM)

    def job():
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        job()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "error", [OSError("disk"), RuntimeError("child"), MemoryError(), ValueError("no words")], ids=repr
)
def test_a_late_failure_is_a_note(caplog, error):
    with guarded("the comparison could not be made", QUIET):
        raise error
    assert "the comparison could not be made (" in caplog.text


def test_a_defect_of_ours_is_not_a_note():
    with pytest.raises(KeyError), guarded("the comparison could not be made", QUIET):
        raise KeyError("headline")
