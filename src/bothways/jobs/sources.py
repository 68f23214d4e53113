"""How the texts of a job are named and read."""

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
    """Columns for a trained model: how the labels of its training file were written holds for others, too.

    Not if the model does another task than it was trained for (zero-shot): then the file has other labels.
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
    """A note if a tenth of the words of some examples or more are not in the vocabulary (counted in a sample)."""
    texts = [text for example in examples[:: -(-len(examples) // MAX_COUNTED) or 1] for text in example.texts]
    unknown, words = tokenizer.unknown_words(texts)
    if unknown < MANY_UNKNOWN * words or not unknown:
        return None
    return f"{100 * unknown / words:.0f} % of the words are not in the vocabulary, so the model reads them as [UNK]"


def named(source: Source) -> str:
    """What a report calls it: a path as it was given, of an absolute one the last part."""
    if not isinstance(source, str | Path):
        return "rows in memory"
    return Path(source).name if Path(source).is_absolute() else str(source)


def seen_in_training(facts: Mapping[str, Any], source: Source) -> str | None:
    """A sentence for figures on a file that the model may have been trained or chosen on, by its name."""
    if not isinstance(source, str | Path):
        return None
    name = named(source)
    if facts.get("train") == name:
        return (
            f"{name} has the name of the training file; on texts that the model was trained on, figures are too good."
        )
    if facts.get("dev") == name:
        return f"{name} has the name of the dev file that chose the checkpoint: on it, figures are slightly too good."
    return None


Unknown = Literal["error", "wrong"]


def examples_with_unknown_labels(task: Trainable, examples: Sequence[Example], how: Unknown) -> list[bool]:
    """Which examples have a label that is not one of the task's.

    Raises `DataError` with all of these labels if they are an error.
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
