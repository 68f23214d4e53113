"""Tables of examples from CSV, TSV, JSON, Parquet, plain text or memory: row by row, each with its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import reprlib
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import IO, Any, Literal

from bothways.errors import DataError, MissingDependencyError, OptionError
from bothways.options import option

Source = str | Path | Iterable[Mapping[str, Any]]
Record = tuple[int, list[str]]  # the line where it begins, its cells

# Without a bound, a quote that is never closed would take the rest of the file into memory.
LONGEST_CSV_FIELD = 2**24
CSV_LIMIT_LOCK = threading.Lock()
ROWS_PER_PARQUET_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One record: its values by column name, and its place for messages; lines and rows count from 1."""

    values: dict[str, Any]
    where: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what, where the usual names do not say, and how labels are written."""

    text_column: str | None = option(None, "Column of the text (for pairs, of the first).")
    pair_column: str | None = option(None, "Column of the second text.")
    label_column: str | None = option(None, "Column of the label.")
    separator: str | None = option(None, "What stands between several labels in one cell (multi-label).")
    kind: Literal["single", "multi", "regression"] | None = option(None, "What the labels are, if it is not plain.")
    label_names: str | None = option(None, "Names, with commas between, of labels written as numbers from 0.")
    header: bool = option(True, "Whether CSV and TSV begin with names; without, columns are called 0, 1, ...")


def read_rows(source: Source, *, header: bool = True) -> Iterator[Row]:
    """The rows of a file (kinds: `TABLES` and `RECORDS`; also .gz and .xz) or of an iterable of mappings.

    `header=False` names the columns of CSV and TSV "0", "1", ... Blank lines are skipped. Raises
    `DataError` where a row cannot be read, and where there is none at all.

    >>> next(read_rows([{"text": "good", "label": "pos"}]))
    Row(values={'text': 'good', 'label': 'pos'}, where='row 1')
    """
    if not isinstance(source, str | Path):
        return _at_least_one(_memory_rows(source), "the data in memory")
    name, path = str(source), Path(source)
    with opened(name):  # so that a wrong path is an error here, not at the first row
        suffix = (path.with_suffix("") if path.suffix.lower() in UNPACK else path).suffix.lower()
    if suffix in TABLES:
        return _at_least_one(_table_rows(TABLES[suffix](name), name, header=header), name)
    if suffix not in RECORDS:
        known = ", ".join([*TABLES, *RECORDS])
        raise DataError(f"{name}: unknown suffix {suffix!r}; expected one of {known}, or one of them with .gz or .xz")
    if not header:
        raise OptionError(
            f"{name}: --no-header (header=False) is for {', '.join(TABLES)} only; leave it out for {suffix}"
        )
    return _at_least_one(RECORDS[suffix](name), name)


def find_column(available: Sequence[str], *, wanted: str | None, usual: Sequence[str], purpose: str, where: str) -> str:
    """The column for a purpose: `wanted` if given, else the first of `usual` that is there.

    >>> find_column(["id", "Text"], wanted=None, usual=["text", "sentence"], purpose="text", where="a.csv")
    'Text'
    """
    column = find_optional_column(available, wanted=wanted, usual=usual, purpose=purpose, where=where)
    if column is None:
        raise DataError(
            f"{where}: found the columns {_listed(available)}, expected one of {_listed(usual)} for the "
            f"{purpose}: rename a column, or name one with the option"
        )
    return column


def find_optional_column(
    available: Sequence[str], *, wanted: str | None, usual: Sequence[str], purpose: str, where: str
) -> str | None:
    """As `find_column`, but None where no column was wanted and none of the usual ones is there."""
    if wanted is not None:
        if wanted not in available:
            raise DataError(f"{where}: no column {wanted!r} for the {purpose}; choose from {_listed(available)}")
        return wanted
    for name in usual:
        for column in (name, *available):
            if column in available and column.strip().casefold() == name.casefold():
                return column
    return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "(none)"


def _at_least_one(rows: Iterator[Row], name: str) -> Iterator[Row]:
    row = None
    for row in rows:
        yield row
    if row is None:
        raise DataError(f"{name}: no rows; expected at least one example (below the header, if it has one)")


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked; what is wrong with it as a `DataError`."""
    unpack = UNPACK.get(Path(name).suffix.lower(), open)
    try:
        with unpack(name, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as problem:
        raise DataError(f"{name}: damaged or cut off ({problem}); fetch or compress it again") from problem
    except OSError as problem:
        reason = problem.strerror or problem
        raise DataError(f"{name}: {reason}; expected a readable file, seen from {Path.cwd()}") from problem


def numbered_lines(name: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their ends, counted from 1."""
    # Read as bytes: only so is the line of a bad byte known, and only LF ends a line, as editors count.
    with opened(name) as file:
        for line, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as problem:
                found = f"byte 0x{raw[problem.start]:02x}"
                raise DataError(f"{name}:{line}: {found} is not UTF-8; save the file as UTF-8") from problem
            if 4 * text.count("\0") > len(text):  # a few in a text do no harm
                raise DataError(f"{name}:{line}: mostly NUL bytes, as in UTF-16; save the file as UTF-8")
            yield line, text


def _csv_records(name: str) -> Iterator[Record]:
    # If not strict, the csv module reads `"a" b` as `a b`, and an open quote to the end, without a word.
    reader = csv.reader((text for _, text in numbered_lines(name)), strict=True)
    cells: list[str] | None = []
    while cells is not None:
        line = reader.line_num + 1
        with CSV_LIMIT_LOCK:  # the limit belongs to the whole process
            limit = csv.field_size_limit(LONGEST_CSV_FIELD)
            try:
                cells = next(reader, None)
            except csv.Error as problem:
                reason = str(problem).partition(" - ")[0]
                raise DataError(
                    f"{name}:{line}: the record that begins here is not CSV ({reason}); close every quote, "
                    "double quotes inside quotes, and end lines with LF or CRLF"
                ) from problem
            finally:
                csv.field_size_limit(limit)
        if cells:
            yield line, cells


def _tsv_records(name: str) -> Iterator[Record]:
    return ((line, bare.split("\t")) for line, text in numbered_lines(name) if (bare := without_end(text)))


def without_end(text: str) -> str:
    """A line without its end."""
    return text.removesuffix("\n").removesuffix("\r")


def _table_rows(records: Iterator[Record], name: str, *, header: bool) -> Iterator[Row]:
    columns: list[str] = []
    for line, cells in records:
        where = f"{name}:{line}"
        if not columns:
            columns = cells if header else [str(index) for index in range(len(cells))]
            _check_columns(columns, where)
            if header:
                continue
        if len(cells) != len(columns):
            raise DataError(
                f"{where}: found {len(cells)} columns, expected {len(columns)} ({_listed(columns)}); "
                "in CSV quote a text that holds a comma, in TSV take tabs out of texts"
            )
        yield Row(dict(zip(columns, cells, strict=True)), where)


def _check_columns(columns: Sequence[str], where: str) -> None:
    if not all(column.strip() for column in columns):
        advice = "name it or drop it (pandas: to_csv(..., index=False))"
        raise DataError(f"{where}: a column without a name in the header ({_listed(columns)}); {advice}")
    if len(set(columns)) < len(columns):
        raise DataError(f"{where}: two columns of the same name in the header ({_listed(columns)}); rename one")


def parse_json(text: str, name: str, line: int) -> Any:
    """The value of a JSON text that begins at a line of a file."""
    try:
        value = json.loads(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            # Half of a surrogate pair parses, but is no character and would stop the tokenizer later.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        reason = str(problem)
        if isinstance(problem, json.JSONDecodeError):
            line, reason = line + problem.lineno - 1, f"{problem.msg} at column {problem.colno}"
        advice = "write one object a line in .jsonl, one list of objects in .json"
        raise DataError(f"{name}:{line}: broken JSON ({reason}); {advice}") from problem
    return value


def _json_row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f'{where}: found {type(value).__name__}, expected an object such as {{"text": "..."}}')
    return Row(value, where)


def _jsonl_rows(name: str) -> Iterator[Row]:
    for line, text in numbered_lines(name):
        if text.strip():
            yield _json_row(parse_json(without_end(text), name, line), f"{name}:{line}")


def _json_rows(name: str) -> Iterator[Row]:
    text = "".join(text for _, text in numbered_lines(name))
    values = parse_json(text, name, 1) if text.strip() else []
    if not isinstance(values, list):
        found = f"{type(values).__name__} {reprlib.repr(values)}"
        raise DataError(f"{name}:1: found {found}, expected one list of objects; write the rows as a list")
    for number, value in enumerate(values, start=1):
        yield _json_row(value, f"{name}: row {number}")


def _text_rows(name: str) -> Iterator[Row]:
    for line, text in numbered_lines(name):
        if text.strip():
            yield Row({"text": without_end(text)}, f"{name}:{line}")


def _parquet_rows(name: str) -> Iterator[Row]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as problem:
        raise MissingDependencyError(f"{name}: needs pyarrow: pip install 'bothways[train]'") from problem
    number = 0
    with opened(name) as file:
        # Parquet is read from its end, which a packed file cannot give without unpacking it all.
        seekable = io.BytesIO(file.read()) if Path(name).suffix.lower() in UNPACK else file
        try:
            table = parquet.ParquetFile(seekable)
            _check_columns(table.schema_arrow.names, name)
            for batch in table.iter_batches(ROWS_PER_PARQUET_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{name}: row {number}")
        except (arrow.ArrowException, OSError, UnicodeDecodeError) as problem:
            reason = str(problem).partition("\n")[0]
            raise DataError(f"{name}: broken Parquet after row {number} ({reason}); write it again") from problem


def _memory_rows(source: Iterable[Any]) -> Iterator[Row]:
    names: dict[str, list[str]] = {}
    for column, feature in (getattr(source, "features", None) or {}).items():
        feature = getattr(feature, "feature", feature)  # a List(ClassLabel) has several labels a row
        if hasattr(feature, "names"):
            names[column] = feature.names
    for number, values in enumerate(source, start=1):
        where = f"row {number}"
        if not isinstance(values, Mapping):
            advice = 'of a DataFrame give to_dict("records"), of a DatasetDict one split'
            raise DataError(f"{where}: found {type(values).__name__}, expected a dict of columns; {advice}")
        yield Row({str(key): _named(value, names.get(key), where) for key, value in values.items()}, where)


def _named(value: Any, names: Sequence[str] | None, where: str) -> Any:
    if names is not None and isinstance(value, list):
        return [_named(one, names, where) for one in value]
    if names is None or not isinstance(value, Integral):
        return value
    if value == -1:  # "no label" in datasets, as in GLUE's test splits
        return None
    if not 0 <= int(value) < len(names):
        raise DataError(f"{where}: label {value} is not one of 0 to {len(names) - 1}; mend it or the feature")
    return names[int(value)]


UNPACK: dict[str, Callable[[str, str], Any]] = {".gz": gzip.open, ".xz": lzma.open}
TABLES = {".csv": _csv_records, ".tsv": _tsv_records, ".tab": _tsv_records}
RECORDS = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".txt": _text_rows,
    ".parquet": _parquet_rows,
}
