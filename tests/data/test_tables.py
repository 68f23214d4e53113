"""Claims about reading tables: what is written comes back, with its place, or a line says why not."""

import csv
import gc
import gzip
import io
import json
import lzma
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data import tables as files
from bothways.data.tables import Columns, Row, find_column, find_optional_column, read_rows
from bothways.errors import DataError, MissingDependencyError, OptionError
from bothways.text import lines

ROWS = [{"text": "Füße, “ja”", "label": "pos"}, {"text": "nein 😀", "label": "neg"}]
TEXTS = {
    "csv": 'text,label\n"Füße, “ja”",pos\nnein 😀,neg\n',
    "tsv": "text\tlabel\nFüße, “ja”\tpos\nnein 😀\tneg\n",
    "tab": "text\tlabel\nFüße, “ja”\tpos\nnein 😀\tneg\n",
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "ndjson": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "json": json.dumps(ROWS, indent=1),
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}

no_break = st.text(st.characters(exclude_characters="\0\n\r\t", exclude_categories=["Cs"]))
any_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text("\",\n\r'é a")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the working directory, so that messages show the short name."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, content: str | bytes) -> str:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    return write_file


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def values(source, **options):
    return [row.values for row in read_rows(source, **options)]


def places(source, **options):
    return [row.where for row in read_rows(source, **options)]


def parquet_bytes(rows) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows), file)
    return file.getvalue()


# What is written comes back


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("kind", TEXTS)
def test_every_text_format_gives_the_same_rows(write, kind, packing):
    name = write(f"rows.{kind}{packing}", PACKERS[packing](TEXTS[kind].encode()))
    assert values(name) == values(Path(name)) == ROWS


@pytest.mark.parametrize("packing", PACKERS)
def test_parquet_gives_the_same_rows_and_numbers_them(write, packing):
    rows = [{"text": f"text {number}", "label": None, "many": [number]} for number in range(3000)]
    name = write(f"rows.parquet{packing}", PACKERS[packing](parquet_bytes(rows)))
    assert values(name) == rows
    assert places(name)[-1] == f"rows.parquet{packing}: row 3000"


@pytest.mark.parametrize("kind", TEXTS)
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(write, kind):
    content = b"\xef\xbb\xbf" + TEXTS[kind].replace("\n", "\r\n").encode()
    assert values(write(f"rows.{kind}", content)) == ROWS


def test_plain_text_is_one_text_a_line_without_the_blank_ones(write):
    rows = list(read_rows(write("rows.txt", "  one\u2028still one \r\n\n \t\ntwo")))
    assert rows == [Row({"text": "  one\u2028still one "}, "rows.txt:1"), Row({"text": "two"}, "rows.txt:4")]


@given(st.lists(st.tuples(any_text, any_text), min_size=1))
def test_what_csv_writer_writes_comes_back_with_the_line_where_it_begins(scratch, records):
    text, begins = "text,label\r\n", []
    for record in records:
        begins.append(text.count("\n") + 1)
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerow(record)
        text += buffer.getvalue()
    path = scratch / "written.csv"
    path.write_bytes(text.encode())
    assert [tuple(row) for row in map(dict.values, values(path))] == records
    assert places(path) == [f"{path}:{line}" for line in begins]


@given(st.lists(st.tuples(no_break, no_break), min_size=1))
def test_in_tsv_quotes_have_no_meaning(scratch, records):
    path = scratch / "written.tsv"
    path.write_bytes("".join(f'"text\tlabel"\n{text}\t{label}\n' for text, label in records).encode())
    rows = [tuple(row.values()) for row in values(path, header=False)]
    assert rows[1::2] == records
    assert rows[0] == ('"text', 'label"')


@given(st.lists(st.dictionaries(any_text, any_text | st.none() | st.integers()), min_size=1), st.booleans())
def test_json_lines_come_back(scratch, objects, ascii_only):
    path = scratch / "written.jsonl"
    path.write_bytes("\n".join(json.dumps(one, ensure_ascii=ascii_only) for one in objects).encode())
    assert values(path) == objects
    assert places(path) == [f"{path}:{line}" for line in range(1, len(objects) + 1)]


def test_json_lines_may_miss_keys_and_be_blank(write):
    name = write("rows.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b"}\n')
    assert values(name) == [{"text": "a", "label": 1}, {"text": "b"}]
    assert places(name) == ["rows.jsonl:1", "rows.jsonl:3"]


@pytest.mark.parametrize(("kind", "comma"), [("csv", ","), ("tsv", "\t")])
def test_without_a_header_columns_are_numbers(write, kind, comma):
    name = write(f"rows.{kind}", f"a{comma}b\n\nc{comma}\n")
    assert list(read_rows(name, header=False)) == [
        Row({"0": "a", "1": "b"}, f"rows.{kind}:1"),
        Row({"0": "c", "1": ""}, f"rows.{kind}:3"),
    ]


def test_a_long_csv_field_is_read_and_the_limit_of_the_process_kept(write):
    limit = csv.field_size_limit()
    rows = read_rows(write("rows.csv", "text,label\n" + "x" * (limit + 1) + ",a\ny,b\n"))
    assert len(next(rows).values["text"]) == limit + 1
    assert csv.field_size_limit() == limit
    assert len(list(rows)) == 1
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt"])
def test_the_first_row_comes_before_the_rest_is_read(write, kind):
    line = b'{"text": "a"}\n' if kind == "jsonl" else b"text\n"
    rows = read_rows(write(f"rows.{kind}", line * 50_000 + b"\xff\n"))
    assert next(rows).values
    with pytest.raises(DataError, match=rf"^rows\.{kind}:50001: byte 0xff is not UTF-8; save"):
        list(rows)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_reading_that_is_given_up_leaves_no_file_open(write, kind):
    rows = read_rows(write(f"rows.{kind}", TEXTS[kind]))
    next(rows)
    del rows
    gc.collect()  # an open file would be a ResourceWarning, and so an error


# Rows in memory


def test_mappings_in_memory_are_rows():
    assert list(read_rows(iter(ROWS))) == [Row(ROWS[0], "row 1"), Row(ROWS[1], "row 2")]
    assert values([{0: "a", 1: "b"}]) == [{"0": "a", "1": "b"}]


# Finding columns


def test_the_wanted_column_is_taken_and_must_exist():
    choice = {"usual": ["text"], "purpose": "text", "where": "a.csv:1"}
    assert find_column(["text", "body"], wanted="body", **choice) == "body"
    for find in (find_column, find_optional_column):
        with pytest.raises(DataError, match=r"^a\.csv:1: no column 'Body' for the text; choose from 'text', 'b"):
            find(["text", "body"], wanted="Body", **choice)


def test_usual_names_are_tried_in_their_order_in_any_case():
    choice = {"wanted": None, "usual": ["text", "sentence"], "purpose": "text", "where": "a.csv:1"}
    assert find_column(["Sentence", "TEXT"], **choice) == "TEXT"
    assert find_column(["Text", "text"], **choice) == "text"
    assert find_optional_column(["id", " Sentence"], **choice) == " Sentence"
    assert find_optional_column(["id"], **choice) is None
    message = r"^a\.csv:1: found the columns 'id', 'body', expected one of 'text', 'sentence' for the text: rename"
    with pytest.raises(DataError, match=message):
        find_column(["id", "body"], **choice)


# Bad input

BAD_FILES = {
    "no rows, csv": ("a.csv", "", r"^a\.csv: no rows; expected at least one example"),
    "no rows, only a mark": ("a.csv", b"\xef\xbb\xbf", r"^a\.csv: no rows; expected"),
    "no rows, header": ("a.csv", "text,label\n", r"^a\.csv: no rows; expected"),
    "no rows, tsv header": ("a.tsv", "text\tlabel\n", r"^a\.tsv: no rows; expected"),
    "no rows, jsonl": ("a.jsonl", "\n \n", r"^a\.jsonl: no rows; expected"),
    "no rows, json": ("a.json", "", r"^a\.json: no rows; expected"),
    "no rows, empty list": ("a.json", "[]", r"^a\.json: no rows; expected"),
    "no rows, txt": ("a.txt", "\n", r"^a\.txt: no rows; expected"),
    "no rows, gz": ("a.csv.gz", gzip.compress(b""), r"^a\.csv\.gz: no rows; expected"),
    "suffix": (
        "a.xlsx",
        "x",
        r"^a\.xlsx: unknown suffix '\.xlsx'; expected one of \.csv, .*\.parquet, or one",
    ),
    "suffix under gz": ("a.doc.gz", "x", r"^a\.doc\.gz: unknown suffix '\.doc'; expected one of"),
    "old Mac line ends, txt": ("a.txt", "one\rtwo\r", r"^a\.txt:1: the lines end with CR; end them with LF"),
    "old Mac line ends, tsv": ("a.tsv", "text\tlabel\ra\tx", r"^a\.tsv:1: the lines end with CR; end them with LF"),
    "utf-16, other order": ("a.txt", "text".encode("utf-16-be").join([b"\xfe\xff", b""]), r"^a\.txt:1: found UTF-16"),
    "csv called tsv": ("a.tsv", "text,label\na,x\n", r"^a\.tsv:1: found one column 'text,label', expected tabs .*','"),
    "row wider than a header with semicolons": (
        "a.csv",
        "text;label\na;b;c\n",
        r"^a\.csv:2: found 3 columns, expected 2 \('text', 'label'\); in CSV quote a text that holds a semicolon",
    ),
    "same name in another form": ("a.csv", "text,text\u00a0\na,b\n", r"^a\.csv:1: two columns of the same name"),
    "deep JSON": ("a.jsonl", '{"a":' + "[" * 200 + "]" * 200 + "}", r"^a\.jsonl:1: broken JSON \(nested deeper than"),
    "null character in the name": ("a\0.csv", None, r"^'a\\x00\.csv': not a path"),
    "no suffix": ("a", "x", r"^a: unknown suffix ''; expected one of \.csv"),
    "latin-1": (
        "a.csv",
        b"text\nok\ncaf\xe9\n",
        r"^a\.csv:3: byte 0xe9 is not UTF-8; save the file as UTF-8",
    ),
    "utf-16": ("a.csv", "text\na".encode("utf-16"), r"^a\.csv:1: found UTF-16, expected UTF-8; save the file"),
    "nul, csv": ("a.csv", "text\na\0\0b\n", r"^a\.csv:2: mostly NUL bytes"),
    "nul, utf-16 without mark": (
        "a.tsv",
        "text\na".encode("utf-16-le"),
        r"^a\.tsv:1: mostly NUL bytes.*save the file as UTF-8",
    ),
    "ragged csv": (
        "a.csv",
        'text,label\n"a\nb",x\nc, d,x\n',
        r"^a\.csv:4: found 3 columns, expected 2 \('text', 'label'\); in CSV quote a text that holds a comma",
    ),
    "ragged tsv": (
        "a.tsv",
        "text\tlabel\na\n",
        r"^a\.tsv:2: found 1 columns, expected 2 \('text', 'label'\)",
    ),
    "open quote": (
        "a.csv",
        'text,label\na,x\n"b,x\nc,x\n',
        r"^a\.csv:3: the record that begins here is not CSV \(unexpected end of data\); close every quote",
    ),
    "quote inside quotes": (
        "a.csv",
        'text\n"a "b" c"\n',
        r"^a\.csv:2: the record .*; close every quote, double",
    ),
    "old Mac line ends": (
        "a.csv",
        "text,label\ra,x\r",
        r"^a\.csv:1: .*new-line character.*end lines with LF",
    ),
    "field without end": (
        "a.csv",
        'text\n"' + "x" * (2**24 + 1),
        r"^a\.csv:2: the line is longer than 16,777,216 bytes; end lines with LF or CRLF$",
    ),
    "column without name": (
        "a.csv",
        ",text\n0,a\n",
        r"^a\.csv:1: a column without a name in the header \('', 'text'\); name it or drop it \(pandas",
    ),
    "same name twice": (
        "a.tsv",
        "text\ttext\na\tb\n",
        r"^a\.tsv:1: two columns of the same name in the header \('text', 'text'\); rename one",
    ),
    "broken JSON line": (
        "a.jsonl",
        '{"text": "a"}\n{"text": "b"\n',
        r"^a\.jsonl:2: broken JSON \(Expecting ',' delimiter at column 13\); write one object a line",
    ),
    "line is no object": ("a.jsonl", '["a"]\n', r"^a\.jsonl:1: found list, expected an object such as"),
    "half a surrogate pair": (
        "a.jsonl",
        r'{"text": "\ud83d"}',
        r"^a\.jsonl:1: broken JSON .*surrogates not allowed",
    ),
    "endless nesting": ("a.jsonl", "[" * 100_000, r"^a\.jsonl:1: broken JSON \(maximum recursion depth"),
    "JSON lines called .json": (
        "a.json",
        '{"text": "a"}\n{"text": "b"}\n',
        r"^a\.json:2: broken JSON \(Extra data at column 1\); write one object a line in \.jsonl, one list",
    ),
    "JSON object": (
        "a.json",
        '{"train": []}',
        r"^a\.json:1: found dict \{'train': \[\]\}, expected one list of",
    ),
    "list of texts": ("a.json", '[{"text": "a"}, "b"]', r"^a\.json: row 2: found str, expected an object"),
    "not gzip": (
        "a.csv.gz",
        "text\na\n",
        r"^a\.csv\.gz: damaged or cut off \(Not a gzipped file.*; fetch or",
    ),
    "cut gzip": (
        "a.csv.gz",
        gzip.compress(b"text\na\n")[:-9],
        r"^a\.csv\.gz: damaged or cut off \(Compressed",
    ),
    "changed gzip": (
        "a.csv.gz",
        gzip.compress(b"text\na\n")[:-8] + b"12345678",
        r"^a\.csv\.gz: damaged or cut off \(CRC check failed",
    ),
    "not deflate": (
        "a.csv.gz",
        gzip.compress(b"")[:10] + b"\xff" * 20,
        r"^a\.csv\.gz: damaged .*invalid block",
    ),
    "not xz": ("a.csv.xz", "text\na\n", r"^a\.csv\.xz: damaged or cut off \(Input format not supported"),
    "cut xz": ("a.jsonl.xz", lzma.compress(b"{}\n")[:-4], r"^a\.jsonl\.xz: damaged or cut off \(Compressed"),
    "empty xz": ("a.txt.xz", "", r"^a\.txt\.xz: damaged or cut off \(Compressed file ended"),
    "not parquet": (
        "a.parquet",
        "x" * 100,
        r"^a\.parquet: broken Parquet after row 0 \(.*\); write it again",
    ),
    "empty parquet": ("a.parquet", "", r"^a\.parquet: broken Parquet after row 0 \(.*\); write it again"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_wrong_with_a_file_is_said_in_one_plain_line(write, name, content, message):
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=message) as caught:
        values(name if content is None else write(name, content))
    assert "\n" not in str(caught.value)


def test_a_wrong_path_is_an_error_before_the_first_row(write, tmp_path):
    with pytest.raises(
        DataError, match=r"^a\.csv: No such file or directory; expected a readable file \(current directory: "
    ):
        read_rows("a.csv")
    with pytest.raises(DataError, match=r": Is a directory; expected a readable file"):
        read_rows(tmp_path)
    with pytest.raises(DataError, match=r": File name too long; expected a readable file"):
        read_rows("a text instead of a path " * 200)


def test_a_file_that_may_not_be_read_is_named(write, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", path)

    name = write("a.csv", TEXTS["csv"])
    monkeypatch.setattr("builtins.open", refuse)  # root, as in containers, may read everything
    with pytest.raises(DataError, match=r"^a\.csv: Permission denied; expected a readable file"):
        read_rows(name)


def test_no_rows_in_memory_is_an_error():
    with pytest.raises(DataError, match=r"^the data in memory: no rows; expected at least one example"):
        values([])


def test_only_tables_have_a_header_to_leave_out(write):
    name = write("a.jsonl", TEXTS["jsonl"])
    with pytest.raises(OptionError, match=r"^a\.jsonl: --no-header \(header=False\) is for \.csv, \.tsv, \.tab only"):
        read_rows(name, header=False)


def test_damaged_parquet_pages_are_an_error(write):
    content = bytearray(parquet_bytes([{"text": f"text {number}"} for number in range(1000)]))
    content[4:400] = bytes(396)
    with pytest.raises(DataError, match=r"^a\.parquet: broken Parquet after row 0 \(.+\); write it again"):
        values(write("a.parquet", content))
    with pytest.raises(DataError, match=r"^b\.parquet: no rows; expected"):
        values(write("b.parquet", parquet_bytes([])))


def test_parquet_without_pyarrow_names_the_command(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r"^a\.parquet: needs pyarrow: pip install 'bothways\[parquet\]'"):
        values(write("a.parquet", "PAR1"))


# Rows to predict: one for each line, with its own error if it cannot be read


def answers(source, **options):
    return [(row.number, row.values, row.error) for row in read_rows(source, strict=False, **options)]


def test_a_blank_line_is_a_row_if_a_line_is_a_text(write):
    blank = [(1, {"text": "a"}, None), (2, {"text": ""}, None), (3, {"text": " "}, None), (4, {"text": "b"}, None)]
    assert answers(write("a.txt", "a\n\n \r\nb")) == blank
    for kind in ("csv", "tsv"):
        rows = answers(write(f"a.{kind}", "text\na\n\nb\n\n"))
        assert rows == [
            (2, {"text": "a"}, None),
            (3, {"text": ""}, None),
            (4, {"text": "b"}, None),
            (5, {"text": ""}, None),
        ]
        rows = answers(write(f"b.{kind}", "\na\n\nb\n"), header=False)
        assert rows == [(1, {"0": ""}, None), (2, {"0": "a"}, None), (3, {"0": ""}, None), (4, {"0": "b"}, None)]
        assert [row[0] for row in answers(write(f"c.{kind}", "\n\n"), header=False)] == [1, 2]
    assert [row[0] for row in answers(write("d.csv", "text,label\na,x\n\nb,y\n"))] == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "numbers", "message"),
    [
        ("a.txt", b"one\n\xff\nthree\n", [1, 3], "byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a.txt", b"one\n\0\0a\nthree\n", [1, 3], "mostly NUL bytes, as in UTF-16"),
        ("a.tsv", b"id\ttext\n1\ta\n2\n3\tc\n", [2, 4], "found 1 columns, expected 2 ('id', 'text'); in TSV, remove"),
        ("a.tsv", b"id\ttext\n1\ta\n2\t\xe9\n3\tc\n", [2, 4], "byte 0xe9 is not UTF-8"),
        ("a.csv", b"id,text\n1,a\n2,b,c\n3,c\n", [2, 4], "found 3 columns, expected 2 ('id', 'text'); in CSV quote"),
        ("a.csv", b'id,text\n1,a\n2,"a "b" c"\n3,c\n', [2, 4], "the record that begins here is not CSV"),
        ("a.csv", b'id,text\n1,a\n2,"\xe9\nmore"\n3,c\n', [2, 5], "byte 0xe9 is not UTF-8"),
        ("a.csv", b'id,text\n1,a\n2,"x\n\xe9more"\n3,c\n', [2, 5], "byte 0xe9 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n{"text": "c"}\n', [1, 3], "broken JSON (Expecting value at column 10)"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n{"text": "c"}\n', [1, 3], "found list, expected an object such as"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n{"text": "c"}\n', [1, 3], "byte 0xe9 is not UTF-8"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"a":' + b"[" * 150 + b"]" * 150 + b"}\n{}\n",
            [1, 3],
            "broken JSON (nested deeper",
        ),
        ("a.json", b'[{"text": "a"}, 5, {"text": "c"}]', [1, 3], "found int, expected an object such as"),
        ("a.txt", b"one\n" + b"x" * (2**24 + 1) + b"\nthree\n", [1, 3], "the line is longer than 16,777,216 bytes"),
    ],
)
def test_a_row_that_cannot_be_read_has_an_error_and_the_next_one_is_read(write, name, content, numbers, message):
    rows = answers(write(name, content))
    (error,) = [error for _, _, error in rows if error is not None]
    assert error.startswith(message)
    assert ":" not in error[: len("a.jsonl:2:")]  # the place is in the number
    assert [number for number, _, error in rows if error is None] == numbers
    assert len(rows) == 3


def test_a_quote_that_is_never_closed_ends_the_reading_after_the_rows_before_it(write):
    rows = read_rows(write("a.csv", 'id,text\n1,a\n2,"b\n3,c\n4,d\n'), strict=False)
    assert next(rows).values == {"id": "1", "text": "a"}
    with pytest.raises(DataError, match=r"^a\.csv:3: the record that begins here is not CSV \(unexpected end of data"):
        next(rows)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt", "a.json", "a.csv.gz"])
def test_an_empty_file_to_predict_is_an_empty_input(write, name):
    assert answers(write(name, gzip.compress(b"") if name.endswith("gz") else b"")) == []
    if name in ("a.csv", "a.tsv"):
        assert answers(write(name, b"text\n")) == []


class Endless(io.RawIOBase):
    """Lines for ever."""

    def __init__(self, line: bytes) -> None:
        self.line, self.given = line, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        count = len(buffer) // len(self.line) or 1
        part = (self.line * count)[: len(buffer)]
        buffer[: len(part)] = part
        self.given += len(part)
        return len(part)


@pytest.fixture
def stdin(monkeypatch):
    """Sets what standard input holds."""

    def give(content: bytes | io.RawIOBase) -> io.RawIOBase:
        raw = io.BytesIO(content) if isinstance(content, bytes) else content
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(raw)))
        return raw

    return give


@pytest.mark.parametrize(
    ("kind", "line"), [("txt", b"text \n"), ("csv", b'a,"b"\n'), ("tsv", b"a\tb\n"), ("jsonl", b'{"text": "a"}\n')]
)
def test_standard_input_is_read_as_rows_are_needed(stdin, kind, line):
    endless = stdin(Endless(line))
    rows = read_rows("-", format=kind, strict=False, header=kind not in ("csv", "tsv"))
    assert [next(rows).number for _ in range(3)] == [1, 2, 3]
    assert endless.given <= 2 * io.DEFAULT_BUFFER_SIZE


@pytest.mark.parametrize("packing", PACKERS)
def test_standard_input_holds_any_format_packed_or_not(stdin, packing):
    for kind, text in TEXTS.items():
        stdin(PACKERS[packing](text.encode()))
        name = {"tab": "tsv", "ndjson": "jsonl"}.get(kind, kind)
        assert values("-", format=name) == ROWS
    stdin(PACKERS[packing](parquet_bytes(ROWS)))
    assert values("-", format="parquet") == ROWS
    stdin(PACKERS[packing](b"a text, not a table\nb; c\n"))
    assert values("-") == [{"text": "a text, not a table"}, {"text": "b; c"}]
    stdin(b"\xff")
    with pytest.raises(DataError, match=r"^standard input:1: byte 0xff is not UTF-8"):
        values("-")
    stdin(b"")
    assert answers("-") == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [("id,text\n", "csv"), ("label;text\n", "csv"), ("text\tid\n", "tsv"), ('{"text": "a"}\n', "jsonl")],
)
def test_standard_input_that_looks_like_a_table_is_not_read_as_texts(stdin, content, kind):
    stdin(content.encode())
    with pytest.raises(DataError, match=rf"^standard input:1: found .*, which looks like {kind}; name the format"):
        answers("-")
    stdin(content.encode())
    assert answers("-", format="txt") == [(1, {"text": content.rstrip()}, None)]


def test_a_pipe_is_opened_once(write):
    os.mkfifo("pipe")
    os.mkfifo("pipe.csv")
    for name, content, expected in (("pipe", b"a\n", {"text": "a"}), ("pipe.csv", b"x,y\n1,2\n", {"x": "1", "y": "2"})):
        writer = threading.Thread(target=Path(name).write_bytes, args=(content,))
        writer.start()
        assert values(name) == [expected]
        writer.join()


def test_a_format_that_is_named_counts_more_than_the_suffix(write):
    assert values(write("data.txt", TEXTS["tsv"]), format="tsv") == ROWS
    assert values(write("data", TEXTS["csv"]), format="csv") == ROWS
    assert values(write("data.csv", gzip.compress(TEXTS["csv"].encode()))) == ROWS  # packed, whatever it is called
    with pytest.raises(OptionError, match=r"^data: the format conll is for the task tag"):
        read_rows("data", format="conll")
    with pytest.raises(OptionError, match=r"^data: a delimiter is for the format csv, found jsonl"):
        read_rows("data", format="jsonl", delimiter=";")


def test_a_packed_file_that_becomes_absurdly_large_is_refused(write, monkeypatch):
    monkeypatch.setattr(lines, "LARGEST_UNPACKED", 2**16)
    bomb = b"a line of text\n" * 200_000
    for packing in (".gz", ".xz"):
        name = write(f"a.txt{packing}", PACKERS[packing](bomb))
        monkeypatch.setattr(lines, "LARGEST_RATIO", 10)
        with pytest.raises(DataError, match=rf"^a\.txt\{packing}: it unpacks to more than [0-9,]+ bytes, 10 times its"):
            values(name)
        monkeypatch.setattr(lines, "LARGEST_RATIO", 10_000)
        assert len(values(name)) == 200_000
    monkeypatch.setattr(files, "LARGEST_WHOLE", 100)
    with pytest.raises(
        DataError, match=r"^a\.json: more than 100 bytes, too large to be read whole; write it as \.jsonl"
    ):
        values(write("a.json", json.dumps(ROWS * 10)))


# Delimiters


@pytest.mark.parametrize("mark", [";", "|", "\t"])
def test_other_delimiters_are_found(write, mark):
    text = f'text{mark}label\n"Füße{mark} “ja”, doch"{mark}pos\nnein, 😀{mark}neg\n'
    rows = [{"text": f"Füße{mark} “ja”, doch", "label": "pos"}, {"text": "nein, 😀", "label": "neg"}]
    name = write("a.csv", text)
    assert values(name) == values(write("b.csv", "\n" + text)) == values(name, delimiter=mark) == rows
    assert values(write("c.csv", f"sep={mark}\r\n{text}")) == rows
    assert places(name) == ["a.csv:2", "a.csv:3"]
    assert places("c.csv") == ["c.csv:3", "c.csv:4"]
    without = [tuple(row.values()) for row in values(name, header=False)]
    assert without == [("text", "label"), *(tuple(row.values()) for row in rows)]


def test_without_a_header_what_may_be_a_text_or_columns_must_be_said(write):
    name = write("a.csv", "great film;good\ndull film;bad\n")
    with pytest.raises(DataError, match=r"^a\.csv:1: found no comma, but ';' in every line; say what separates"):
        answers(name, header=False)
    assert values(name, header=False, delimiter=";")[0] == {"0": "great film", "1": "good"}
    assert values(name, header=False, delimiter=",")[0] == {"0": "great film;good"}


def test_a_semicolon_within_a_text_is_no_delimiter(write):
    assert values(write("a.csv", "text,label\na; b,x\n")) == [{"text": "a; b", "label": "x"}]
    assert values(write("a.csv", "text\na; b\n")) == [{"text": "a; b"}]
    assert values(write("a.csv", "a; b,x\nc,y\n"), header=False) == [{"0": "a; b", "1": "x"}, {"0": "c", "1": "y"}]
    assert values(write("a.csv", "a; b\nc\n"), header=False) == [{"0": "a; b"}, {"0": "c"}]


def test_quoted_cells_of_tsv_are_kept_and_noted_once(write, caplog):
    name = write("a.tsv", 'text\tlabel\n"He said ""hi"""\tx\n"a ""b"""\ty\n')
    assert values(name)[0] == {"text": '"He said ""hi"""', "label": "x"}
    (record,) = caplog.records
    assert record.getMessage().startswith("a.tsv:2: a cell is in quotes, with doubled quotes inside; in TSV quotes are")
    assert values(name, format="csv", delimiter="\t")[0] == {"text": 'He said "hi"', "label": "x"}
    caplog.clear()
    values(write("b.tsv", 'text\n"a "b" c"\n"a"\n""\n"""\n'))
    assert not caplog.records


# How columns are named


def test_columns_take_numbers_and_sequences():
    made = Columns(text_column=0, label_column=1, label_names=["arts, culture", "news"], delimiter="\\t")
    assert (made.text_column, made.label_column, made.names()) == ("0", "1", ("arts, culture", "news"))
    assert made.delimiter == "\t"
    assert Columns(label_names='"arts, culture",news').names() == made.names()
    assert Columns(label_names="neg, pos").names() == ("neg", "pos")
    assert Columns().names() == ()
    assert Columns(label_names=json.loads(json.dumps(asdict(made)))["label_names"]) == Columns(label_names=made.names())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_names": "a,b,a"}, r"^label_names is 'a', 'b', 'a', expected different names, none of them empty"),
        ({"label_names": "a,,b"}, "none of them empty"),
        ({"label_names": ["e\u0301", "\u00e9"]}, "expected different names"),
        ({"separator": ""}, "^separator is empty"),
        ({"delimiter": "::"}, "^delimiter is '::', expected one character"),
        ({"kind": "multilabel"}, "^kind is 'multilabel', expected one of single, multi, regression"),
        ({"format": "xlsx"}, "^format is 'xlsx', expected one of csv, tsv"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(OptionError, match=message):
        Columns(**settings)


def test_space_and_invisible_characters_in_a_header_do_not_hide_a_column(write):
    columns = list(values(write("a.csv", "id, \u200btext\u00a0,label\n1,a,x\n"))[0])
    assert find_column(columns, wanted=None, usual=["text"], purpose="text", where="a.csv") == columns[1]
    assert find_column(columns, wanted="text", usual=[], purpose="text", where="a.csv") == columns[1]


# Real files

REAL_FILES = {
    "banking77/train.csv": (True, 10_003, ["text", "category"]),
    "sst2/train.tsv": (True, 67_348, ["sentence", "label"]),
    "stsb/train.tsv": (True, 5_732, ["genre", "file", "year", "id", "score", "sentence1", "sentence2"]),
    "trec/train.tsv": (True, 5_452, ["text", "label"]),
    "goemotions/dev.tsv": (False, 5_426, ["0", "1", "2"]),
    "cola/train.tsv": (False, 8_551, ["0", "1", "2", "3"]),
    "imdb/train.jsonl.xz": (True, 25_000, ["text", "label"]),
    "nli/train.jsonl.xz": (True, 78_131, ["premise", "hypothesis", "label", "source"]),
    "nli/dev.jsonl": (True, 7_361, ["premise", "hypothesis", "label", "source"]),
}


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_have_the_rows_they_should(shared_data, name):
    header, count, columns = REAL_FILES[name]
    found = 0
    for row in read_rows(shared_data / name, header=header):
        found += 1
        assert list(row.values) == columns
    assert found == count
