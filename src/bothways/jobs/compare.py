"""Compares models on the same labeled file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bothways.data.tables import Columns, Source
from bothways.errors import OptionError
from bothways.evaluation.compare import Comparison, compare_on
from bothways.evaluation.summary import machine, report_of
from bothways.inference.model_directory import ModelDirectory
from bothways.jobs.sources import columns_for, examples_with_unknown_labels, named, seen_in_training
from bothways.model.catalogue import find_model
from bothways.progress import Reporter
from bothways.render.report import write_report
from bothways.tasks import as_trainable


def compare(
    test: Source,
    models: str | Path | Sequence[str | Path],
    train: Source | None = None,
    *,
    against: str | None = None,
    columns: Columns | None = None,
    report: str | Path | None = None,
    report_texts: bool = True,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Comparison:
    """Compare models on a test file. For models that predict classes or numbers, `train` adds baselines.

    Each model is compared with the best baseline (without baselines, with the first model), or with `against`: a
    model or "baseline". `report` is the path of an HTML report with the confusion matrix of the last model and, with
    `report_texts`, its most confident errors.
    """
    directories = [find_model(model) for model in ([models] if isinstance(models, str | Path) else models)]
    if not directories:
        raise OptionError("no model to compare; give at least one directory")
    reporter = reporter or Reporter(quiet=True)
    model_directory = ModelDirectory.read(directories[0])
    task, columns = as_trainable(model_directory.task), columns_for(model_directory, columns)
    examples = task.read(test, columns)
    examples_with_unknown_labels(task, examples, "error")
    known = [] if train is None else task.read(train, columns)
    comparison = compare_on(examples, directories, known, against=against, seed=seed, reporter=reporter)
    familiar = [seen_in_training(row.facts, test) for row in comparison.rows]
    notes = dict.fromkeys(note for note in familiar if note)
    for note in notes:
        reporter.note(note)
    comparison = replace(comparison, notes=(*comparison.notes, *notes))
    if report is not None:
        facts = [("Test examples", f"{len(examples):,} ({named(test)})"), ("Machine", machine())]
        write_report(
            Path(report), report_of(f"Comparison: {task.name}", comparison, examples, facts, texts=report_texts)
        )
    return comparison
