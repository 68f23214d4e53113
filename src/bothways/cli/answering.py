"""The commands that answer, and judge answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bothways.cli.parts import (
    Engine,
    Json,
    Labels,
    Model,
    Precision,
    Seed,
    Task,
    Template,
    annotate,
    given,
    names_in,
    print_json,
    print_table,
)
from bothways.errors import OptionError
from bothways.options import with_options
from bothways.terminal import Reporter
from bothways.text.files import Columns


class Form(StrEnum):
    """How predictions are written."""

    jsonl = "jsonl"
    html = "html"
    ansi = "ansi"
    csv = "csv"


@with_options(annotate, Columns)
def evaluate_command(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Texts with their labels.")],
    columns: Columns,
    task: Task = None,
    labels: Labels = None,
    template: Template = None,
    engine: Engine = None,
    precision: Precision = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score a model on a file with gold: every figure with its 95 % interval."""
    from bothways.jobs.judge import evaluate

    settings = given(labels=labels and names_in(labels), template=template, engine=engine, precision=precision)
    evaluation = evaluate(model, file, task=task, columns=columns, seed=seed, reporter=Reporter(), **settings)
    if as_json:
        print_json(evaluation.as_json())
        return
    from bothways.analysis.tables import evaluation_tables

    for table in evaluation_tables(evaluation.scores):
        print_table(table)


@with_options(annotate, Columns)
def compare_command(
    test: Annotated[Path, typer.Argument(help="Texts with their labels.")],
    columns: Columns,
    models: Annotated[str, typer.Option(help="Model directories, with commas between.")],
    train: Annotated[Path | None, typer.Option(help="What they were trained on, for the baseline of classes.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the table as HTML too.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The honest table: for classes TF-IDF + linear model first, then each model."""
    from bothways.jobs.judge import compare_models

    names = names_in(models)
    comparison = compare_models(test, names, train, columns=columns, report=report, seed=seed, reporter=Reporter())
    if as_json:
        print_json(comparison.as_json())
        return
    from bothways.analysis.tables import comparison_table

    print_table(comparison_table(comparison))
    for verdict in comparison.verdicts:
        typer.echo(verdict)


def predict_command(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; for answer, questions.", metavar="[TEXT]...")
    ] = None,
    pair: Annotated[str | None, typer.Option(help="The second text of each pair; for answer, the passage.")] = None,
    source: Annotated[Path | None, typer.Option("--input", help="A file of texts.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Where to write; without it, stdout.")] = None,
    form: Annotated[Form, typer.Option("--format", help="How to write.")] = Form.jsonl,
    every_score: Annotated[bool, typer.Option("--all", help="jsonl: every score, tag and n-best answer.")] = False,
    text_column: Annotated[str | None, typer.Option(help="Column of the text in the file.")] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text.")] = None,
    header: Annotated[bool, typer.Option(help="Whether CSV and TSV begin with names.")] = True,
    task: Task = None,
    labels: Labels = None,
    template: Template = None,
    top_k: Annotated[int | None, typer.Option(help="answer, fill: how many answers.", min=1)] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Multi-label: least score; answer: that of no answer.")
    ] = None,
    engine: Engine = None,
    precision: Precision = None,
) -> None:
    """Predict texts, in the order of the input: JSON lines, one object a text; or a page, colours, a table."""
    from bothways.predictor import load

    if (source is None) == (not texts):
        raise OptionError("expected either texts on the command line or --input FILE")
    if source is not None and pair is not None:
        raise OptionError("--pair goes with a text on the command line; a file has a column for it (--pair-column)")
    settings = given(labels=labels and names_in(labels), template=template, top_k=top_k, threshold=threshold)
    settings |= given(engine=engine, precision=precision)
    predictor = load(model, task=task, reporter=Reporter(), **settings)
    if source is not None:
        columns = Columns(text_column=text_column, pair_column=pair_column, header=header)
        examples = predictor.task.read(source, columns, gold=False)
    else:
        examples = [predictor.task.example(text if pair is None else (text, pair)) for text in texts or []]
    on_terminal = output is None and sys.stdout.isatty()  # where a bar would stand between the answers
    predictions = predictor.stream(examples, total=len(examples), reporter=Reporter(quiet=on_terminal))
    parts = _written(form, examples, predictions, f"{Path(model).name}: {predictor.task.name}", every_score=every_score)
    if output is None:
        sys.stdout.writelines(_clean(part) for part in parts)
        return
    from bothways.storage import replacing

    with replacing(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(_clean(part) for part in parts)


def _written(
    form: Form, examples: Sequence[Any], predictions: Iterable[Any], title: str, *, every_score: bool
) -> Iterator[str]:
    """The output of predict, part by part."""
    from bothways import show

    pairs = zip(examples, predictions, strict=True)
    if form is Form.jsonl:
        lines = (prediction.as_json(every_score=every_score) for _, prediction in pairs)
        return (json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if form is Form.csv:
        return show.csv_lines(pairs)
    pictures = (prediction.picture(example) for example, prediction in pairs)
    if form is Form.html:
        return show.html_page(title, pictures)
    return (show.ansi(picture, colour=sys.stdout.isatty()) + "\n" for picture in pictures)


def _clean(text: str) -> str:
    """Text that can be written as UTF-8: half surrogates (bytes of the command line) become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
