"""Write predictions as JSON Lines, tables or pages, to stdout or to a file that appears when it is complete.

Rows are written as soon as they are ready; only Parquet buffers some thousands of them.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bothways.cli.parts import OutputFormat, encodable, is_utf8, json_text, write_utf8
from bothways.data.examples import Example
from bothways.errors import BothwaysError, DataError, MissingDependencyError, OptionError
from bothways.progress import Reporter, printable
from bothways.render import show
from bothways.storage import replacing
from bothways.tasks.task import Prediction, Task

SUFFIXES: dict[str, OutputFormat] = {
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv"},
    **{".parquet": "parquet", ".html": "html", ".htm": "html", ".txt": "text"},
}
PACK: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
ROWS_PER_GROUP = 4096
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets evaluate cells that begin with one of these
STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


class Answer(NamedTuple):
    """A prediction with its example and file name."""

    example: Example
    prediction: Prediction
    file: str


@dataclass(slots=True)
class Tally:
    """Counts of written rows and their problems."""

    rows: int = 0
    errors: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # columns missing in the first row
    twice: int = 0  # duplicate ids

    def notes(self) -> Iterator[str]:
        """Notes for the user about what was written."""
        if self.errors:
            have = "has" if self.errors == 1 else "have"
            yield f"{self.errors:,} of {self.rows:,} row{'s' * (self.rows != 1)} {have} an error"
        if self.left_out:
            names = ", ".join(map(repr, self.left_out))
            yield f"columns missing in the first row are not written: {names}; JSON lines contain all columns"
        if self.twice:
            yield f"rows with a duplicate id: {self.twice:,}; JSON readers keep the last row of each id"


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of an output row.

    `keep` names the input columns to write ("all": every column), `texts` the columns that hold the texts. `number` is
    the name of the row number ("": none); `files` adds the file name; `more` computes additional columns.
    """

    task: Task
    title: str = ""
    keep: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    number: Literal["line", "row", ""] = ""
    files: bool = False
    all_scores: bool = False
    top_k: int | None = None
    escape_formulas: bool = False
    more: Mapping[str, Callable[[Answer], Any]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def origin(self, answer: Answer) -> dict[str, Any]:
        """The file and number of a row, if written."""
        origin: dict[str, Any] = {"file": answer.file} if self.files else {}
        return origin | ({self.number: answer.example.number} if self.number else {})

    def kept(self, row: Mapping[str, Any], taken: Iterable[str]) -> dict[str, str]:
        """The name of each kept column of a row -> its output name, which is not one of the keys `taken`.

        >>> from bothways.tasks import Classify
        >>> Layout(Classify(("a", "b")), keep=("id", "label")).kept({"id": 1, "label": "a"}, ["label", "score"])
        {'id': 'id', 'label': 'input_label'}
        """
        names = list(row) if "all" in self.keep else [name for name in self.keep if name in row]
        if self.task.name == "answer" and "id" in row and "id" not in names:
            names.insert(0, "id")
        used, found = {*taken, "file", "line", "row", "error"}, {}
        for name in names:
            new = name
            while new in used or (new != name and new in row):
                new = f"input_{new}"
            used.add(new)
            found[name] = new
        return found

    def answer(self, answer: Answer) -> dict[str, Any]:
        """The prediction and the additional columns, as JSON."""
        prediction = answer.prediction
        scores: Mapping[str, float] | None = getattr(prediction, "scores", None)
        best = self.top_k is not None and isinstance(scores, Mapping)
        every = self.all_scores or (self.top_k is not None and not best)
        found = prediction.as_json(all_scores=every)
        if best and not self.all_scores and "label" in found and prediction.error is None:
            assert scores is not None
            found["scores"] = dict(sorted(scores.items(), key=lambda item: -item[1])[: self.top_k])
        return {name: make(answer) for name, make in self.more.items()} | found

    def record(self, answer: Answer) -> dict[str, Any]:
        """The whole row as JSON."""
        found, row = self.answer(answer), answer.example.row or {}
        return self.origin(answer) | {new: row[name] for name, new in self.kept(row, found).items()} | found


def json_lines(answers: Iterable[Answer], layout: Layout, *, ascii_only: bool) -> Iterator[str]:
    """One JSON object per line."""
    for answer in answers:
        yield json_text(layout.record(answer), ascii_only=ascii_only) + "\n"


def json_list(answers: Iterable[Answer], layout: Layout, *, ascii_only: bool) -> Iterator[str]:
    """The same objects as one JSON list."""
    before = "[\n"
    for answer in answers:
        yield before + json_text(layout.record(answer), ascii_only=ascii_only)
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


def squad(answers: Iterable[Answer], layout: Layout, *, ascii_only: bool) -> Iterator[str]:
    """One object {id: answer}, "" for no answer, as read by SQuAD's evaluation script."""
    seen: set[str] = set()
    before = "{\n"
    for answer in answers:
        row = answer.example.row or {}
        if row.get("id") is None:
            raise DataError(f"{answer.example.where}: no id, but the squad format needs one; write jsonl instead")
        name = str(row["id"])
        layout.tally.twice += name in seen
        seen.add(name)
        text = getattr(answer.prediction, "best", "")
        yield f"{before}{json_text(name, ascii_only=ascii_only)}: {json_text(text, ascii_only=ascii_only)}"
        before = ",\n"
    yield "\n}\n" if before == ",\n" else "{}\n"


def table(answers: Iterable[Answer], layout: Layout, *, format: OutputFormat, to_terminal: bool) -> Iterator[str]:
    """A header and a row for each answer: origin, kept columns, texts, short answer, score, windows, error."""
    own = ["text", "second_text", *layout.more, "answer", "score", "windows", "truncated", "error"]
    # Do not keep the input column "text" if it holds the texts: they are written already.
    is_text = "text" in layout.texts
    kept: dict[str, str] | None = None
    waiting: list[Answer] = []
    for answer in answers:
        waiting.append(answer)
        if kept is None:
            if not answer.example.row and "all" in layout.keep:
                continue  # an unreadable row has no column names
            row = dict.fromkeys(layout.keep) if answer.example.row is None else answer.example.row
            names = [name for name in own if name != "text" or not is_text]
            kept = {name: new for name, new in layout.kept(row, names).items() if not (is_text and name == "text")}
            yield _line([*layout.origin(answer), *kept.values(), *own], format)
        for one in waiting:
            yield _line(_cells(one, layout, kept, to_terminal=to_terminal), format)
        waiting.clear()
    if kept is None:
        if not waiting:
            origin = [*(["file"] if layout.files else []), *filter(None, [layout.number])]
            yield _line([*origin, *(name for name in layout.keep if name != "all"), *own], format)
            return
        yield _line([*layout.origin(waiting[0]), *own], format)
        for one in waiting:
            yield _line(_cells(one, layout, {}, to_terminal=to_terminal), format)


def _cells(answer: Answer, layout: Layout, kept: Mapping[str, str], *, to_terminal: bool) -> list[Any]:
    example, prediction, row = answer.example, answer.prediction, answer.example.row or {}
    said, score = ("", "") if prediction.error is not None else prediction.summary()
    if "all" in layout.keep:
        layout.tally.left_out.update(name for name in row if name not in kept and name not in layout.texts)
    cells = [
        *layout.origin(answer).values(),
        *(row.get(name, "") for name in kept),
        *[*example.texts, "", ""][:2],
        *(make(answer) for make in layout.more.values()),
        *(said, score, prediction.windows, prediction.truncated, prediction.error or ""),
    ]
    return [_cell(cell, layout, to_terminal=to_terminal) for cell in cells]


def _cell(value: Any, layout: Layout, *, to_terminal: bool) -> Any:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json_text(value).strip('"')
    if to_terminal:
        text = printable(text)
    return f"'{text}" if layout.escape_formulas and text.startswith(FORMULA) else text


def _line(cells: Sequence[Any], format: OutputFormat) -> str:
    if format == "tsv":  # TSV has no quotes: a tab or line end in a cell becomes a space
        return "\t".join(" ".join(str(cell).splitlines()).replace("\t", " ") for cell in cells) + "\n"
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def write_parquet(answers: Iterable[Answer], layout: Layout, file: Any, name: str) -> None:
    """Write the objects of JSON Lines as Parquet; the first `ROWS_PER_GROUP` rows determine the types."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as problem:
        raise MissingDependencyError(f"{name}: needs pyarrow: pip install 'bothways[parquet]'") from problem
    schema: Any = None
    writer: Any = None
    group: list[dict[str, Any]] = []

    def flush() -> None:
        nonlocal writer, schema
        try:
            if schema is None:
                schema = _schema(group, arrow)
                writer = parquet.ParquetWriter(file, schema)
            writer.write_table(arrow.Table.from_pylist(group, schema))
        except (arrow.ArrowException, TypeError) as problem:
            reason = str(problem).partition("\n")[0]
            raise DataError(
                f"{name}: a row after row {layout.tally.rows - len(group):,} has other types than the first rows "
                f"({reason}); keep fewer columns, or write jsonl"
            ) from problem
        group.clear()

    try:
        for answer in answers:
            record = layout.record(answer) | {"error": answer.prediction.error}
            if schema is not None:
                layout.tally.left_out.update(key for key in record if key not in schema.names)
            group.append(record)
            if len(group) == ROWS_PER_GROUP:
                flush()
        if group or schema is None:
            flush()
    finally:
        if writer is not None:
            writer.close()


def _schema(rows: Sequence[Mapping[str, Any]], arrow: Any) -> Any:
    """The schema of the rows; the type of a column without values is derived from its name."""
    names = list(dict.fromkeys(key for row in rows for key in row)) or ["error"]
    known = {"score": arrow.float64(), "start": arrow.int64(), "end": arrow.int64()}
    schema = arrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows] or [{}]).schema
    found = {item.name: item.type for item in schema if not arrow.types.is_null(item.type)}
    return arrow.schema([(name, found.get(name, known.get(name, arrow.string()))) for name in names])


@dataclass(frozen=True, slots=True)
class Destination:
    """The output file and its format; without a path, stdout."""

    format: OutputFormat
    path: Path | None = None

    @classmethod
    def of(
        cls, output: str | None, format: OutputFormat | None, sources: Sequence[str], *, overwrite: bool
    ) -> Destination:
        """Check the output options before anything is computed.

        Raises `OptionError` for Parquet on stdout, an unknown suffix, a directory, an output that is also an input,
        and an existing file without `overwrite`.
        """
        if output is None or output in STDOUT:
            if format == "parquet":
                raise OptionError("Parquet cannot be written to stdout; give --output FILE.parquet")
            return cls(format or "jsonl")
        path = Path(output)
        suffix = (path.with_suffix("") if path.suffix.lower() in PACK else path).suffix.lower()
        if format is None and suffix and suffix not in SUFFIXES and not _is_device(path):
            known = ", ".join(dict.fromkeys(SUFFIXES))
            raise OptionError(f"{output}: unknown suffix {suffix!r}, expected one of {known}; or give --format")
        if path.is_dir():
            raise OptionError(f"{output} is a directory; give a file for the predictions")
        for source in sources:
            if path.exists() and Path(source).exists() and path.samefile(source) and not _is_device(path):
                raise OptionError(f"{output} is also an input; choose another file for the predictions")
        if path.exists() and not _is_device(path) and not overwrite:
            raise OptionError(f"{output} exists already; choose another file, or give --overwrite to replace it")
        return cls(format or SUFFIXES.get(suffix, "jsonl"), path)

    def shows(self) -> bool:
        """Whether answers are printed on the terminal, where they would mix with a progress bar."""
        return self.path is None and sys.stdout.isatty()

    def write(self, answers: Iterable[Answer], layout: Layout, reporter: Reporter) -> None:
        """Write all answers. After an error or Ctrl-C, the answers so far are kept in FILE.partial."""
        guarded = _Guarded(answers, layout.tally)
        if self.path is None or _is_device(self.path):
            self._stream(guarded, layout)
            guarded.check()
            return
        partial = self.path.with_name(self.path.name + ".partial")
        with replacing(self.path) as temporary:
            try:
                self._file(guarded, layout, temporary)
                guarded.check()
            except BaseException:
                if layout.tally.rows:
                    temporary.replace(partial)
                    reporter.note(f"the predictions so far are in {partial}")
                raise

    def _stream(self, answers: _Guarded, layout: Layout) -> None:
        """Write each part and flush, so that a reader gets it immediately."""
        if self.path is not None:
            with self.path.open("w", encoding="utf-8", newline="") as file:
                for part in self._parts(answers, layout, ascii_only=False):
                    file.write(encodable(part))
                    file.flush()
            return
        ascii_only = not is_utf8(sys.stdout)
        if self.format not in ("jsonl", "json", "squad"):
            write_utf8()
        for part in self._parts(answers, layout, ascii_only=ascii_only, to_terminal=sys.stdout.isatty()):
            sys.stdout.write(encodable(part))
            sys.stdout.flush()

    def _file(self, answers: _Guarded, layout: Layout, temporary: Path) -> None:
        assert self.path is not None
        pack = PACK.get(self.path.suffix.lower(), open)
        if self.format == "parquet":
            with temporary.open("wb") as file:
                write_parquet(answers, layout, file, str(self.path))
            return
        with pack(temporary, "wt", encoding="utf-8", newline="") as file:
            file.writelines(encodable(part) for part in self._parts(answers, layout, ascii_only=False))

    def _parts(
        self, answers: Iterable[Answer], layout: Layout, *, ascii_only: bool, to_terminal: bool = False
    ) -> Iterator[str]:
        """Yield the output in parts."""
        if self.format == "jsonl":
            return json_lines(answers, layout, ascii_only=ascii_only)
        if self.format == "json":
            return json_list(answers, layout, ascii_only=ascii_only)
        if self.format == "squad":
            return squad(answers, layout, ascii_only=ascii_only)
        if self.format in ("csv", "tsv"):
            return table(answers, layout, format=self.format, to_terminal=to_terminal)
        if self.format == "parquet":
            raise OptionError("Parquet can only be written to a file; give --output FILE.parquet")
        pictures = (answer.prediction.picture(answer.example) for answer in answers)
        if self.format == "html":
            return show.html_page(layout.title, pictures)
        width = shutil.get_terminal_size().columns if to_terminal else 100
        labels: dict[str, int] = {}
        return (show.ansi(picture, labels, width=width, color=to_terminal) + "\n" for picture in pictures)


class _Guarded:
    """Counts answers and stops if their source fails, so that the output so far is a complete file."""

    def __init__(self, answers: Iterable[Answer], tally: Tally) -> None:
        self.answers, self.tally = answers, tally
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[Answer]:
        try:
            for answer in self.answers:
                self.tally.rows += 1
                self.tally.errors += answer.prediction.error is not None
                yield answer
        except (KeyboardInterrupt, BothwaysError, OSError) as failure:
            self.failure = failure

    def check(self) -> None:
        """Raise the error of the source, if any."""
        if self.failure is not None:
            raise self.failure


def _is_device(path: Path) -> bool:
    """Whether a path exists and is not a regular file: a pipe, a terminal, /dev/null."""
    return path.exists() and not path.is_file()
