"""Helpers of jobs to read labeled files and to check their labels and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from bothways.data.examples import Example, labels_of
from bothways.data.tables import Columns, Source
from bothways.errors import DataError
from bothways.inference.model_directory import ModelDirectory
from bothways.tasks import TRAINED, Trainable
from bothways.tasks.classify import shortened
from bothways.text.tokenizer import Tokenizer

MANY_UNKNOWN = 0.1  # of the words
MAX_COUNTED = 1000  # examples


def columns_for(model_directory: ModelDirectory | None, columns: Columns | None) -> Columns:
    """Return columns for a trained model, with the label format of its training file as default.

    A zero-shot model has no such default, since its files have other labels than the training file.
    """
    columns = columns or Columns()
    if model_directory is None:
        return columns
    before = model_directory.facts.get("columns", {}) if model_directory.task.name in TRAINED else {}
    return replace(
        columns,
        kind=columns.kind or getattr(model_directory.task, "kind", None),
        separator=columns.separator or before.get("separator"),
        label_names=columns.label_names or before.get("label_names"),
    )


def unknown_words(tokenizer: Tokenizer, examples: Sequence[Example]) -> str | None:
    """Return a note if at least a tenth of the words, in a sample, are not in the vocabulary."""
    texts = [text for example in examples[:: -(-len(examples) // MAX_COUNTED) or 1] for text in example.texts]
    unknown, words = tokenizer.unknown_words(texts)
    if unknown < MANY_UNKNOWN * words or not unknown:
        return None
    return f"{100 * unknown / words:.0f} % of the words are not in the vocabulary, so the model reads them as [UNK]"


def named(source: Source) -> str:
    """Return the name of a source for reports: the path as given, or the file name of an absolute path."""
    if not isinstance(source, str | Path):
        return "rows in memory"
    return Path(source).name if Path(source).is_absolute() else str(source)


def seen_in_training(facts: Mapping[str, Any], source: Source) -> str | None:
    """Return a note if the file has the name of the training or dev file of the model."""
    if not isinstance(source, str | Path):
        return None
    name = named(source)
    if facts.get("train") == name:
        return f"{name} has the same name as the training file; scores on training texts are too high."
    if facts.get("dev") == name:
        return f"{name} has the name of the dev file used to choose the checkpoint; its scores are slightly too high."
    return None


Unknown = Literal["error", "wrong"]


def examples_with_unknown_labels(task: Trainable, examples: Sequence[Example], how: Unknown) -> list[bool]:
    """Return for each example whether it has a label unknown to the task.

    Raises `DataError` with the unknown labels if `how` is "error".
    """
    if task.loss not in ("single", "multi"):
        return [False] * len(examples)
    known = set(task.labels)
    counts: Counter[str] = Counter()
    found = []
    for example in examples:
        strange = [label for label in labels_of(example.reference) if label not in known]
        counts.update(strange)
        found.append(bool(strange))
    if counts and how == "error":
        first = examples[found.index(True)]
        label = next(label for label in labels_of(first.reference) if label not in known)
        all_of_them = [f"{one!r} ({n})" for one, n in counts.most_common()]
        raise DataError(
            f"{first.where}: label {label!r} is not one of the {len(known)} known: {shortened(task.labels)}; unknown "
            f"labels and their examples: {shortened(all_of_them, 20)}; correct them, or let "
            "evaluate count them as wrong (--unknown-labels wrong)"
        )
    return found
