"""Arguments and options that several commands share, and functions that print results."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from bothways.errors import OptionError
from bothways.progress import one_line

if TYPE_CHECKING:
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Seed = Annotated[int, typer.Option(help="Random seed of the bootstrap intervals.", min=0)]
Task = Annotated[
    str | None, typer.Option(help="Task, if the model supports several: pairs, zero_shot, embed, fill, next_sentence.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        help="zero_shot: candidate labels, comma-separated. Put a label that contains a comma in double quotes, or "
        "repeat --candidate-labels for each label."
    ),
]
MaxDrop = Annotated[
    float,
    typer.Option(
        help="Accuracy check: maximum drop of the score relative to fp32. 0.005 is half a point; 1 disables the check.",
        min=0,
        max=1,
    ),
]
Template = Annotated[str | None, typer.Option(help="zero_shot: hypothesis template, with {} for the label.")]
# The choices of `load`, repeated here so that --help imports no engine. A test compares them.
Engine = Annotated[
    Literal["onnxruntime", "openvino", "torch"] | None,
    typer.Option(help="Inference engine. Default: the tuned plan, else the best available."),
]
Precision = Annotated[
    Literal["int8", "int8-static", "bf16", "fp32"] | None,
    typer.Option(help="Numeric precision. Default: the tuned plan, else the best available."),
]
Threads = Annotated[
    int | None, typer.Option(help="Number of CPU threads. Default: all cores that this process may use.", min=1)
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Device; cuda runs PyTorch on the GPU. Default: auto.")
]
TrainingDevice = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Training device. auto: a GPU if PyTorch finds one, else the CPU."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Download nothing.")]
Model = Annotated[str, typer.Argument(help="Model directory, or a name listed by `bothways models`.", metavar="MODEL")]
Out = Annotated[
    Path, typer.Option(help="Output directory; must be new or empty unless --resume or --overwrite is given.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run from its last checkpoint.")]
ReportTexts = Annotated[bool, typer.Option(help="Include the texts of the most confident errors in the HTML report.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in OUT.")]

OutputFormat = Literal["jsonl", "csv", "tsv", "parquet", "html", "text", "json", "squad"]

_PANELS = {"Columns": "Data", "Recipe": "Training", "PretrainRecipe": "Training", "Limits": "Limits"}
_FLAGS = {"format": "input-format"}  # fields whose option has another name
_SHORT = {"learning_rate": ("--lr",)}


def annotate(field: Field[Any], kind: Any, record: str) -> Any:
    """The command-line option for a field of a record, such as `Columns` or a recipe."""
    flag = _FLAGS.get(field.name, field.name.replace("_", "-"))
    names = f"--{flag}/--no-{flag}" if kind is bool and field.default is True else f"--{flag}"
    return Annotated[
        kind,
        typer.Option(
            names, *_SHORT.get(field.name, ()), help=field.metadata["help"], rich_help_panel=_PANELS.get(record)
        ),
    ]


def split_labels(values: Sequence[str] | None, option: str = "--candidate-labels") -> tuple[str, ...] | None:
    """Parse the labels of an option: one comma-separated list, quoted as in CSV, or one label per repeated option.

    Raises `OptionError` for an empty label, a duplicate, or a quoting error.

    >>> split_labels(['"arts, culture",sport']), split_labels(["arts, culture", "sport"])
    (('arts, culture', 'sport'), ('arts, culture', 'sport'))
    """
    if not values:
        return None
    labels = list(values)
    if len(labels) == 1:
        try:
            rows = list(csv.reader([labels[0]], skipinitialspace=True, strict=True))
        except csv.Error as problem:
            raise OptionError(
                f'{option} {labels[0]!r}: {problem}; quote a label that contains a comma: "a, b",c'
            ) from None
        labels = rows[0] if rows and rows[0] else [""]
    labels = [label.strip() for label in labels]
    for label in labels:
        if not label:
            raise OptionError(f"{option}: found an empty label in {', '.join(map(repr, values))}; name each label")
        if labels.count(label) > 1:
            raise OptionError(f"{option}: the label {label!r} is given twice; name each label once")
    return tuple(labels)


def only_given(**settings: Any) -> dict[str, Any]:
    """The settings that are not None or False."""
    return {name: value for name, value in settings.items() if value is not None and value is not False}


# Control characters that JSON does not escape, and bidirectional ones: written as \uXXXX.
_ESCAPED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff]")


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """A value as one line of standard JSON: NaN and infinity become null, lone surrogates U+FFFD.

    >>> json_text({"score": float("nan"), "word": "a\\u202eb"})
    '{"score": null, "word": "a\\\\u202eb"}'
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_plain)
    text = _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", encodable(text))
    return json.dumps(json.loads(text)) if ascii_only and not text.isascii() else text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """Convert a Parquet or NumPy value for JSON: dates to ISO 8601, arrays to lists, bytes to text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    for method in ("isoformat", "tolist"):
        if hasattr(value, method):
            return _finite(getattr(value, method)())
    return str(value)


def encodable(text: str) -> str:
    """Text that UTF-8 can encode: lone surrogates become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def argument_text(text: str) -> str:
    """A command-line argument, decoded as UTF-8 in any locale.

    >>> argument_text("caf\\udcc3\\udca9")
    'café'
    """
    if any("\udc80" <= character <= "\udcff" for character in text):
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return encodable(text)


def is_utf8(stream: TextIO) -> bool:
    """Whether a stream is encoded in UTF-8."""
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "utf-8"


def write_utf8() -> None:
    """Set stdout to UTF-8 if it is a pipe or a file; a terminal keeps its encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty() and not is_utf8(sys.stdout):
        sys.stdout.reconfigure(encoding="utf-8")


def print_json(value: Any) -> None:
    """Print one JSON object."""
    typer.echo(json_text(value, ascii_only=not is_utf8(sys.stdout)))


def print_line(text: str) -> None:
    """Print a text as one printable line."""
    write_utf8()
    typer.echo(one_line(text))


def print_tables(make: Callable[[int], Iterable[Table]]) -> None:
    """Print rich tables as wide as the terminal; in a pipe without styles, 80 or COLUMNS characters wide."""
    from rich.console import Console

    write_utf8()
    console = Console()
    for number, table in enumerate(make(console.width)):
        if number:
            console.print()
        if not console.is_terminal:
            table.title_style = ""
        console.print(table)
