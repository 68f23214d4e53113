"""How the texts of a job are named and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bothways.runtime.artifact import Artifact
from bothways.tasks import TRAINED
from bothways.tasks.task import Example
from bothways.text.files import Columns, Source
from bothways.text.tokenizer import Tokenizer

MANY_UNKNOWN = 0.1  # of the words
MOST_COUNTED = 1000  # examples


def columns_for(artifact: Artifact | None, columns: Columns | None) -> Columns:
    """Columns for a trained model: how the labels of its training file were written holds for others, too.

    Not if the model does another task than it was trained for (zero-shot): then the file has other labels.
    """
    columns = columns or Columns()
    if artifact is None:
        return columns
    before = artifact.facts.get("columns", {}) if artifact.task.name in TRAINED else {}
    return replace(
        columns,
        kind=columns.kind or getattr(artifact.task, "kind", None),
        separator=columns.separator or before.get("separator"),
        label_names=columns.label_names or before.get("label_names"),
    )


def unknown_words(tokenizer: Tokenizer, examples: Sequence[Example]) -> str | None:
    """A note if a tenth of the words of some examples or more are not in the vocabulary (counted in a sample)."""
    texts = [text for example in examples[:: -(-len(examples) // MOST_COUNTED) or 1] for text in example.texts]
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
