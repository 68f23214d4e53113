"""predict answers every row, in order, with what ties it to its input; and never harms a file."""

import csv
import gzip
import io
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

import bothways
from bothways import cli
from bothways.cli.predicting import number_of
from bothways.data.tables import Columns
from tests.cli.conftest import process, worker
from tests.tiny import ROWS

TEXTS = [row["text"] for row in ROWS]
HOSTILE = [
    "",
    " ",
    "\u200b",
    "\x00",
    "[SEP] [PAD]",
    "😀" * 40,
    "a" * 500,
    "\x1b]0;x\x07",
    "'; --",
    "=1+1",
    "-5 °",
    "\ufeff",
]


def run(arguments) -> int:
    return cli.run([*map(str, arguments)])


def predicted(capsys, arguments) -> list[dict]:
    capsys.readouterr()
    assert run(arguments) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(capsys, arguments) -> str:
    capsys.readouterr()
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


@pytest.fixture
def table(tmp_path) -> Path:
    rows = "id,text,date\n7,great film,2020\n8,,2021\n9,dull film,2022\n"
    return write(tmp_path / "in.csv", rows)


# Every row, in order, with its number


def test_files_answer_as_python_does_row_by_row(model, tmp_path, capsys):
    texts = [*TEXTS, *(text for text in HOSTILE if "\x00" not in text)]
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    source = write(tmp_path / "in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    python = bothways.load(model)(texts)
    answers = predicted(capsys, ["predict", model, "--input", source, "--keep", "id", "--all-scores"])
    assert [answer.pop("line") for answer in answers] == [*range(1, len(texts) + 1)]
    assert [answer.pop("id") for answer in answers] == [*range(len(texts))]
    for answer, expected in zip(answers, python, strict=True):
        assert answer["label"] == expected.as_json()["label"]
        assert answer.get("error") == expected.error


def test_a_blank_line_is_a_row_with_an_error_and_the_status_is_0(model, tmp_path, capsys):
    source = write(tmp_path / "in.txt", "great film\n\ndull film\n")
    assert run(["predict", model, "--input", source]) == 0
    captured = capsys.readouterr()
    answers = [json.loads(line) for line in captured.out.splitlines()]
    assert [(answer["line"], answer.get("error")) for answer in answers] == [
        (1, None),
        (2, "the text is empty"),
        (3, None),
    ]
    assert "1 of 3 rows has an error" in captured.err


def test_rows_are_counted_by_lines_where_there_are_lines():
    for names, counted in ((["a.conll"], "line"), (["a"], "line"), (["a.csv", "b.json"], "row"), ([], "")):
        assert number_of(names, Columns()) == counted
    assert number_of(["a"], Columns(format="parquet")) == "row"


def test_a_broken_row_is_an_error_in_its_place(model, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", '{"text": "great film"}\n{"text": \n{"text": "dull film"}\n')
    answers = predicted(capsys, ["predict", model, "--input", source, "--keep", "all"])
    assert [answer["line"] for answer in answers] == [1, 2, 3]
    assert "broken JSON" in answers[1]["error"]
    assert answers[2]["text"] == "dull film"


def test_a_file_without_rows_gives_an_output_without_rows(model, tmp_path, capsys):
    source = write(tmp_path / "in.csv", "id,text\n")
    assert predicted(capsys, ["predict", model, "--input", source]) == []
    assert run(["predict", model, "--input", source, "--keep", "id", "--output", tmp_path / "out.csv"]) == 0
    assert (tmp_path / "out.csv").read_text().startswith("line,id,text,second_text,answer")


# What ties an answer to its input


def test_columns_of_the_input_are_kept_in_every_format(model, table, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    for keep in ("id,date", "all"):
        answers = predicted(capsys, ["predict", model, "--input", table, "--keep", keep])
        assert [(one["line"], one["id"], one["date"]) for one in answers] == [
            (2, "7", "2020"),
            (3, "8", "2021"),
            (4, "9", "2022"),
        ]
        for suffix in ("csv", "tsv", "parquet"):
            out = tmp_path / f"{keep[:2]}.{suffix}"
            run(["predict", model, "--input", table, "--keep", keep, "--output", out])
            if suffix == "parquet":
                rows = parquet.read_table(out).to_pylist()
                assert [row["label"] for row in rows] == [one["label"] for one in answers]
            else:
                with out.open(newline="") as file:
                    rows = list(csv.DictReader(file, delimiter="," if suffix == "csv" else "\t"))
                assert [row["text"] for row in rows] == ["great film", "", "dull film"]
                assert [row["answer"] for row in rows] == [one["label"] or "" for one in answers]
            assert [(str(row["line"]), row["id"], row["date"]) for row in rows] == [
                ("2", "7", "2020"),
                ("3", "8", "2021"),
                ("4", "9", "2022"),
            ]


def test_a_kept_column_never_takes_the_place_of_an_answer(model, tmp_path, capsys):
    row = {"text": "great film", "label": "mine", "score": 5, "input_label": "too", "error": "no", "line": 77}
    source = write(tmp_path / "in.jsonl", json.dumps(row) + "\n")
    (answer,) = predicted(capsys, ["predict", model, "--input", source, "--keep", "all"])
    assert answer["label"] in ("good", "bad")
    assert answer["line"] == 1
    assert answer["input_score"] == 5
    assert answer["input_line"] == 77
    assert answer["input_error"] == "no"
    assert {"mine", "too"} <= {str(value) for value in answer.values()}


def test_a_column_that_is_not_there_is_refused(model, table, capsys):
    line = refused(capsys, ["predict", model, "--input", table, "--keep", "nr"])
    assert "in.csv:2: no column 'nr' to keep; choose from 'id', 'text', 'date'" in line


def test_a_text_that_is_the_name_of_a_file_gets_a_note(model, tmp_path, capsys):
    path = write(tmp_path / "a.txt", "great film\n")
    capsys.readouterr()
    assert run(["predict", model, path]) == 0
    captured = capsys.readouterr()
    assert "line" not in json.loads(captured.out)
    assert f"give --input {path}" in captured.err
    assert run(["predict", model, "great film", "x" * 5000]) == 0
    assert "--input" not in capsys.readouterr().err


def test_several_files_and_patterns_name_the_file_of_each_row(model, tmp_path, capsys):
    for name in ("b.txt", "a.txt"):
        write(tmp_path / name, f"great film {name}\ndull film\n")
    expected = [(str(tmp_path / name), line) for name in ("a.txt", "b.txt") for line in (1, 2)]
    pattern, first, second = tmp_path / "*.txt", tmp_path / "a.txt", tmp_path / "b.txt"
    for arguments in (["--input", pattern], ["--input", first, "--input", second], ["--input", first, second]):
        answers = predicted(capsys, ["predict", model, *arguments])
        assert [(answer["file"], answer["line"]) for answer in answers] == expected
    assert "no file matches" in refused(capsys, ["predict", model, "--input", tmp_path / "*.csv"])
    assert "is a directory" in refused(capsys, ["predict", model, "--input", tmp_path])
    assert "found both" in refused(capsys, ["predict", model, "a film", "--input", first])


def test_squad_ids_are_kept_and_the_official_script_gets_its_object(answerer, tmp_path, capsys):
    questions = [
        {"id": "q1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 0}]},
        {"id": "q2", "question": "where?", "answers": []},
    ]
    data = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "Ann was here.", "qas": questions}]}]}
    source = write(tmp_path / "in.json", json.dumps(data))
    answers = predicted(capsys, ["predict", answerer, "--input", source])
    assert [answer["id"] for answer in answers] == ["q1", "q2"]
    for options in (["--output", tmp_path / "a.json"], ["--output", tmp_path / "a.txt", "--format", "squad"]):
        assert run(["predict", answerer, "--input", source, *options]) == 0
        assert json.loads(options[1].read_text()) == {answer["id"]: answer["answer"] for answer in answers}


# Standard input and output


def test_standard_input_is_read_by_every_name(model):
    texts = b"great film\n\ndull film\n"
    outputs = {process(["predict", model, *how], input=texts).stdout for how in (["-"], ["--input", "-"], [])}
    (output,) = outputs
    assert [json.loads(line)["line"] for line in output.splitlines()] == [1, 2, 3]
    rows = b'{"text": "great film", "id": 5}\n'
    done = process(["predict", model, "-", "--input-format", "jsonl", "--keep", "id"], input=rows)
    assert json.loads(done.stdout)["id"] == 5


def test_answers_come_while_standard_input_is_still_open(model):
    with worker(["predict", model, "-"]) as running:
        for number in range(1, 4):
            running.stdin.write(b"great film\n")
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["line"] == number
        running.stdin.close()
        assert running.wait() == 0


def test_nothing_to_read_is_refused(model, capsys):
    done = process(["predict", model])
    assert done.returncode == 2
    assert b"expected texts on the command line, --input FILE, or - for standard input" in done.stderr


def test_output_to_a_device_or_to_dash_is_stdout(model, tmp_path):
    source = write(tmp_path / "in.txt", "great film\n")
    lines = {
        process(["predict", model, "--input", source, *how]).stdout
        for how in ([], ["--output", "-"], ["--output", "/dev/stdout"])
    }
    assert len(lines) == 1
    assert process(["predict", model, "--input", source, "--output", "/dev/null"]).returncode == 0
    assert not Path("/dev/null").is_file()


def test_a_reader_that_leaves_is_no_error(model, tmp_path):
    source = write(tmp_path / "in.txt", "great film\n" * 5000)
    for arguments in (["--input", source], ["-"]):
        with worker(["predict", model, *arguments]) as running:
            running.stdin.write(b"great film\n")
            running.stdin.flush()
            running.stdout.readline()
            running.stdout.close()
            running.stdin.write(b"great film\n")
            running.stdin.flush()
            message = running.stderr.read()
            assert running.wait() == 0, message
        assert b"Traceback" not in message
        assert b"Broken" not in message


# Files are safe


def test_an_output_is_never_an_input_nor_an_existing_file_unasked(model, tmp_path, capsys):
    source = write(tmp_path / "in.txt", "great film\n")
    (tmp_path / "soft.jsonl").symlink_to(source)
    os.link(source, tmp_path / "hard.jsonl")
    other = write(tmp_path / "other.jsonl", "years of work\n")
    for name in ("in.txt", "soft.jsonl", "hard.jsonl"):
        arguments = ["predict", model, "--input", source, "--output", tmp_path / name, "--overwrite"]
        assert "is also an input" in refused(capsys, arguments)
    arguments = ["predict", model, "--input", source, "--output", other]
    assert "exists already" in refused(capsys, arguments)
    assert (source.read_text(), other.read_text()) == ("great film\n", "years of work\n")
    (tmp_path / "link.jsonl").symlink_to(other)
    assert "exists already" in refused(capsys, [*arguments[:-1], tmp_path / "link.jsonl"])
    assert run([*arguments[:-1], tmp_path / "link.jsonl", "--overwrite"]) == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert json.loads(other.read_text())["label"]


def test_the_suffix_chooses_the_format(model, tmp_path, capsys):
    source = write(tmp_path / "in.txt", "great film\n")
    begins = {"a.jsonl": '{"line": 1', "a.csv": "line,text", "a.tsv": "line\ttext", "a.html": "<!doctype", "a.txt": "g"}
    for name, begin in (begins | {"a.json": "[\n{"}).items():
        assert run(["predict", model, "--input", source, "--output", tmp_path / name]) == 0
        assert (tmp_path / name).read_text().startswith(begin)
    assert run(["predict", model, "--input", source, "--output", tmp_path / "a.csv.gz"]) == 0
    with gzip.open(tmp_path / "a.csv.gz", "rt") as file:
        assert file.read() == (tmp_path / "a.csv").read_text()
    refusal = refused(capsys, ["predict", model, "--input", source, "--output", tmp_path / "a.xlsx"])
    assert "unknown suffix '.xlsx', expected one of .jsonl" in refusal
    assert run(["predict", model, "--input", source, "--output", tmp_path / "a.log", "--format", "csv"]) == 0


def test_what_was_computed_before_a_failure_is_kept_beside_the_output(model, tmp_path, capsys):
    write(tmp_path / "a.jsonl", '{"text": "great film", "id": 1}\n' * 5)
    write(tmp_path / "b.csv", "phrase,nr\ndull film,1\n")
    arguments = ["predict", model, "--input", tmp_path / "a.jsonl", "--input", tmp_path / "b.csv"]
    for suffix in ("jsonl", "csv", "parquet", "json"):
        out = tmp_path / f"out.{suffix}"
        capsys.readouterr()
        assert run([*arguments, "--output", out]) == 2
        message = capsys.readouterr().err
        assert "b.csv:" in message
        assert f"the predictions so far are in {out}.partial" in message
        assert not out.exists()
        partial = Path(f"{out}.partial")
        if suffix == "json":
            assert len(json.loads(partial.read_text())) == 5
        elif suffix == "parquet":
            assert len(pytest.importorskip("pyarrow.parquet").read_table(partial)) == 5
        else:
            assert len(partial.read_text().splitlines()) == 5 + (suffix == "csv")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".jsonl"] + [".partial"] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_keeps_its_answers_and_says_so(model, tmp_path, number):
    out = tmp_path / "out.jsonl"
    with worker(["predict", model, "-", "--output", out]) as running:
        running.stdin.write(b"great film\n" * 3)
        running.stdin.flush()
        while not list(tmp_path.glob(".out.jsonl.*")):
            time.sleep(0.05)
        time.sleep(2)
        running.send_signal(number)
        message = running.stderr.read()
        assert running.wait() == 130, message
    assert b"Traceback" not in message
    assert b"interrupted" in message
    partial = Path(f"{out}.partial")
    assert [json.loads(line)["line"] for line in partial.read_text().splitlines()] == [1, 2, 3]
    assert not out.exists()


# Encodings


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_console_of_another_encoding_is_no_traceback(model, tmp_path, encoding, monkeypatch):
    source = write(tmp_path / "in.jsonl", json.dumps({"text": "東京 😀 ≥ é", "id": "№ 5"}, ensure_ascii=False) + "\n")
    for format in ("jsonl", "json", "csv", "tsv", "text", "html"):
        written = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
        assert run(["predict", model, "--input", source, "--keep", "all", "--format", format]) == 0
        text = written.getvalue().decode("utf-8")
        if format in ("jsonl", "json"):
            found = json.loads(text)
            found = found[0] if format == "json" else found
            assert (found["text"], found["id"]) == ("東京 😀 ≥ é", "№ 5")
            assert json.loads(written.getvalue().decode(encoding)) == json.loads(text)
        else:
            assert "東京" in text
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    assert "東京" in process(["predict", model, "東京", "--format", "csv"], env=environment).stdout.decode("utf-8")


def test_texts_of_the_command_line_are_utf8_in_every_locale(model):
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = process(["predict", model, "東京", "--format", "csv"], env=environment)
    assert done.returncode == 0
    assert "東京" in done.stdout.decode("utf-8")


def test_a_page_or_table_of_formulas_and_escapes_is_harmless(model, tmp_path, capsys):
    rows = [{"text": text} for text in ("=1+1", "+5", "-5 degrees", "@a", "plain", "\x1b[2J")]
    source = write(tmp_path / "in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.csv"
    assert run(["predict", model, "--input", source, "--output", out, "--escape-formulas"]) == 0
    with out.open(newline="") as file:
        cells = [row["text"] for row in csv.DictReader(file)]
    assert cells == ["'=1+1", "'+5", "'-5 degrees", "'@a", "plain", "\x1b[2J"]


def test_text_on_a_terminal_has_its_width(model, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["predict", model, "a great film " * 20, "--format", "text"]) == 0
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert 30 < max(map(len, lines)) <= 40


# Options


def test_settings_of_the_task_can_be_given(model, capsys):
    long = "great film " * 100
    (whole,) = predicted(capsys, ["predict", model, long])
    (cut,) = predicted(capsys, ["predict", model, long, "--truncation"])
    (other,) = predicted(capsys, ["predict", model, long, "--max-length", "12", "--stride", "2"])
    assert whole["windows"] > 1
    assert (cut["windows"], cut["truncated"]) == (1, 200 - 14)
    assert other["windows"] > whole["windows"]
    (best,) = predicted(capsys, ["predict", model, "great film", "--top-k", "1"])
    assert list(best["scores"]) == [best["label"]]
    options = ["--task", "feature-extraction", "--pooling", "cls", "--normalize"]
    (vector,) = predicted(capsys, ["predict", model, "great film", *options])
    assert sum(number * number for number in vector["embedding"]) == pytest.approx(1.0)


def test_a_threshold_without_effect_is_refused(model, capsys):
    assert "--threshold is for multi-label" in refused(capsys, ["predict", model, "a", "--threshold", "0.3"])


def test_several_answers_are_given_if_asked_for(answerer, capsys):
    arguments = ["predict", answerer, "who?", "--pair", "Ann Lee met Bob Ray."]
    (answer,) = predicted(capsys, [*arguments, "--top-k", "3"])
    assert len(answer["answers"]) == 3


def test_a_text_that_begins_with_a_hyphen_needs_two_of_them(model, capsys):
    assert "put -- before a text that begins with -" in refused(capsys, ["predict", model, "-5 degrees, awful"])
    (answer,) = predicted(capsys, ["predict", model, "--", "-5 degrees, awful"])
    assert answer["label"]


def test_candidate_labels_are_needed_once_and_each_once(model, capsys):
    options = ["predict", model, "a", "--task", "zero-shot-classification"]
    assert "the label 'a' is given twice" in refused(capsys, [*options, "--candidate-labels", "a,b,a"])
    assert "found an empty label" in refused(capsys, [*options, "--candidate-labels", "a,,b"])


def test_errors_show_a_traceback_only_if_asked(model, capsys):
    refused(capsys, ["predict", model, "--input", "/nowhere.csv"])
    assert run(["predict", model, "--input", "/nowhere.csv", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_quiet_leaves_warnings(model, tmp_path, capsys):
    source = write(tmp_path / "in.txt", "great film\n\n")
    assert run(["predict", model, "--input", source, "--quiet"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "1 of 2 rows has an error"
