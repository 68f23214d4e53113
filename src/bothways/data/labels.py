"""Convert a label column to references: names, sets of names, or numbers, with consistent spelling."""

from __future__ import annotations

import json
import logging
import math
import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from numbers import Number, Real
from typing import Any, NamedTuple

from bothways.data.memory import is_missing, plain
from bothways.data.tables import Columns, Kind, clean_label, plain_name, split_quoted
from bothways.errors import DataError

NUMBER_COLUMNS = ("score", "similarity")
MANY = 10  # minimum number of labels that occur once to report them; of whole numbers, twice as many
LISTED = 3  # maximum number of labels in a message
NO_LABEL = "-"  # in a column "gold_label": the annotators disagreed (SNLI, MNLI)
_LOG = logging.getLogger("bothways")
_WHOLE = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": "True", "false": "False"}
_JOINED = re.compile(r"\d+(?:,\d+)*")  # a number with a decimal comma, or several numbers
_NOTHING = {"nan", "null", "<na>", "nat", "n/a", "#n/a"}  # common spellings of missing values, in lower case
# Cyrillic and Greek letters that look like Latin ones.
_ALIKE = str.maketrans("аеорсухіјѕԁһкмтвнαοεικνρτυχ", "aeopcyxijsdhkmtbhaoeiknptux")


class Cell(NamedTuple):
    """The value of a row in the label column, and the row's location."""

    value: Any
    where: str


def labels_of_cells(cells: Sequence[Cell], column: str, columns: Columns) -> list[Any]:
    """Return the references of a column: str (one class), tuple of str (several), float (regression), None (skip).

    Without `columns.kind`, lists or a separator mean several labels per row, and numbers that are not all whole mean
    regression. Raises `DataError` with the location of the row.
    """
    kind = columns.kind
    if kind is None and plain_name(column) in NUMBER_COLUMNS:
        kind = "regression"
    cells = [Cell(plain(cell.value), cell.where) for cell in cells]
    left_out = _without_label(cells, column)
    parts = [[] if out else _parts(cell, column, kind, columns) for cell, out in zip(cells, left_out, strict=True)]
    every = [Cell(part, cell.where) for cell, some in zip(cells, parts, strict=True) for part in some or ()]
    lists = any(isinstance(cell.value, list | tuple) for cell in cells)
    if kind is None and columns.separator is None and not lists and not columns.names() and _are_amounts(every, column):
        kind = "regression"
    if kind == "regression":
        return [None if out else _amount(cell, column) for cell, out in zip(cells, left_out, strict=True)]
    if kind is None and columns.separator is None:
        _check_joined(every, column)
    if lists and columns.kind != "single":
        parts = _without_vectors(cells, parts, columns)
    spell = speller([part for some in parts for part in some], columns.names())
    references: list[Any] = []
    for cell, some, out in zip(cells, parts, left_out, strict=True):
        names = tuple(dict.fromkeys(_name(cell.where, spell(part), columns) for part in some))
        several = isinstance(cell.value, list | tuple) or columns.separator is not None or kind == "multi"
        references.append(None if out else names if several else names[0])
    _note_unused(
        [
            name
            for reference in references
            for name in ((reference,) if isinstance(reference, str) else reference or ())
        ],
        columns,
    )
    return references


def label_name(where: str, value: Any, columns: Columns) -> str:
    """Return the normalized label, or the name of a numeric label; raises `DataError` if it has no name."""
    return _name(where, speller([value], columns.names())(value), columns)


def speller(values: Iterable[Any], names: Sequence[str] = ()) -> Callable[[Any], str]:
    """Return a function that spells a column's labels consistently: 1, 1.0, "1" and "1.0" alike, True and "true" too.

    >>> [speller([1.0, "0"])(value) for value in (1.0, "0")], speller(["1.0", "v1"])("1.0")
    (['1', '0'], '1.0')
    """
    values = list(values)
    booleans = [value for value in values if isinstance(value, bool) or _text(value).casefold() in _BOOLEANS]
    rest = [value for value in values if not isinstance(value, bool) and _text(value).casefold() not in _BOOLEANS]
    whole = all(_whole(value) is not None for value in rest)
    if booleans and not rest and not (names and not {"True", "False"} & set(names)):
        return lambda value: _BOOLEANS[_text(value).casefold()]
    if booleans and whole and {_whole(value) for value in rest} <= {"0", "1"}:
        return lambda value: _whole(value) or str(int(_text(value).casefold() == "true"))
    if whole and not booleans:
        return lambda value: _whole(value) or _text(value)
    numbers = [_number(value) for value in values]
    if all(number is not None for number in numbers) and any(number % 1 for number in numbers if number is not None):
        return lambda value: _whole(value) or repr(_number(value))
    return lambda value: _text(value)


def label_notes(references: Sequence[Any]) -> list[str]:
    """Return notes for the user on the labels of training rows, one per line."""
    if all(isinstance(reference, float) for reference in references):
        return [
            f"the labels are numbers from {min(references):g} to {max(references):g}, learned by regression; "
            "--kind single takes them as names of classes"
        ]
    counts = Counter(
        label for reference in references for label in ((reference,) if isinstance(reference, str) else reference)
    )
    notes = []
    alike: dict[str, list[str]] = {}
    for label in counts:
        alike.setdefault(skeleton(label), []).append(label)
    for some in [sorted(labels) for labels in alike.values() if len(labels) > 1][:LISTED]:
        notes.append(f"the labels {', '.join(map(ascii, some))} differ only in case, spaces or look, and are different")
    nothing = [label for label in counts if _means_nothing(label, counts)]
    if nothing:
        rows = sum(counts[label] for label in nothing)
        notes.append(
            f"{rows:,} {'rows have' if rows > 1 else 'row has'} the label {' or '.join(nothing)}, learned as a class; "
            "leave out rows without a label"
        )
    joined = _joined(counts)
    if joined:
        label, separator = joined[0]
        notes.append(
            f"{len(joined):,} of {len(counts):,} labels are made of others, such as {label!r}; if they are several "
            f"labels, give --separator {separator!r}"
        )
    once = [label for label, count in counts.items() if count == 1]
    if len(once) >= MANY and 3 * len(once) >= len(counts):
        notes.append(
            f"{len(once):,} of {len(counts):,} labels occur once ({', '.join(map(repr, once[:LISTED]))} ...): a model "
            "cannot learn them; check the label column"
        )
    if len(counts) >= 2 * MANY and all(_whole(label) is not None for label in counts):
        notes.append(f"the labels are {len(counts):,} whole numbers, learned as classes; --kind regression for amounts")
    quoted = [label for label in counts if len(label) > 1 and label.startswith('"') and label.endswith('"')]
    if quoted:
        notes.append(f"the label {quoted[0]} is in quotes; if they are not part of it, save the file as .csv")
    return notes


def skeleton(label: str) -> str:
    """Return a key that is equal for labels that look alike, ignoring case, spaces and punctuation.

    >>> skeleton("Very  Good") == skeleton("very-good") == skeleton("very_good "), skeleton("-1") == skeleton("1")
    (True, False)
    """
    plain = unicodedata.normalize("NFKC", label).casefold().translate(_ALIKE)
    return re.sub(r"(?![-+.,]\d)[\W_]+", "", plain) or label


def _means_nothing(label: str, others: Iterable[str]) -> bool:
    """Whether a label means "missing": a usual spelling, "-" without "+", or -1 if 0 exists (as in `datasets`)."""
    if label in ("-", "-1"):
        return ("0" in others) if label == "-1" else "+" not in others
    return label.casefold() in _NOTHING or label == "None"


def _joined(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Return the labels that consist of other labels joined by a separator, each with its separator."""
    known = set(labels)
    return [
        (label, separator)
        for label in known
        for separator in ",;|"
        if separator in label and all(clean_label(part) in known for part in label.split(separator))
    ]


def _check_joined(cells: Sequence[Cell], column: str) -> None:
    """Raise `DataError` if all labels are numbers and some have a comma, which is ambiguous."""
    texts = [_text(cell.value) for cell in cells]
    place = next((place for place, text in enumerate(texts) if "," in text), None)
    if place is not None and all(map(_JOINED.fullmatch, texts)):
        raise DataError(
            f"{cells[place].where}: the label {texts[place]!r} in column {column!r} is a number with a comma, or "
            "several numbers; write decimals with a point, or separate labels with --separator ','; --kind single "
            "takes it as it is"
        )


def _note_unused(labels: Iterable[str], columns: Columns) -> None:
    """Warn if the last label names do not occur, as when a name with a comma was split in two."""
    names, known = columns.names(), set(labels)
    last = max((place for place, name in enumerate(names) if name in known), default=-1)
    if 0 <= last < len(names) - 1:
        some = ", ".join(map(repr, names[last + 1 :][:LISTED]))
        _LOG.warning("no row has the last %d of %d label names (%s)", len(names) - 1 - last, len(names), some)


def _text(value: Any) -> str:
    return clean_label(str(value))


def _whole(value: Any) -> str | None:
    """Return the canonical spelling of a whole number; None for other values, such as "007"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Real | Decimal):
        number: Any = value
        return str(int(number)) if math.isfinite(number) and number == int(number) else None
    match = _WHOLE.fullmatch(_text(value))
    return None if match is None else (match[1] + match[2] if match[2] != "0" else "0")


def _number(value: Any) -> float | None:
    """Convert a label to a finite float; None if it is not a number."""
    if isinstance(value, bool):
        return None
    if not isinstance(value, Real | Decimal) and not _NUMBER.fullmatch(_text(value)):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _without_label(cells: Sequence[Cell], column: str) -> list[bool]:
    """Mark the rows without an agreed label ("-" in "gold_label"), and log their number."""
    found = [isinstance(cell.value, str) and cell.value.strip() == NO_LABEL for cell in cells]
    positive = any(isinstance(cell.value, str) and cell.value.strip() == "+" for cell in cells)
    if plain_name(column) != "gold_label" or positive or not any(found):
        return [False] * len(cells)
    if all(found):
        raise DataError(f"{cells[0].where} and below: every {column} is '-'; expected rows with a label")
    _LOG.warning("%s and others: %d rows have no label ('-') and are left out", _first(cells, found), sum(found))
    return found


def _first(cells: Sequence[Cell], found: Sequence[bool]) -> str:
    return next(cell.where for cell, one in zip(cells, found, strict=True) if one)


def _parts(cell: Cell, column: str, kind: Kind | None, columns: Columns) -> list[Any]:
    """Return the labels in a cell: one, unless it is a list or has a separator; [] only if several are allowed."""
    value, where = cell
    several = isinstance(value, list | tuple)
    if is_missing(value) or (isinstance(value, str) and not clean_label(value)):
        if columns.separator is not None:
            return []
        raise DataError(f"{where}: the label in column {column!r} is empty; fill it in or remove the row")
    if several:
        parts = [plain(part) for part in value]
        for part in parts:
            _check_label(part, column, where, "a label in the list")
    else:
        _check_label(value, column, where, "the label")
        parts = [value]
        if columns.separator is not None and isinstance(value, str):
            parts = list(split_quoted(value, columns.separator))
        elif kind != "single" and isinstance(value, str) and _is_written_list(value):
            raise DataError(
                f"{where}: the label {reprlib.repr(value)} in column {column!r} is a list written as text; write JSON "
                "lines or Parquet, or one text with a separator (--separator); --kind single takes it as it is"
            )
    return [part for part in parts if not isinstance(part, str) or clean_label(part)]


def _check_label(value: Any, column: str, where: str, what: str) -> None:
    if is_missing(value):
        raise DataError(f"{where}: {what} in column {column!r} is empty; fill it in or remove it")
    if isinstance(value, str | Number | Decimal):
        return
    hint = "; lists of [start, end, label] are spans, which the task tag learns" if isinstance(value, list) else ""
    raise DataError(
        f"{where}: {what} in column {column!r} is a {type(value).__name__}, {reprlib.repr(value)}, expected a name or "
        f"a number{hint}"
    )


def _is_written_list(text: str) -> bool:
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return False
    try:
        return isinstance(json.loads(text.replace("'", '"')), list)
    except (ValueError, RecursionError):
        return False


def _are_amounts(cells: Sequence[Cell], column: str) -> bool:
    """Whether labels are numbers, not all whole; raises `DataError` if there are fractions and non-numbers."""
    numbers = [_number(cell.value) for cell in cells]
    broken = next((place for place, number in enumerate(numbers) if number is not None and number % 1), None)
    if broken is None:
        return False
    other = next((place for place, number in enumerate(numbers) if number is None), None)
    if other is not None:
        raise DataError(
            f"{cells[other].where}: the label {cells[other].value!r} in column {column!r} is not a number, while "
            f"{cells[broken].value!r} at {cells[broken].where} is one; correct it, or say what the labels are: --kind "
            "regression or --kind single"
        )
    return True


def _amount(cell: Cell, column: str) -> float:
    number = None if isinstance(cell.value, list | tuple) else _number(cell.value)
    if number is None:
        comma = isinstance(cell.value, str) and _NUMBER.fullmatch(cell.value.strip().replace(",", ".", 1))
        hint = "; write decimals with a point" if comma else "; --kind single takes labels as names of classes"
        raise DataError(f"{cell.where}: {reprlib.repr(cell.value)} in column {column!r} is not a number{hint}")
    return number


def _without_vectors(cells: Sequence[Cell], parts: list[list[Any]], columns: Columns) -> list[list[Any]]:
    """Convert 0/1 vectors with an entry per label name to lists of the indices of the labels that apply."""
    sizes = {len(cell.value) if isinstance(cell.value, list | tuple) else -1 for cell in cells}
    flat = {_whole(part) or _text(part) for some in parts for part in some}
    repeated = any(len({_whole(part) for part in some}) < len(some) for some in parts)
    if len(sizes) != 1 or not flat <= {"0", "1"} or not repeated:
        return parts
    size = sizes.pop()
    if size != len(columns.names()):
        raise DataError(
            f"{cells[0].where} and below: the labels are vectors of {size} zeros and ones; name the {size} labels "
            "(--label-names), or list those that apply"
        )
    return [[place for place, part in enumerate(some) if _whole(part) == "1"] for some in parts]


def _name(where: str, label: str, columns: Columns) -> str:
    names = columns.names()
    if not names or label in names:
        return label
    if not label.isdecimal() or int(label) >= len(names):
        raise DataError(f"{where}: label {label!r} is neither a known name nor a number below {len(names)}")
    return names[int(label)]
