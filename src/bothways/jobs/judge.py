"""Scoring models on files with gold: one alone, or several in the honest table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bothways.analysis.compare import Comparison, compare
from bothways.analysis.report import write_report
from bothways.analysis.summary import machine, report_of
from bothways.errors import OptionError
from bothways.jobs.sources import columns_for, named
from bothways.metrics import Scores
from bothways.model.catalogue import find_model
from bothways.predictor import Predictor, load
from bothways.runtime.artifact import Artifact
from bothways.tasks import Trainable, scored
from bothways.tasks.task import Example, Prediction
from bothways.terminal import Reporter
from bothways.text.files import Columns, Source


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model scored on a file."""

    task: Trainable
    examples: tuple[Example, ...]
    predictions: tuple[Prediction, ...]
    scores: Scores

    def as_json(self) -> dict[str, Any]:
        """Task, n, the metrics with their 95 % intervals, each class, and the confusion counts."""
        answer: dict[str, Any] = {
            "task": self.task.name,
            "n": len(self.examples),
            "metrics": {name: interval.as_json() for name, interval in self.scores.metrics.items()},
        }
        if self.scores.per_class:
            answer["per_class"] = {
                row.label: {"precision": row.precision, "recall": row.recall, "f1": row.f1, "support": row.support}
                for row in self.scores.per_class
            }
        if self.scores.confusion is not None:
            answer["confusion"] = {"labels": list(self.scores.labels), "counts": self.scores.confusion.tolist()}
        return answer


def evaluate(
    model: str | Path | Predictor,
    data: Source,
    *,
    task: str | None = None,
    columns: Columns | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Evaluation:
    """Score a model on a file with gold: the predictions are those that it would serve.

    `task` and `settings` as in `load`. Raises `DataError` for a file that does not suit the model.
    """
    predictor = model if isinstance(model, Predictor) else load(model, task=task, reporter=reporter, **settings)
    made = scored(predictor.task)
    examples = made.read(data, columns_for(predictor.artifact, columns))
    made.check(examples)
    predictions = predictor.predict_examples(examples, reporter)
    golds = [example.gold for example in examples if example.gold is not None]
    scores = made.score(predictions, golds, rng=np.random.default_rng(seed))
    return Evaluation(made, tuple(examples), tuple(predictions), scores)


def compare_models(
    test: Source,
    models: Sequence[str | Path],
    train: Source | None = None,
    *,
    columns: Columns | None = None,
    report: str | Path | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Comparison:
    """The table of models on a test file; of those that give classes or numbers, the TF-IDF baseline, fitted on
    `train`, is the first row.

    `report` is where to write it as HTML, with the last model's confusions and mistakes.
    """
    directories = [find_model(model) for model in models]
    if not directories:
        raise OptionError("no model to compare; give at least one directory")
    artifact = Artifact.read(directories[0])
    task, columns = scored(artifact.task), columns_for(artifact, columns)
    examples = task.read(test, columns)
    known = [] if train is None else task.read(train, columns)
    comparison = compare(examples, directories, known, seed=seed, reporter=reporter)
    if report is not None:
        facts = [("Test texts", f"{len(examples):,} ({named(test)})"), ("Machine", machine())]
        write_report(Path(report), report_of(f"Comparison: {task.name}", comparison, examples, facts))
    return comparison
