"""The command `predict`: reads texts from arguments, files or standard input; one prediction per row, in order."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bothways.cli.parts import (
    Device,
    Engine,
    Labels,
    Model,
    Offline,
    OutputFormat,
    Precision,
    Task,
    Template,
    Threads,
    annotate,
    argument_text,
    only_given,
    split_labels,
)
from bothways.data.tables import RECORDS, Columns
from bothways.errors import OptionError
from bothways.options import with_options
from bothways.progress import Reporter
from bothways.text.lines import STDIN, suffix_of

if TYPE_CHECKING:
    from bothways.cli.output import Answer
    from bothways.data.examples import Example
    from bothways.tasks.task import Prediction
    from bothways.tasks.task import Task as AnyTask

BY_ROW = {"parquet", "json", "squad"}  # input formats whose rows are not lines


@with_options(annotate, Columns, only=("text_column", "pair_column", "header", "format", "delimiter"))
def predict_command(
    model: Model,
    columns: Columns,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts (for answer: questions), or - for standard input.", metavar="TEXT")
    ] = None,
    pair: Annotated[str | None, typer.Option(help="Second text of a pair (for answer: the passage).")] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Input file (CSV, TSV, JSONL, JSON, Parquet, TXT), a pattern such as 'data/*.csv', or - for standard "
            "input. Can be repeated.",
            metavar="FILE",
            rich_help_panel="Data",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="Output file; its suffix (.jsonl, .csv, .tsv, .parquet, .html, .json, .txt) chooses the format. "
            "Default: stdout.",
            metavar="FILE",
            rich_help_panel="Data",
        ),
    ] = None,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option(
            "--format",
            help="Output format; squad writes {id: answer}. Default: by the suffix of --output, else jsonl.",
            rich_help_panel="Data",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Input columns to write with each prediction: comma-separated names, or all.",
            metavar="COLUMNS",
            rich_help_panel="Data",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output file if it exists.", rich_help_panel="Data")
    ] = False,
    escape_formulas: Annotated[
        bool,
        typer.Option(
            "--escape-formulas",
            help="csv, tsv: put ' before cells that a spreadsheet would evaluate as a formula (=, +, -, @).",
            rich_help_panel="Data",
        ),
    ] = False,
    all_scores: Annotated[
        bool, typer.Option("--all-scores", help="Output all scores, tags and n-best answers.")
    ] = False,
    task: Task = None,
    candidate_labels: Labels = None,
    hypothesis_template: Template = None,
    top_k: Annotated[int | None, typer.Option(help="Number of labels or answers to output.", min=1)] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Multi-label: minimum score of a label. answer: margin by which 'no answer' must beat the best answer."
        ),
    ] = None,
    aggregation_strategy: Annotated[
        Literal["none", "simple", "first", "average", "max"] | None,
        typer.Option(help="tag: how tokens are grouped into entities, as in transformers."),
    ] = None,
    pooling: Annotated[
        Literal["mean", "cls", "pooler", "none"] | None,
        typer.Option(help="embed: how token vectors are pooled into a text vector."),
    ] = None,
    normalize: Annotated[
        bool | None, typer.Option("--normalize/--no-normalize", help="embed: scale vectors to length 1.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Window length in tokens. Default: as the model was trained.", min=4)
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Overlap of neighboring windows, in tokens.", min=0)] = None,
    truncation: Annotated[
        bool,
        typer.Option(
            "--truncation", help="Read only the first window of a long text and report the number of truncated tokens."
        ),
    ] = False,
    engine: Engine = None,
    precision: Precision = None,
    threads: Threads = None,
    device: Device = None,
    offline: Offline = False,
) -> None:
    """Run a model on texts. Output: one JSON line per text, in input order (or CSV, Parquet, HTML, terminal text)."""
    from bothways.cli.output import Destination, Layout

    names = _sources(sources or [], texts or [])
    files = [text for text in (texts or []) if not names and os.path.isfile(text)]  # noqa: PTH113 - any string
    if files:
        Reporter().note(f"{files[0]!r} is predicted as a text; to read the file of this name, give --input {files[0]}")
    if names and pair is not None:
        raise OptionError(
            "--pair is for texts on the command line; for a file, use the column of second texts (--pair-column)"
        )
    if keep and not names:
        raise OptionError("--keep is for columns of files; texts on the command line have no columns")
    destination = Destination.of(output, output_format, names, overwrite=overwrite)

    from bothways.inference.predictor import load
    from bothways.tasks import task_name

    settings = only_given(
        candidate_labels=split_labels(candidate_labels),
        hypothesis_template=hypothesis_template,
        threshold=threshold,
        pooling=pooling,
    )
    settings |= only_given(aggregation_strategy=aggregation_strategy, max_length=max_length, stride=stride)
    settings |= only_given(engine=engine, precision=precision, threads=threads, device=device, offline=offline)
    settings |= {"normalize": normalize} if normalize is not None else {}
    settings |= only_given(truncation=truncation)
    if max_length is not None and stride is None:
        settings["stride"] = max_length // 4
    predictor = load(model, task=task and task_name(task), reporter=Reporter(), **settings)
    made = predictor.task
    if made.name == "zero_shot" and not getattr(made, "labels", ()):
        raise OptionError("zero_shot needs candidate labels: give --candidate-labels 'sport,politics'")
    if threshold is not None and not getattr(made, "tunable", False):
        raise OptionError(
            "--threshold is for multi-label models and for answer models trained on questions without an answer"
        )
    if top_k is not None and any(item.name == "top_k" for item in fields(made)):  # type: ignore[arg-type]
        predictor.task = made = made.changed(top_k=top_k)
    if output_format is None and destination.format == "json" and made.name == "answer":
        destination = replace(destination, format="squad")
    if destination.format == "squad" and made.name != "answer":
        raise OptionError(f"the squad format is for the task answer, not for {made.name}; write json or jsonl")
    layout = Layout(
        made,
        title=f"{Path(model).name}: {made.name}",
        keep=_columns(keep),
        texts=_text_columns(made, columns),
        number=number_of(names, columns),
        files=len(names) > 1,
        all_scores=all_scores,
        top_k=top_k,
        escape_formulas=escape_formulas,
    )
    waiting: deque[tuple[Example, str]] = deque()
    examples: Iterable[Example] = _examples(made, names, columns, layout.keep, waiting)
    if not names:
        examples = _typed(made, texts or [], pair, waiting)
    reporter = Reporter()
    answers = _answers(predictor.stream(examples), waiting, Reporter(quiet=destination.shows()))
    try:
        destination.write(answers, layout, reporter)
    finally:
        for line in layout.tally.notes():
            reporter.note(line)


def _answers(
    predictions: Iterable[Prediction], waiting: deque[tuple[Example, str]], reporter: Reporter
) -> Iterator[Answer]:
    """Join each prediction with its example and file; the total is not known before the end."""
    from bothways.cli.output import Answer

    with reporter.bar("predicting", None) as bar:
        for number, prediction in enumerate(predictions, start=1):
            example, name = waiting.popleft()
            yield Answer(example, prediction, name)
            bar.update(number)


def _sources(patterns: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The input files, with patterns expanded; empty if there are texts instead.

    If the shell expands a pattern, all files but the first arrive as texts. Raises `OptionError` for missing files,
    directories and contradictory arguments.
    """
    patterns = list(patterns)
    if patterns and texts:
        if not all(os.path.exists(text) for text in texts):  # noqa: PTH110
            raise OptionError("expected either texts on the command line or --input FILE, found both")
        patterns += texts
    elif list(texts) == [STDIN] or (not texts and not patterns and _is_piped()):
        patterns = [STDIN]
    elif not texts and not patterns:
        raise OptionError("expected texts on the command line, --input FILE, or - for standard input")
    found: list[str] = []
    for pattern in patterns:
        if pattern == STDIN or Path(pattern).exists() or not glob.has_magic(pattern):
            found.append(pattern)
            continue
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not matches:
            raise OptionError(f"--input {pattern}: no file matches (current directory: {Path.cwd()})")
        found += matches
    for name in found:
        if name != STDIN and not Path(name).exists():
            raise OptionError(
                f"{name}: No such file or directory; expected a readable file (current directory: {Path.cwd()})"
            )
        if Path(name).is_dir():
            raise OptionError(f"{name} is a directory; give its files, for example --input '{name}/*.csv'")
    if found.count(STDIN) > 1:
        raise OptionError("standard input (-) is given twice; it can be read only once")
    return found


def _is_piped() -> bool:
    """Whether standard input is a pipe, a socket or a file, not a terminal or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # no standard input
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def number_of(names: Sequence[str], columns: Columns) -> Literal["line", "row", ""]:
    """The unit that rows are counted in; "" without files."""
    forms = {columns.format or RECORDS.get(suffix_of(name)) for name in names}
    return "" if not forms else "row" if forms & BY_ROW else "line"


def _columns(keep: Sequence[str] | None) -> tuple[str, ...]:
    """The columns to keep.

    >>> _columns(["id, date", "author"]), _columns(["all"])
    (('id', 'date', 'author'), ('all',))
    """
    names = [name for part in keep or () for name in split_labels([part], "--keep") or ()]
    return tuple(dict.fromkeys(names))


def _text_columns(task: AnyTask, columns: Columns) -> tuple[str, ...]:
    """The column that holds the text, which an output table contains already."""
    if columns.text_column is not None:
        return (columns.text_column,)
    return ("text",) if task.name != "answer" and "text" in task.texts[0] else ()


def _examples(
    task: AnyTask, names: Sequence[str], columns: Columns, keep: Sequence[str], waiting: deque[tuple[Example, str]]
) -> Iterator[Example]:
    """Read the examples of all files; each waits in `waiting`, with its file, for its prediction."""
    for name in names:
        first = True
        for example in task.inputs(name, columns):
            if first and example.row:
                first = False
                missing = [column for column in keep if column != "all" and column not in example.row]
                if missing:
                    has = ", ".join(map(repr, example.row))
                    raise OptionError(f"{example.where}: no column {missing[0]!r} to keep; choose from {has}")
            waiting.append((example, name))
            yield example


def _typed(task: AnyTask, texts: Sequence[str], pair: str | None, waiting: deque[tuple[Example, str]]) -> list[Example]:
    """The examples of texts on the command line, also added to `waiting`."""
    clean = [argument_text(text) for text in texts]
    inputs: list[Any] = list(clean) if pair is None else [(text, argument_text(pair)) for text in clean]
    examples = [task.example(one) for one in inputs]
    waiting.extend((example, "") for example in examples)
    return examples
