"""Finds what runs a model fastest on this machine."""

from __future__ import annotations

from pathlib import Path

from bothways.data.tables import Columns, Source
from bothways.errors import DataError
from bothways.evaluation.accuracy_check import MAX_DROP, MAX_EXAMPLES
from bothways.evaluation.tune import Trial, tune_on
from bothways.jobs.export import exportable
from bothways.jobs.sources import columns_for, named
from bothways.progress import Reporter
from bothways.tasks import Trainable

TUNE_CHARACTERS = 150_000  # so that the slowest way takes seconds, not minutes


def tune(
    model: str | Path,
    data: Source,
    *,
    task: str | None = None,
    columns: Columns | None = None,
    max_drop: float = MAX_DROP,
    reporter: Reporter | None = None,
) -> list[Trial]:
    """Measure what runs this model fastest on this machine with these texts; later predictions use it.

    What answers worse than fp32, by more than `max_drop` where the texts have labels, is not used.

    Raises `DataError` for a file that does not suit, `OptionError` if nothing runs.
    """
    model_directory = exportable(model, task)
    columns = columns_for(model_directory, columns)
    reporter, labeled = reporter or Reporter(quiet=True), isinstance(model_directory.task, Trainable)
    try:
        examples = model_directory.task.read(data, columns, labeled=labeled)
        if isinstance(model_directory.task, Trainable):
            model_directory.task.check(examples)
    except DataError as error:
        examples = model_directory.task.read(data, columns, labeled=False)
        reporter.note(
            f"no labels to check accuracy with ({error}): engines are checked by their agreement with fp32 only"
        )
    examples = [example for example in examples if model_directory.task.problem(example) is None]
    if not examples:
        raise DataError(f"{named(data)}: no text to measure with")
    examples = examples[:: -(-len(examples) // MAX_EXAMPLES)]
    while len(examples) > 1 and sum(len(text) for example in examples for text in example.texts) > TUNE_CHARACTERS:
        examples = examples[::2]
    return tune_on(model_directory, examples, reporter, max_drop=max_drop)
