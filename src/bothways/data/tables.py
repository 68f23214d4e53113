"""Read rows from CSV, TSV, JSON, Parquet, plain text or memory, one by one and with their location."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import reprlib
import stat
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, get_args

from bothways.data.memory import memory_rows
from bothways.errors import DataError, MissingDependencyError, OptionError
from bothways.options import option
from bothways.text.lines import (
    LARGEST_RATIO,
    LARGEST_UNPACKED,
    LONGEST_ROW,
    STDIN,
    BoundedFile,
    Line,
    lines_of,
    opened,
    shown,
    suffix_of,
    without_end,
)

Source = str | Path | Iterable[Any]
Kind = Literal["single", "multi", "regression"]
Format = Literal["csv", "tsv", "jsonl", "json", "txt", "parquet", "conll", "squad"]

DELIMITERS = (",", ";", "\t", "|")
LINES_TO_COMPARE = 20  # to detect the delimiter of a CSV without a header
LARGEST_WHOLE = 2**30  # maximum bytes of a file that is read into memory: .json, compressed .parquet
DEEPEST_JSON = 100
CSV_LIMIT_LOCK = threading.Lock()
ROWS_PER_PARQUET_BATCH = 1024
_INVISIBLE = re.compile("[\0\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_AT_EDGES = "\u200c\u200d"  # joiners; meaningful inside words
_LOG = logging.getLogger("bothways")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its values by column name and its location for messages; lines and rows count from 1.

    `number` is the line (for Parquet, .json and memory: the row); `error` is the reason why it cannot be read.
    """

    values: dict[str, Any]
    where: str
    number: int | None = field(default=None, compare=False)
    error: str | None = None


class Record(NamedTuple):
    """The cells of a record and its first line; `error` is the reason why it cannot be read."""

    number: int
    cells: list[str]
    error: str | None


@dataclass(frozen=True, slots=True)
class Columns:
    """Column names (default: the usual names), and the format of labels and files.

    For files without a header, columns may be ints (converted to strings). `label_names` may be a sequence.
    """

    text_column: Any = option(None, "Text column (for pairs: column of the first text).", str | None)  # noqa: RUF009
    pair_column: Any = option(None, "Column of the second text.", str | None)  # noqa: RUF009
    label_column: Any = option(None, "Label column.", str | None)  # noqa: RUF009
    separator: str | None = option(None, "Separator between the labels in a cell (multi-label).")
    kind: Kind | None = option(None, "Kind of labels. Default: inferred from the labels.")  # noqa: RUF009
    label_names: str | Sequence[str] | None = option(
        None, "Names for labels that are numbers from 0, comma-separated (quote a name with a comma).", str | None
    )
    header: bool = option(True, "Whether CSV and TSV files have a header; without one, columns are named 0, 1, ...")
    format: Format | None = option(None, "Input format. Default: by the file suffix.")  # noqa: RUF009
    delimiter: str | None = option(None, "CSV delimiter (\\t for a tab). Default: detected.")

    def __post_init__(self) -> None:
        for name in ("text_column", "pair_column", "label_column"):
            column = getattr(self, name)
            if isinstance(column, int):
                object.__setattr__(self, name, str(column))
        names = self.label_names
        if isinstance(names, str):
            names = split_quoted(names, ",")
        if names is not None:
            names = tuple(clean_label(name) for name in names)
            if not all(names) or len(set(names)) < len(names):
                raise OptionError(f"label_names is {_listed(names)}, expected different names, none of them empty")
            object.__setattr__(self, "label_names", names)
        if self.separator == "":
            raise OptionError("separator is empty, expected what is between two labels, for example ','")
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", self.delimiter.replace("\\t", "\t"))
            if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
                raise OptionError(f"delimiter is {self.delimiter!r}, expected one character such as ';'")
        for name, choices in (("kind", get_args(Kind)), ("format", get_args(Format))):
            if getattr(self, name) not in (None, *choices):
                raise OptionError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}")

    def names(self) -> tuple[str, ...]:
        """The names of numeric labels."""
        return tuple(self.label_names or ())


def clean_label(text: str) -> str:
    """Normalize a label for comparison: NFC, without invisible characters or surrounding space.

    >>> clean_label("\\ufeffcafe\\u0301\\u00a0") == "caf\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).strip().strip(_AT_EDGES).strip()


def split_quoted(text: str, separator: str) -> list[str]:
    """Split a text at a separator; parts in double quotes may contain the separator.

    >>> split_quoted('"arts, culture",news', ",")
    ['arts, culture', 'news']
    """
    if len(separator) == 1 and '"' in text:
        try:
            return next(csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True))
        except csv.Error:
            pass  # quotes that are part of the labels
    return text.split(separator)


def read_rows(
    source: Source,
    *,
    header: bool = True,
    format: Format | None = None,
    delimiter: str | None = None,
    strict: bool = True,
) -> Iterator[Row]:
    """Read rows from a file (formats: `TABLES` and `RECORDS`; also compressed as .gz and .xz), from standard input
    ("-") or from an iterable of mappings. Files are opened once and read lazily.

    `header=False` names the columns of CSV and TSV "0", "1", ... Blank lines are skipped. Raises `DataError` if a row
    cannot be read, and if there are no rows.

    Without `strict`, for prediction: rows that cannot be read have an `error`; blank lines of .txt, and of CSV and TSV
    with one column, are rows; there may be no rows. `DataError` is raised only if reading cannot continue.

    >>> next(read_rows([{"text": "good", "label": "pos"}]))
    Row(values={'text': 'good', 'label': 'pos'}, where='row 1', number=1, error=None)
    """
    if not isinstance(source, str | Path):
        found = enumerate(memory_rows(source, texts=not strict), start=1)
        records = (Row(values, f"row {number}", number, error) for number, (values, error) in found)
        return _checked(records, "the data in memory") if strict else records
    name = str(source)
    kind = format_of(name, format)
    if kind in ("conll", "squad"):
        raise OptionError(f"{shown(name)}: the format {kind} is for the task {'tag' if kind == 'conll' else 'answer'}")
    if not header and kind not in TABLES.values():
        raise OptionError(
            f"{shown(name)}: --no-header (header=False) is for {', '.join(TABLES)} only; leave it out for {kind}"
        )
    if delimiter is not None and kind != "csv":
        raise OptionError(f"{shown(name)}: a delimiter is for the format csv, found {kind}; leave it out")
    settings = _Settings(shown(name), header, delimiter, strict)
    rows = _file_rows(name, kind, settings, guess=format is None and not _has_suffix(name))
    next(rows)  # raise errors for wrong paths here, not at the first row
    return _checked(rows, shown(name)) if strict else rows


def rows_of(source: Source, columns: Columns, *, strict: bool) -> Iterator[Row]:
    """As `read_rows`, with the settings of `columns`."""
    return read_rows(source, header=columns.header, format=columns.format, delimiter=columns.delimiter, strict=strict)


def format_of(name: str, wanted: Format | None = None) -> Format:
    """Return the format of a file: `wanted`, else by its suffix; standard input and pipes are plain text.

    >>> format_of("a.csv.gz"), format_of("-"), format_of("a.data", "tsv")
    ('csv', 'txt', 'tsv')
    """
    if wanted is not None:
        return wanted
    suffix = suffix_of(name)
    kind: Format | None = (TABLES | RECORDS).get(suffix)
    if kind is not None:
        return kind
    if not _has_suffix(name):
        return "txt"
    with opened(name):  # a missing file has the better message
        pass
    known = ", ".join([*TABLES, *RECORDS])
    raise DataError(
        f"{name}: unknown suffix {suffix!r}; expected one of {known}, or one of them with .gz or .xz; "
        "or name the format (--input-format, Columns(format=...))"
    )


def _has_suffix(name: str) -> bool:
    """Whether the suffix determines the format: False for standard input and for pipes without a suffix."""
    if name == STDIN:
        return False
    if suffix_of(name):
        return True
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        return True
    return not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode) or name == "/dev/stdin")


def find_column(available: Sequence[str], *, wanted: str | None, usual: Sequence[str], purpose: str, where: str) -> str:
    """Find a column: `wanted` if given, else the first of `usual` that exists; raises `DataError` if none does.

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
    """As `find_column`, but return None if `wanted` is None and none of `usual` exists."""
    if wanted is not None:
        for column in (wanted, *(name for name in available if clean_label(name) == clean_label(wanted))):
            if column in available:
                return column
        raise DataError(f"{where}: no column {wanted!r} for the {purpose}; choose from {_listed(available)}")
    for name in usual:
        for column in (name, *available):
            if column in available and plain_name(column) == name.casefold():
                return column
    return None


def plain_name(column: str) -> str:
    """Normalize a column name for comparison: `clean_label` in lower case."""
    return clean_label(column).casefold()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "(none)"


def _checked(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """Yield rows; raises `DataError` for the first row with an error, or if there are no rows."""
    row = None
    for row in rows:
        if row.error is not None:
            raise DataError(f"{row.where}: {row.error}")
        yield row
    if row is None:
        raise DataError(f"{name}: no rows; expected at least one example (below the header, if it has one)")


class _Settings(NamedTuple):
    """Settings to read a file; `name` is its name in messages."""

    name: str
    header: bool
    delimiter: str | None
    strict: bool


def _file_rows(name: str, kind: Format, settings: _Settings, *, guess: bool) -> Iterator[Any]:
    """Yield None when the file is open, then its rows."""
    with opened(name) as file:
        yield None
        if kind == "parquet":
            yield from _parquet_rows(file, settings)
        elif kind == "json":
            yield from _json_rows(file, settings)
        else:
            lines = lines_of(file, settings.name)
            yield from _READERS[kind](_told_apart(lines, settings) if guess else lines, settings)


def _told_apart(lines: Iterator[Line], settings: _Settings) -> Iterator[Line]:
    """Yield the lines of a source of unknown format; raises `DataError` if the first line looks like a table."""
    first = next(lines, None)
    if first is None:
        return
    bare = first.text.strip()
    cells = [plain_name(cell.strip('" ')) for cell in re.split(r"[,;\t|]", bare)]
    kind = "jsonl" if bare.startswith("{") and bare.endswith("}") else ""
    if len(cells) > 1 and set(cells) & _COMMON_NAMES and not any(" " in cell for cell in cells):
        kind = "tsv" if "\t" in first.text else "csv"
    if kind:
        found = reprlib.repr(without_end(first.text))
        raise DataError(
            f"{settings.name}:1: found {found}, which looks like {kind}; name the format (--input-format {kind}, or "
            "--input-format txt for one text per line)"
        )
    yield from chain([first], lines)


def _csv_rows(lines: Iterator[Line], settings: _Settings) -> Iterator[Row]:
    first = next(lines, None)
    directive = re.fullmatch(r'"?sep=(.)"?\s*', first.text, re.IGNORECASE) if first is not None else None
    rest = lines if directive or first is None else chain([first], lines)
    delimiter = settings.delimiter or (directive[1] if directive else None)
    if delimiter is None and not directive and first is not None:
        head = [first]
        while not head[-1].text.strip() and (line := next(lines, None)) is not None:
            head.append(line)
        if not settings.header and any(other in head[-1].text for other in DELIMITERS[1:]):
            head += islice(lines, LINES_TO_COMPARE)
        delimiter, rest = _delimiter_of(head, settings), chain(head, lines)
    yield from _table_rows(_csv_records(rest, settings, delimiter or ","), settings, delimiter or ",")


def _delimiter_of(head: Sequence[Line], settings: _Settings) -> str:
    """Detect the delimiter: the most frequent one in the header; without a header, one with a constant count."""
    lines = [without_end(line.text) for line in head if line.text.strip()]
    counts = {each: {_cells(line, each) for line in lines} for each in DELIMITERS}
    if settings.header or not lines:
        return max(DELIMITERS, key=lambda each: max(counts[each], default=0))
    alike = [each for each, found in counts.items() if len(found) == 1 and min(found) > 1]
    if counts[","] == {1} and alike:
        raise DataError(
            f"{settings.name}:1: found no comma, but {alike[0]!r} in every line; say what separates the columns "
            f"(--delimiter {alike[0]!r}, or --delimiter , for one column)"
        )
    return alike[0] if alike else ","


def _cells(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return 1


def _csv_records(lines: Iterator[Line], settings: _Settings, delimiter: str) -> Iterator[Record]:
    bad: dict[int, str] = {}
    ahead: list[Line] = []
    offset = 0  # number of lines that `reader` has not seen, such as sep=;

    def texts() -> Iterator[str]:
        for line in iter(lambda: ahead.pop() if ahead else next(lines, None), None):
            if line.error is not None:
                bad[line.number] = line.error
                if not line.text:  # the text is lost, so the next record's start is unknown
                    raise DataError(f"{settings.name}:{line.number}: {line.error}")
            yield line.text

    # Without strict, the csv module reads `"a" b` as `a b`, and an open quote to the end of the file, without an error.
    reader = csv.reader(texts(), strict=True, delimiter=delimiter)
    while (line := next(lines, None)) is not None:
        ahead.append(line)  # before the lock: reading from a pipe may block
        offset = line.number - reader.line_num - 1
        error = None
        with CSV_LIMIT_LOCK:  # the limit is process-wide
            limit = csv.field_size_limit(LONGEST_ROW)
            try:
                cells = next(reader)
            except csv.Error as problem:
                reason = str(problem).partition(" - ")[0]
                cells, error = (
                    [],
                    (
                        f"the record that begins here is not CSV ({reason}); close every quote, "
                        "double quotes inside quotes, and end lines with LF or CRLF"
                    ),
                )
                if reader.line_num + offset > line.number:  # it consumed lines of other records
                    raise DataError(f"{settings.name}:{line.number}: {error}") from problem
            finally:
                csv.field_size_limit(limit)
        spoilt = [bad[number] for number in sorted(bad) if line.number <= number <= reader.line_num + offset]
        bad.clear()
        yield Record(line.number, cells, spoilt[0] if spoilt else error)


def _tsv_rows(lines: Iterator[Line], settings: _Settings) -> Iterator[Row]:
    return _table_rows(_tsv_records(lines, settings), settings, "\t")


def _tsv_records(lines: Iterator[Line], settings: _Settings) -> Iterator[Record]:
    told = False
    for line in lines:
        bare = without_end(line.text)
        cells = bare.split("\t") if bare else []
        if not told and '""' in bare and any(_is_quoted(cell) for cell in cells):
            told = True
            _LOG.warning(
                "%s:%d: a cell is in quotes, with doubled quotes inside; in TSV quotes are part of the text: if "
                "Excel or pandas wrote this file, give --input-format csv --delimiter '\\t'",
                settings.name,
                line.number,
            )
        yield Record(line.number, cells, line.error or _old_mac(line))


def _is_quoted(cell: str) -> bool:
    """Whether a cell is quoted and contains doubled quotes, as in CSV."""
    inner = cell[1:-1]
    return cell.startswith('"') and cell.endswith('"') and '""' in inner and '"' not in inner.replace('""', "")


def _old_mac(line: Line) -> str | None:
    """Return an error message if a file is a single line with carriage returns."""
    lone = line.number == 1 and not line.text.endswith("\n") and "\r" in line.text.rstrip("\r")
    return "the lines end with CR; end them with LF or CRLF" if lone else None


def _table_rows(records: Iterator[Record], settings: _Settings, delimiter: str) -> Iterator[Row]:
    columns: list[str] = []
    early: list[Record] = []  # blank lines before the columns are known
    for record in records:
        number, cells, error = record
        where = f"{settings.name}:{number}"
        if not columns and (cells or error):
            if error is not None and settings.header:
                raise DataError(f"{where}: {error}")
            columns = cells if settings.header else [str(index) for index in range(len(cells))]
            _check_columns(columns, where)
            _check_delimiter(columns, delimiter, settings.header, where)
            if settings.header:
                continue
            if len(columns) == 1:
                yield from (_blank(one, columns, settings) for one in early)
        if error is not None:
            yield Row({}, where, number, error)
        elif len(cells) == len(columns) and columns:
            yield Row(dict(zip(columns, cells, strict=True)), where, number)
        elif cells:
            yield Row({}, where, number, _wrong_width(cells, columns, delimiter))
        elif len(columns) == 1 and not settings.strict:
            yield _blank(record, columns, settings)
        elif not columns and not settings.header and not settings.strict:
            early.append(record)
    if not columns:
        yield from (_blank(one, ["0"], settings) for one in early)


def _blank(record: Record, columns: Sequence[str], settings: _Settings) -> Row:
    return Row({columns[0]: ""}, f"{settings.name}:{record.number}", record.number)


def _wrong_width(cells: Sequence[str], columns: Sequence[str], delimiter: str) -> str:
    advice = "in TSV, remove tabs and line breaks from the texts"
    if delimiter != "\t":
        advice = f"in CSV quote a text that holds {_DELIMITER_NAMES.get(delimiter, repr(delimiter))}"
    return f"found {len(cells)} columns, expected {len(columns)} ({_listed(columns)}); {advice}"


def _check_columns(columns: Sequence[str], where: str) -> None:
    if not all(column.strip() for column in columns):
        advice = "name it or drop it (pandas: to_csv(..., index=False)), or give --no-header if there is none"
        raise DataError(f"{where}: a column without a name in the header ({_listed(columns)}); {advice}")
    if len({clean_label(column) for column in columns}) < len(columns):
        raise DataError(f"{where}: two columns of the same name in the header ({_listed(columns)}); rename one")


def _check_delimiter(columns: Sequence[str], delimiter: str, header: bool, where: str) -> None:
    """Raise `DataError` if the only column of a TSV looks like several columns of CSV."""
    for other in ",;|" if header and len(columns) == 1 and delimiter == "\t" else "":
        names = [plain_name(name) for name in columns[0].split(other)]
        if len(names) > 1 and _COMMON_NAMES.intersection(names):
            raise DataError(
                f"{where}: found one column {columns[0]!r}, expected tabs between columns; the columns seem to be "
                f"separated by {other!r}: save the file as .csv"
            )


def _txt_rows(lines: Iterator[Line], settings: _Settings) -> Iterator[Row]:
    for line in lines:
        error = line.error or _old_mac(line)
        if error or not settings.strict or line.text.strip():
            text = {} if error else {"text": without_end(line.text)}
            yield Row(text, f"{settings.name}:{line.number}", line.number, error)


def _jsonl_rows(lines: Iterator[Line], settings: _Settings) -> Iterator[Row]:
    for line in lines:
        where = f"{settings.name}:{line.number}"
        if line.error is not None:
            yield Row({}, where, line.number, line.error)
        elif line.text.strip():
            try:
                value = parse_json(without_end(line.text), settings.name, line.number)
            except DataError as problem:
                yield Row({}, where, line.number, str(problem).removeprefix(f"{where}: "))
            else:
                yield _json_row(value, where, line.number)


def parse_json(text: str, name: str, line: int) -> Any:
    """Parse a JSON text that starts at `line` of a file; raises `DataError` if it is invalid."""
    try:
        value = json.loads(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            # A lone surrogate is valid JSON, but not a character: the tokenizer would fail.
            json.dumps(value, ensure_ascii=False).encode()
        if text.count("[") + text.count("{") > DEEPEST_JSON:
            _check_depth([value])
    except (ValueError, RecursionError) as problem:
        reason = str(problem)
        if isinstance(problem, json.JSONDecodeError):
            line, reason = line + problem.lineno - 1, f"{problem.msg} at column {problem.colno}"
        advice = "write one object a line in .jsonl, one list of objects in .json"
        raise DataError(f"{name}:{line}: broken JSON ({reason}); {advice}") from problem
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST_JSON):
        inner = chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level)
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return
    raise ValueError(f"nested deeper than {DEEPEST_JSON} levels")


def _json_row(value: Any, where: str, number: int) -> Row:
    if not isinstance(value, dict):
        error = f'found {type(value).__name__}, expected an object such as {{"text": "..."}}'
        return Row({}, where, number, error)
    return Row(value, where, number)


def _whole(file: IO[bytes], name: str) -> bytes:
    content = file.read(LARGEST_WHOLE + 1)
    if len(content) > LARGEST_WHOLE:
        raise DataError(f"{name}: more than {LARGEST_WHOLE:,} bytes, too large to be read whole; write it as .jsonl")
    return content


def _json_rows(file: IO[bytes], settings: _Settings) -> Iterator[Row]:
    lines = lines_of(io.BytesIO(_whole(file, settings.name)), settings.name, LARGEST_WHOLE)
    texts = []
    for line in lines:
        if line.error is not None:
            raise DataError(f"{settings.name}:{line.number}: {line.error}")
        texts.append(line.text)
    text = "".join(texts)
    values = parse_json(text, settings.name, 1) if text.strip() else []
    if not isinstance(values, list):
        found = f"{type(values).__name__} {reprlib.repr(values)}"
        raise DataError(f"{settings.name}:1: found {found}, expected one list of objects; write the rows as a list")
    for number, value in enumerate(values, start=1):
        yield _json_row(value, f"{settings.name}: row {number}", number)


def _parquet_rows(file: IO[bytes], settings: _Settings) -> Iterator[Row]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as problem:
        raise MissingDependencyError(f"{settings.name}: needs pyarrow: pip install 'bothways[parquet]'") from problem
    number = 0
    # Parquet is read from its end, so pipes and compressed files are read into memory.
    whole = not isinstance(file, io.BufferedReader) or isinstance(file.raw, BoundedFile) or not file.seekable()
    seekable = io.BytesIO(_whole(file, settings.name)) if whole else file
    try:
        table = parquet.ParquetFile(seekable)
        _check_columns(table.schema_arrow.names, settings.name)
        size = seekable.seek(0, io.SEEK_END)
        for group in range(table.metadata.num_row_groups):
            if table.metadata.row_group(group).total_byte_size > max(LARGEST_UNPACKED, LARGEST_RATIO * size):
                raise DataError(
                    f"{settings.name}: row group {group} unpacks to more than {LARGEST_RATIO} times its size"
                )
        for batch in table.iter_batches(ROWS_PER_PARQUET_BATCH):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{settings.name}: row {number}", number)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as problem:
        reason = str(problem).partition("\n")[0]
        raise DataError(f"{settings.name}: broken Parquet after row {number} ({reason}); write it again") from problem


_DELIMITER_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a |"}
_COMMON_NAMES = {
    "text",
    "sentence",
    "label",
    "labels",
    "id",
    "premise",
    "hypothesis",
    "sentence1",
    "question",
    "context",
}
TABLES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
RECORDS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "txt",
    ".parquet": "parquet",
}
_READERS: dict[str, Callable[[Iterator[Line], _Settings], Iterator[Row]]] = {
    "csv": _csv_rows,
    "tsv": _tsv_rows,
    "jsonl": _jsonl_rows,
    "txt": _txt_rows,
}
