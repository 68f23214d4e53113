"""Claims about reading tables: what is written comes back, with its place, or a line says why not."""

import csv
import gc
import gzip
import io
import json
import lzma
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import DataError, MissingDependencyError, OptionError
from bothways.text.files import Row, find_column, find_optional_column, read_rows

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


class LikeADataset(list):
    def __init__(self, rows, **features):
        super().__init__(rows)
        self.features = features


def test_label_numbers_of_a_dataset_become_names():
    label = SimpleNamespace(names=["neg", "pos"])
    rows = [{"text": "a", "label": 1, "all": [0, 1], "n": 1}, {"text": "b", "label": -1, "all": [], "n": 0}]
    source = LikeADataset(rows, label=label, all=SimpleNamespace(feature=label), n=SimpleNamespace())
    assert values(source) == [
        {"text": "a", "label": "pos", "all": ["neg", "pos"], "n": 1},
        {"text": "b", "label": None, "all": [], "n": 0},
    ]
    with pytest.raises(DataError, match=r"^row 1: label 2 is not one of 0 to 1; correct it"):
        values(LikeADataset([{"label": 2}], label=label))


def test_rows_in_memory_must_be_mappings():
    with pytest.raises(DataError, match=r"^row 2: found str, expected a dict of columns$"):
        values([{"text": "a"}, "b"])


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
    with pytest.raises(DataError, match=r"^a\.csv: No such file or directory; expected a readable file, seen from"):
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
    with pytest.raises(MissingDependencyError, match=r"^a\.parquet: needs pyarrow: pip install 'bothways\[train\]'"):
        values(write("a.parquet", "PAR1"))


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
