"""The protocol that every task follows, the records that pass through it, and how rows become examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from bothways.errors import DataError, OptionError
from bothways.metrics import Scores
from bothways.text.files import Columns, Row, Source, find_column, read_rows
from bothways.text.tokenizer import Encoded, Tokenizer

Gold = str | tuple[str, ...] | float
"""What a human answered: a label, a set of labels (multi-label), or a number (regression)."""

LABEL_COLUMNS = ("label", "labels", "category", "class", "intent", "target", "sentiment", "gold_label")
NUMBER_COLUMNS = ("score", "similarity")


@dataclass(frozen=True, slots=True)
class Example:
    """What one row of a file means: one text or two, the human's answer if it has one, and its place."""

    texts: tuple[str, ...]
    gold: Gold | None = None
    where: str = "input"


def labels_of(gold: Gold | None) -> tuple[str, ...]:
    """All labels of a gold, none for a number."""
    if isinstance(gold, tuple):
        return gold
    return (gold,) if isinstance(gold, str) else ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one example.

    `label` is the best class ("" if none could be given), `score` its probability (for regression the
    number itself), `scores` every class's, `labels` all classes above the threshold (multi-label only),
    `windows` how many windows the text was read in, `truncated` how many pieces were not read.
    """

    label: str
    score: float
    scores: dict[str, float] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    windows: int = 1
    truncated: int = 0
    error: str | None = None

    def as_json(self, *, every_score: bool = False) -> dict[str, Any]:
        """The prediction as one JSON object; `every_score` adds the score of each class."""
        if self.error is not None:
            return {"label": None, "score": None, "error": self.error}
        answer: dict[str, Any] = {"label": self.label, "score": self.score}
        if self.labels is not None:
            answer["labels"] = list(self.labels)
        if every_score:
            answer["scores"] = self.scores
        return answer | {"windows": self.windows, "truncated": self.truncated}


class Task(Protocol):
    """What training, evaluation, prediction and serving ask of a task."""

    name: ClassVar[str]
    max_pieces: int

    @classmethod
    def read(cls, source: Source, columns: Columns, *, gold: bool = True) -> list[Example]:
        """The examples of a file, or of rows in memory."""
        ...

    @classmethod
    def learn(cls, examples: Sequence[Example], **settings: Any) -> Self:
        """The task that training examples describe."""
        ...

    @property
    def headline(self) -> str:
        """The metric that decides."""
        ...

    def check(self, examples: Sequence[Example]) -> None:
        """Raise `DataError` at the first gold that the task cannot predict."""
        ...

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """The windows of each example, with targets where there is gold."""
        ...

    def decode(self, logits: np.ndarray, windows: Sequence[Encoded]) -> Prediction:
        """The prediction from the logits of all windows of one example."""
        ...

    def score(self, predictions: Sequence[Prediction], golds: Sequence[Gold], *, rng: np.random.Generator) -> Scores:
        """The metrics of predictions against golds."""
        ...


def read_examples(source: Source, texts: Sequence[Sequence[str]], columns: Columns, *, gold: bool) -> list[Example]:
    """Rows -> examples with one text for each of `texts`, the usual names of its column.

    Without `gold`, a label column is not looked for and an empty text is let through (the prediction says
    so). Raises `DataError` with the row's place.
    """
    if columns.separator is not None and columns.kind not in (None, "multi"):
        raise OptionError(f"a separator makes several labels of a cell, which is not of kind {columns.kind!r}")
    examples: list[Example] = []
    found: list[str] = []
    answer = ""
    kind = columns.kind
    for row in read_rows(source, header=columns.header):
        if not found:
            available, wanted = list(row.values), (columns.text_column, columns.pair_column)
            for place, usual in enumerate(texts):
                purpose = ("text (--text-column)", "second text (--pair-column)")[place]
                free = [name for name in available if name not in found]
                found.append(find_column(free, wanted=wanted[place], usual=usual, purpose=purpose, where=row.where))
            if gold:
                usual = (*LABEL_COLUMNS, *NUMBER_COLUMNS)
                answer = find_column(
                    available,
                    wanted=columns.label_column,
                    usual=usual,
                    purpose="label (--label-column)",
                    where=row.where,
                )
                if kind is None and answer.casefold() in NUMBER_COLUMNS:
                    kind = "regression"
        words = tuple(_text(row, name, empty=not gold) for name in found)
        examples.append(Example(words, _gold(row, answer, kind, columns) if gold else None, row.where))
    return examples


def _text(row: Row, column: str, *, empty: bool) -> str:
    value = row.values.get(column)
    text = "" if value is None or _is_nan(value) else str(value)
    if not text.strip() and not empty:
        raise DataError(f"{row.where}: the text in column {column!r} is empty; fill it in or remove the row")
    return text


def _gold(row: Row, column: str, kind: str | None, columns: Columns) -> Gold:
    value: Any = row.values.get(column)
    several = isinstance(value, list | tuple | np.ndarray)
    blank = value is None or _is_nan(value) or (not several and not str(value).strip())
    if blank and columns.separator is not None:
        return ()  # of several labels, none
    if blank:
        raise DataError(f"{row.where}: the label in column {column!r} is empty; fill it in or remove the row")
    if kind == "regression":
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"{row.where}: {value!r} in column {column!r} is not a number")
        return number
    if several:
        parts = list(value)
    elif columns.separator is not None:
        parts = str(value).split(columns.separator)
    elif kind == "multi":
        parts = [value]
    else:
        return _name(row, value, _names(columns))
    return tuple(dict.fromkeys(_name(row, part, _names(columns)) for part in parts if str(part).strip()))


def _name(row: Row, value: Any, names: Sequence[str]) -> str:
    written = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    if not names or written in names:
        return written
    if not written.isdecimal() or int(written) >= len(names):
        raise DataError(f"{row.where}: label {written!r} is neither a known name nor a number below {len(names)}")
    return names[int(written)]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _names(columns: Columns) -> list[str]:
    return [name.strip() for name in columns.label_names.split(",")] if columns.label_names else []
