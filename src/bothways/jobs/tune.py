"""Finds what runs a model fastest on this machine."""

from __future__ import annotations

from pathlib import Path

from bothways.data.tables import Columns, Source
from bothways.errors import DataError
from bothways.evaluation.accuracy_check import MOST_EXAMPLES, MOST_FALL
from bothways.evaluation.tune import Trial, tune
from bothways.jobs.export import exportable
from bothways.jobs.sources import columns_for, named
from bothways.progress import Reporter
from bothways.tasks import Trainable

TUNE_CHARACTERS = 150_000  # so that the slowest way takes seconds, not minutes


def tune_model(
    model: str | Path,
    data: Source,
    *,
    task: str | None = None,
    columns: Columns | None = None,
    most_fall: float = MOST_FALL,
    reporter: Reporter | None = None,
) -> list[Trial]:
    """Measure what runs this model fastest on this machine with these texts; later predictions use it.

    What answers worse than fp32, by more than `most_fall` where the texts have gold, is not used.

    Raises `DataError` for a file that does not suit, `OptionError` where nothing runs.
    """
    artifact = exportable(model, task)
    columns = columns_for(artifact, columns)
    reporter, gold = reporter or Reporter(quiet=True), isinstance(artifact.task, Trainable)
    try:
        examples = artifact.task.read(data, columns, gold=gold)
        if isinstance(artifact.task, Trainable):
            artifact.task.check(examples)
    except DataError as error:
        examples = artifact.task.read(data, columns, gold=False)
        reporter.note(
            f"no labels to check accuracy with ({error}): engines are checked by their agreement with fp32 only"
        )
    examples = [example for example in examples if artifact.task.problem(example) is None]
    if not examples:
        raise DataError(f"{named(data)}: no text to measure with")
    examples = examples[:: -(-len(examples) // MOST_EXAMPLES)]
    while len(examples) > 1 and sum(len(text) for example in examples for text in example.texts) > TUNE_CHARACTERS:
        examples = examples[::2]
    return tune(artifact, examples, reporter, most_fall=most_fall)
