"""Read questions about passages from SQuAD files and rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

from bothways.data.examples import Example
from bothways.data.memory import is_missing
from bothways.data.spans import plain, whole_number
from bothways.data.squad import is_squad, read_squad
from bothways.data.tables import Columns, Row, Source, find_column, rows_of
from bothways.errors import DataError

NEAR = 5  # maximum error of answer_start, in characters, if an answer occurs several times
_COLUMNS = (
    ("question", ("question", "query"), "question (--text-column)"),
    ("passage", ("context", "passage", "paragraph", "document", "text"), "passage (--pair-column)"),
)
ANSWER_COLUMNS = ("answers", "answer", "answer_text")


class ReferenceAnswer(NamedTuple):
    """A reference answer: its text, its start in the passage, and whether the start is certain.

    `moved`: the answer was not at its answer_start.
    """

    text: str
    start: int
    certain: bool = True
    moved: bool = False


def read_answered(source: Source, columns: Columns) -> list[Example]:
    """Read questions with answers. Raises one `DataError` for all answers that do not occur in their passage."""
    examples: list[Example] = []
    wrong: list[tuple[str, str]] = []
    names: list[str] = []
    for row in _rows(source, columns, strict=True):
        names = names or _names(row, columns)
        question, passage = (_text(row, name) for name in names)
        if not question.strip() or not passage.strip():
            raise DataError(f"{row.where}: the question or the passage is empty; fill it in or remove the row")
        certain = bool(row.values.get("start_certain", True))
        answers = []
        for text, start in _listed(row, columns):
            given = _given(passage, text, start, certain=certain)
            if given is None:
                wrong.append((row.where, text))
            else:
                answers.append(given)
        examples.append(Example((question, passage), tuple(answers), row.where, row=row.values, number=row.number))
    if wrong:
        where, text = wrong[0]
        places = ", ".join(where for where, _ in wrong[:10]) + (", ..." if len(wrong) > 10 else "")
        raise DataError(
            f"{where}: the answer {text!r} does not occur in its passage; correct it, or write [] for no answer"
            + (f" ({len(wrong):,} answers: {places})" if len(wrong) > 1 else "")
        )
    return examples


def read_questions(source: Source, columns: Columns) -> Iterator[Example]:
    """Iterate over questions to answer; a question that cannot be read has an `error`."""
    names: list[str] = []
    for row in _rows(source, columns, strict=False):
        texts: tuple[str, ...] = ("", "")
        reason = row.error
        if reason is None:
            names = names or _names(row, columns)
            try:
                texts = tuple(_text(row, name) for name in names)
            except DataError as problem:
                reason = str(problem).removeprefix(f"{row.where}: ")
        yield Example(texts, None, row.where, None, row.values or None, row.number, reason)


def _rows(source: Source, columns: Columns, *, strict: bool) -> Iterator[Row]:
    if isinstance(source, str | Path) and (
        columns.format == "squad" or (columns.format is None and is_squad(str(source)))
    ):
        return read_squad(str(source), strict=strict)
    return rows_of(source, columns, strict=strict)


def _names(row: Row, columns: Columns) -> list[str]:
    wanted = columns.text_column, columns.pair_column
    return [
        find_column(list(row.values), wanted=name, usual=usual, purpose=purpose, where=row.where)
        for name, (_, usual, purpose) in zip(wanted, _COLUMNS, strict=True)
    ]


def _text(row: Row, name: str) -> str:
    """Return the text in a column, "" if it is missing; raises `DataError` if it is not a text."""
    value = plain(row.values.get(name))
    if is_missing(value):
        return ""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise DataError(f"{row.where}: the column {name!r} holds {value!r}, expected a text")
    return str(value)


def _listed(row: Row, columns: Columns) -> list[tuple[str, int | None]]:
    """Return the answers of a row, each with its answer_start if given; [] for a question without an answer.

    Accepts a list of answers (texts, or dicts with text and answer_start), a single answer, or a dict of two lists as
    in `datasets`. answer_start may be a separate column. Empty answers are dropped; an empty cell is an error.
    """
    name = find_column(
        list(row.values),
        wanted=columns.label_column,
        usual=ANSWER_COLUMNS,
        purpose="answers (--label-column)",
        where=row.where,
    )
    if str(row.values.get("is_impossible", "")).strip().casefold() in ("true", "1"):
        return []
    found = plain(row.values[name])
    starts = plain(row.values.get("answer_start"))
    if isinstance(found, str) and found.strip() == "[]":
        found = []
    if is_missing(found) or (isinstance(found, str) and not found.strip()):
        raise DataError(f"{row.where}: the answer in column {name!r} is empty; write [] for a question without answer")
    if isinstance(found, dict) and isinstance(plain(found.get("text")), list):
        found, starts = plain(found["text"]), plain(found.get("answer_start"))
    elif not isinstance(found, list):
        found, starts = [found], starts if isinstance(starts, list) else [starts]
    if not isinstance(starts, list):
        starts = [None] * len(found)
    if len(starts) != len(found):
        raise DataError(
            f"{row.where}: found {len(found)} answers and {len(starts)} numbers in answer_start, expected as many of "
            "each"
        )
    answers = [_answer(one, start, row) for one, start in zip(found, starts, strict=True)]
    return [(text, start) for text, start in answers if text]


def _answer(answer: Any, start: Any, row: Row) -> tuple[str, int | None]:
    text = plain(answer)
    if isinstance(text, dict):
        text, start = plain(text.get("text")), text.get("answer_start", start)
    if not isinstance(text, str):
        raise DataError(
            f"{row.where}: found {answer!r} as an answer, expected a list of answers, each a text or text and "
            "answer_start; [] if there is none"
        )
    if is_missing(plain(start)) or not str(start).strip():
        return text.strip() and text, None
    number = whole_number(start)
    if number is None:
        raise DataError(f"{row.where}: answer_start is {start!r}, expected the number of a character, from 0")
    return text.strip() and text, number


def _given(passage: str, text: str, start: int | None, *, certain: bool) -> ReferenceAnswer | None:
    """Locate an answer in its passage; None if it does not occur there.

    If it is not at `start`, search for it, also stripped and in NFC and NFD. Take the occurrence nearest to `start`
    if it is within `NEAR` characters, else the first one, which is certain only if it is the only one.
    """
    if start is not None and start >= 0 and passage.startswith(text, start):
        return ReferenceAnswer(text, start, certain)
    spellings = dict.fromkeys([text, text.strip(), normalize("NFC", text.strip()), normalize("NFD", text.strip())])
    for spelling in spellings:
        places = _places_of(spelling, passage)
        if not places:
            continue
        if start is not None and len(places) > 1:
            (distance, place), (second, _) = sorted((abs(place - start), place) for place in places)[:2]
            if distance <= NEAR and distance < second:
                return ReferenceAnswer(spelling, place, certain, moved=True)
        return ReferenceAnswer(spelling, places[0], len(places) == 1 and certain, moved=start is not None)
    return None


def _places_of(text: str, passage: str) -> list[int]:
    places, place = [], passage.find(text)
    while place >= 0:
        places.append(place)
        place = passage.find(text, place + 1)
    return places
