"""Evaluates a model on a labeled file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bothways import __version__
from bothways.data.examples import Example
from bothways.data.tables import Columns, Source
from bothways.errors import OptionError
from bothways.evaluation.summary import versions
from bothways.evaluation.verdicts import cautions, collapsed
from bothways.inference.predictor import Predictor, load
from bothways.jobs.sources import (
    Unknown,
    columns_for,
    examples_with_unknown_labels,
    named,
    seen_in_training,
    unknown_words,
)
from bothways.metrics import Scores
from bothways.progress import Reporter
from bothways.tasks import Trainable, ZeroShot, as_trainable
from bothways.tasks.task import Prediction

MAX_IN_JSON = 100  # labels in a confusion matrix; above it, only the confused pairs


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a model on a file; `facts` describe the model, settings, engine, file, versions and date."""

    task: Trainable
    examples: tuple[Example, ...]
    predictions: tuple[Prediction, ...]
    scores: Scores
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Evaluation of {self.facts.get('model')} on {len(self.examples):,} examples: {self.scores!r}>"

    def as_json(self) -> dict[str, Any]:
        """Return task, n, metrics with 95 % intervals, class scores, confusions, notes and facts as a JSON object."""
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
        if self.scores.confusion is not None and len(self.scores.labels) <= MAX_IN_JSON:
            answer["confusion"] = {"labels": list(self.scores.labels), "counts": self.scores.confusion.tolist()}
        if self.scores.confused:
            answer["confused"] = [
                {"reference": reference, "predicted": guess, "n": n}
                for reference, guess, n in self.scores.confused[:MAX_IN_JSON]
            ]
        return answer | {"notes": list(self.notes)} | self.facts

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each example as a JSON object: number, texts, reference, prediction, and whether it is correct.

        For regression, `difference` (prediction minus reference) replaces `correct`.
        """
        names = ("question", "context") if self.task.loss == "spans" else ("text", "text_pair")
        for example, prediction in zip(self.examples, self.predictions, strict=True):
            reference: Any = example.reference
            if isinstance(reference, tuple):
                reference = [one if isinstance(one, str) else one.text for one in reference]
            row: dict[str, Any] = {"number": example.number, "where": example.where}
            row |= dict(zip(names, example.texts, strict=False)) | {"reference": reference}
            row |= prediction.as_json(all_scores=self.task.loss == "tokens")
            if self.task.loss == "regression":
                row["difference"] = None if prediction.error is not None else row["score"] - reference
            else:
                row["correct"] = example.reference is not None and self.task.is_correct(prediction, example.reference)
            yield row


def evaluate(
    model: str | Path | Predictor,
    data: Source,
    *,
    task: str | None = None,
    columns: Columns | None = None,
    seed: int = 0,
    unknown_labels: Unknown = "error",
    reporter: Reporter | None = None,
    **settings: Any,
) -> Evaluation:
    """Score a model on a labeled file, with the same predictions as in serving.

    `task` and `settings` are as in `load`, for a model that is not loaded yet. Labels unknown to the model are an
    error; with `unknown_labels` "wrong", their examples count as wrong. Raises `DataError` for a file that does not fit
    the model, `OptionError` for invalid options.
    """
    if unknown_labels not in ("error", "wrong"):
        raise OptionError(f"found unknown_labels={unknown_labels!r}, expected error or wrong")
    reporter = reporter or Reporter(quiet=True)
    predictor = _loaded(model, task, settings, reporter)
    made = as_trainable(predictor.task)
    if isinstance(made, ZeroShot) and not made.labels:
        raise OptionError(
            "zero-shot needs labels to choose from: give candidate_labels=[...] (--candidate-labels a,b,c)"
        )
    examples = made.read(data, columns_for(predictor.model_directory, columns))
    unknown = examples_with_unknown_labels(made, examples, unknown_labels)
    made.check([example for example, strange in zip(examples, unknown, strict=True) if not strange])
    asked = [replace(one, reference=None) if strange else one for one, strange in zip(examples, unknown, strict=True)]
    predictions = predictor.predict_examples(asked, reporter)
    references = [example.reference for example in examples if example.reference is not None]
    scores = made.score(predictions, references, rng=np.random.default_rng(seed))
    notes = cautions(made, predictions, references)
    nothing = collapsed(made, predictions, references)
    notes += [f"The model {nothing}, so it does not distinguish the examples."] if nothing else []
    if any(unknown):
        notes.append(f"{sum(unknown)} of {len(examples)} examples have a label unknown to the model, counted as wrong.")
    facts = {} if predictor.model_directory is None else predictor.model_directory.facts
    familiar = seen_in_training(facts, data)
    notes += [familiar] if familiar else []
    unfamiliar = unknown_words(predictor.tokenizer, examples)
    notes += [f"{unfamiliar}."] if unfamiliar else []
    for note in notes:
        reporter.note(note)
    about = {
        "model": None if predictor.model_directory is None else str(predictor.model_directory.path),
        "settings": {name: value for name, value in made.as_json().items() if name not in ("labels", "nli")},
        "engine": predictor.engine.describe(),
        "file": named(data),
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"bothways": __version__} | versions(),
    }
    return Evaluation(made, tuple(examples), tuple(predictions), scores, about, tuple(notes))


def _loaded(model: str | Path | Predictor, task: str | None, settings: dict[str, Any], reporter: Reporter) -> Predictor:
    if not isinstance(model, Predictor):
        return load(model, task=task, reporter=reporter, **settings)
    if task is not None and task != model.task.name:
        raise OptionError(f"found task={task!r} for a loaded model that does {model.task.name}; give its directory")
    if settings:
        raise OptionError(f"found {next(iter(settings))}=, but the model is already loaded; pass it to load()")
    return model
