"""The `Example` record of all tasks, and the conversion of rows with texts and labels to examples."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time
from decimal import Decimal
from numbers import Number
from typing import Any

from bothways.data.labels import NUMBER_COLUMNS, Cell, labels_of_cells
from bothways.data.memory import is_missing, plain
from bothways.data.tables import Columns, Row, Source, find_column, rows_of
from bothways.data.words import Places
from bothways.errors import DataError, OptionError

Reference = str | tuple[Any, ...] | float
"""A reference: a label, a set of labels, a number, one tag per word, or the answers to a question."""


LABEL_COLUMNS = ("label", "labels", "category", "class", "intent", "target", "sentiment", "gold_label")


@dataclass(frozen=True, slots=True)
class Words:
    """The (start, end) of each word of an example, and the scheme of its tags.

    `cut`: the words are those of `split_words`, split further where reference entities start or end inside them, so
    that spans can be scored. Predictions never use these words.
    """

    places: Places
    cut: bool = False
    scheme: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidateLabels:
    """The candidate labels of an example (zero-shot)."""

    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a file: its text or texts, its reference if it has one, and its location for error messages.

    `details` holds other task inputs: the word offsets (tag), the candidate labels (zero-shot). `row` has all columns
    as they were read, `number` is the line or row number (from 1). `error` is the reason why the row cannot be
    answered; its prediction has the same error.
    """

    texts: tuple[str, ...]
    reference: Reference | None = None
    where: str = "input"
    details: Words | CandidateLabels | None = None
    row: Mapping[str, Any] | None = field(default=None, compare=False)
    number: int | None = field(default=None, compare=False)
    error: str | None = None


def labels_of(reference: Reference | None) -> tuple[str, ...]:
    """Return the labels of a reference; () for a number or for answers to a question."""
    if isinstance(reference, tuple):
        return tuple(label for label in reference if isinstance(label, str))
    return (reference,) if isinstance(reference, str) else ()


def read_examples(source: Source, texts: Sequence[Sequence[str]], columns: Columns) -> list[Example]:
    """Read labeled examples from rows; `texts` lists the usual column names of each text.

    Raises `DataError` with the location of the row.
    """
    if columns.separator is not None and columns.kind not in (None, "multi"):
        raise OptionError(f"a separator is for several labels per cell (kind 'multi'), found kind {columns.kind!r}")
    found: list[str] = []
    label = ""
    examples: list[Example] = []
    cells: list[Cell] = []
    for row in rows_of(source, columns, strict=True):
        if not found:
            found, usual = _text_columns(row, texts, columns), (*LABEL_COLUMNS, *NUMBER_COLUMNS)
            label = find_column(
                list(row.values),
                wanted=columns.label_column,
                usual=usual,
                purpose="label (--label-column)",
                where=row.where,
            )
        words, error = _texts(row, found, name_column=True)
        if error is not None:
            raise DataError(f"{row.where}: {error}")
        examples.append(Example(words, None, row.where, None, row.values, row.number))
        cells.append(Cell(row.values.get(label), row.where))
    references = labels_of_cells(cells, label, columns)
    return [
        replace(one, reference=reference)
        for one, reference in zip(examples, references, strict=True)
        if reference is not None
    ]


def input_examples(source: Source, texts: Sequence[Sequence[str]], columns: Columns) -> Iterator[Example]:
    """Iterate over examples to predict, one per row and in order; a row that cannot be answered has an `error`.

    Raises `DataError` only if reading cannot continue, or if there is no text column.
    """
    return _inputs(rows_of(source, columns, strict=False), texts, columns)


def _inputs(rows: Iterator[Row], texts: Sequence[Sequence[str]], columns: Columns) -> Iterator[Example]:
    found: list[str] = []
    for row in rows:
        if row.error is None and not found:
            found = _text_columns(row, texts, columns)
        words, error = (
            (("",) * len(texts), row.error) if row.error is not None else _texts(row, found, name_column=len(found) > 1)
        )
        yield Example(words, None, row.where, None, row.values or None, row.number, error)


def _text_columns(row: Row, texts: Sequence[Sequence[str]], columns: Columns) -> list[str]:
    found: list[str] = []
    for place, usual in enumerate(texts):
        purpose = ("text (--text-column)", "second text (--pair-column)")[place]
        wanted = (columns.text_column, columns.pair_column)[place]
        free = [name for name in row.values if name not in found]
        found.append(find_column(free, wanted=wanted, usual=usual, purpose=purpose, where=row.where))
    return found


def _texts(row: Row, names: Sequence[str], *, name_column: bool) -> tuple[tuple[str, ...], str | None]:
    """Return the texts of a row, and the error message for the first invalid one."""
    words, errors = [], []
    for name in names:
        value = plain(row.values.get(name))
        text = "" if is_missing(value) else str(value)
        where = f"the text in column {name!r}" if name_column else "the text"
        if not is_missing(value) and not isinstance(value, str | Number | Decimal | date | time):
            hint = " (words with tags are for the task tag)" if isinstance(value, list | tuple) else ""
            errors.append(f"{where} is a {type(value).__name__}, {reprlib.repr(value)}, expected a string{hint}")
            text = ""
        elif not text.strip():
            errors.append(f"{where} is empty" + ("; fill it in or remove the row" if name_column else ""))
        words.append(text)
    return tuple(words), errors[0] if errors else None
