"""The frame of all commands: version, help, completion, messages, statuses."""

import os
import subprocess
import sys

import pytest

import bothways
from bothways import cli
from bothways.tasks import task_name
from tests.cli.conftest import process


def test_the_version_is_printed(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"bothways {bothways.__version__}\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_the_options_for_messages(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.run([name, "--help"]) == 0
    printed = capsys.readouterr().out
    for option in ("--quiet", "--verbose", "--debug"):
        assert option in printed
    assert "{}" not in printed.replace("with {} for", "")


def test_help_fits_every_console():
    for encoding in ("cp1252", "ascii"):
        done = process(["--help"], env=os.environ | {"PYTHONIOENCODING": encoding})
        assert done.returncode == 0
        assert b"finetune" in done.stdout


def test_completion_knows_commands_and_options():
    environment = os.environ | {"_BOTHWAYS_COMPLETE": "complete_bash", "COMP_WORDS": "bothways pre", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'bothways'; from bothways.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert {"predict", "pretrain"} <= set(done.stdout.split()), done.stderr


def test_a_rank_in_the_environment_silences_only_other_processes_of_a_training(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    assert cli.run(["predict", "/nowhere", "a"]) == 2
    assert "error:" in capsys.readouterr().err
    assert cli.run(["finetune", "classify", "/nowhere.csv", "--out", "/tmp/never"]) == 2
    assert "error:" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert cli.run(["finetune", "classify", "/nowhere.csv", "--out", "/tmp/never"]) == 2
    assert capsys.readouterr().err == ""


def test_hostile_names_are_printed_harmlessly(capsys):
    assert cli.run(["predict", "runs/\x1b]0;x\x07\n\u202e", "a"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert not set("\x1b\x07\u202e") & set(error)


def test_a_full_disk_behind_stdout_is_one_line():
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "bothways", "models", "--json"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == ["error: [Errno 28] No space left on device"]


def test_tables_in_a_pipe_are_plain_and_80_columns_wide():
    done = process(["models"], env={key: value for key, value in os.environ.items() if key != "COLUMNS"})
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "109,482,240" in text


@pytest.mark.parametrize(
    ("name", "ours"),
    [("ner", "tag"), ("question-answering", "answer"), ("Text-Classification", "classify"), ("zero-shot", "zero_shot")],
)
def test_tasks_can_be_called_as_in_transformers(name, ours):
    assert task_name(name) == ours
    assert task_name("sing") == "sing"
