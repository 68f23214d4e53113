"""Messages go to the logger, the command line prints them on stderr, and nothing commands the terminal."""

import io
import logging
import subprocess
import sys

import pytest

from bothways.progress import LOGGER, Bar, Reporter, messages_on_stderr, one_line, printable


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def script(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_in_python_a_note_is_a_warning_and_progress_is_information(caplog):
    with caplog.at_level(logging.INFO, "bothways"):
        Reporter().note("the int8 model is not used")
        Reporter().say("epoch 3")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "the int8 model is not used"),
        ("INFO", "epoch 3"),
    ]


def test_a_plain_script_sees_warnings_and_nothing_else():
    code = (
        "from bothways.progress import Reporter\nreporter = Reporter()\n"
        "reporter.note('slower'); reporter.say('step 3')\n"
        "with reporter.bar('training', 10) as bar: bar.update(5)"
    )
    done = script(code)
    assert (done.stdout, done.stderr) == ("", "slower\n")


def test_the_command_line_prints_messages_by_level(capsys):
    for level, expected in ((logging.INFO, "a\nb\n"), (logging.WARNING, "a\n"), (logging.CRITICAL, "")):
        with messages_on_stderr(level):
            Reporter().note("a")
            Reporter(quiet=True).say("b")
        assert capsys.readouterr() == ("", expected)
    assert LOGGER.handlers == []
    assert LOGGER.level == logging.NOTSET


def test_messages_can_have_their_time(capsys):
    with messages_on_stderr(logging.DEBUG, times=True):
        Reporter().say("b")
    assert capsys.readouterr().err.endswith(" INFO b\n")


def test_a_bar_is_drawn_on_a_terminal_and_disappears():
    stream = Terminal()
    reporter = Reporter(stream=stream)
    with reporter.bar("training", 10) as bar:
        bar.update(5, "loss 0.1")
        reporter.note("a [note]")
    assert "a [note]" in stream.getvalue()
    assert "training" in stream.getvalue()


def test_no_bar_is_drawn_if_the_logger_is_set_above_information():
    stream = Terminal()
    LOGGER.setLevel(logging.WARNING)
    try:
        with Reporter(stream=stream).bar("training", 10) as bar:
            bar.update(5)
    finally:
        LOGGER.setLevel(logging.NOTSET)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("total", [None, 1])
def test_progress_without_a_known_total_is_counted(monkeypatch, total):
    monkeypatch.setattr("bothways.progress.PLAIN_SECONDS", 0.0)
    stream = io.StringIO()
    Bar("predicting", total, Reporter(stream=stream), None).update(1024)
    assert stream.getvalue() == "predicting: 1,024\n"
    drawn = Terminal()
    with Reporter(stream=drawn).bar("predicting", total) as bar:
        bar.update(1024)
    assert "%" not in drawn.getvalue().rpartition("1,024")[2]


def test_what_commands_a_terminal_or_turns_a_text_round_is_not_printed(capsys):
    hostile = "a\x1b]0;x\x07\x9b2J\u202eb\u2066c\ud800"
    assert printable(hostile) == "a\ufffd]0;x\ufffd\ufffd2J\ufffdb\ufffdc\ufffd"
    assert one_line("one\r\ntwo\u2028three\tfour") == "one two three four"
    with messages_on_stderr(logging.INFO):
        Reporter().note(hostile)
    assert "\x1b" not in capsys.readouterr().err


def test_messages_to_nobody_do_not_stop_a_job():
    code = (
        "import os, logging\nos.close(2)\nfrom bothways.progress import Reporter, messages_on_stderr\n"
        "with messages_on_stderr(logging.INFO): Reporter().note('a')\nprint('done')"
    )
    assert script(code).stdout == "done\n"
