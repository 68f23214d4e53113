"""The commands `evaluate` and `compare`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bothways.cli.parts import (
    Device,
    Engine,
    Json,
    Labels,
    Model,
    Offline,
    Precision,
    ReportTexts,
    Seed,
    Task,
    Template,
    Threads,
    annotate,
    only_given,
    print_json,
    print_line,
    print_tables,
    split_labels,
)
from bothways.data.tables import Columns
from bothways.options import with_options
from bothways.progress import Reporter

if TYPE_CHECKING:
    from bothways.cli.output import Answer
    from bothways.tasks import Trainable

TestFile = Annotated[Path, typer.Argument(help="Labeled file (CSV, TSV, JSONL, Parquet; CoNLL columns; SQuAD JSON).")]


@with_options(annotate, Columns)
def evaluate_command(
    model: Model,
    file: TestFile,
    columns: Columns,
    predictions: Annotated[
        str | None,
        typer.Option(
            help="Write each prediction with its reference label to this file (.jsonl, .csv, .tsv, .parquet).",
            metavar="FILE",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the predictions file if it exists.")] = False,
    unknown_labels: Annotated[
        Literal["error", "wrong"],
        typer.Option(help="Examples with a label that the model was not trained on: an error, or counted as wrong."),
    ] = "error",
    task: Task = None,
    candidate_labels: Labels = None,
    hypothesis_template: Template = None,
    engine: Engine = None,
    precision: Precision = None,
    threads: Threads = None,
    device: Device = None,
    offline: Offline = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a model on a labeled file, with 95 % confidence intervals."""
    from bothways.cli.output import Answer, Destination, Layout
    from bothways.cli.predicting import number_of

    destination = Destination.of(predictions, None, [str(file)], overwrite=overwrite) if predictions else None

    from bothways.jobs.evaluate import evaluate
    from bothways.tasks import task_name

    settings = only_given(
        candidate_labels=split_labels(candidate_labels),
        hypothesis_template=hypothesis_template,
        engine=engine,
        precision=precision,
    )
    settings |= only_given(threads=threads, device=device, offline=offline)
    reporter = Reporter()
    settings |= {"unknown_labels": unknown_labels, "seed": seed, "reporter": reporter}
    evaluation = evaluate(model, file, task=task and task_name(task), columns=columns, **settings)
    if destination is not None:
        made = evaluation.task
        answers = (
            Answer(example, prediction, str(file))
            for example, prediction in zip(evaluation.examples, evaluation.predictions, strict=True)
        )
        more: dict[str, Callable[[Answer], Any]] = {
            "reference": lambda answer: made.reference_summary(answer.example),
            "correct": lambda answer: _correct(made, answer),
        }
        layout = Layout(made, str(file), number=number_of([str(file)], columns), more=more)
        destination.write(answers, layout, reporter)
    if as_json:
        print_json(evaluation.as_json())
        return
    from bothways.evaluation.tables import evaluation_tables

    print_tables(lambda width: evaluation_tables(evaluation.scores, width))


def _correct(task: Trainable, answer: Answer) -> bool:
    reference = answer.example.reference
    return answer.prediction.error is None and reference is not None and task.is_correct(answer.prediction, reference)


@with_options(annotate, Columns)
def compare_command(
    test: TestFile,
    columns: Columns,
    models: Annotated[list[str], typer.Argument(help="Model directories.", metavar="MODEL...")],
    train: Annotated[
        Path | None, typer.Option(help="Training file for the baselines (required to compare one classifier).")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Model to compare with, or 'baseline'. Default: the best baseline, else the first model."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report.")] = None,
    report_texts: ReportTexts = True,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare models on the same test file. With --train, classifiers are also compared with baselines."""
    from bothways.jobs.compare import compare

    comparison = compare(
        test,
        models,
        train,
        columns=columns,
        report=report,
        report_texts=report_texts,
        seed=seed,
        reporter=Reporter(),
        **only_given(against=against),
    )
    if as_json:
        print_json(comparison.as_json())
        return
    from bothways.evaluation.tables import comparison_tables

    print_tables(lambda width: comparison_tables(comparison, width))
    for verdict in comparison.verdicts:
        print_line(verdict)
