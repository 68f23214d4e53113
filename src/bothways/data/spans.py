"""Entities as character spans, and their conversion to word tags.

text    a Paris-based firm        span    2:7 LOC
words   a Paris - based firm      tags    O B-LOC O O O
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from bothways.data import memory
from bothways.data.words import Places
from bothways.errors import DataError

Span = tuple[int, int, str]  # start, end, type
_STARTS, _ENDS = ("start", "start_offset", "begin"), ("end", "end_offset")
_TYPES = ("label", "labels", "entity_group", "type", "tag", "entity")


def plain(value: Any) -> Any:
    """Convert arrays, tensors and tuples to lists, and their scalars to Python; return other values unchanged."""
    value = memory.plain(value)
    return list(value) if isinstance(value, tuple) else value


def whole_number(value: Any) -> int | None:
    """Convert a whole number, such as 3, 3.0 or "3", to int; None for anything else."""
    value = plain(value)
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        return int(value)
    number = isinstance(value, Real) and not isinstance(value, bool)
    return int(value) if number and float(value).is_integer() else None


def read_spans(found: Iterable[Any], text: str, where: str) -> list[Span]:
    """Read the spans of a text, sorted: dicts with start, end and label, or lists of the three (doccano, spaCy).

    White space at the ends of spans is removed. Raises `DataError` for a span that is invalid, outside the text,
    empty, overlaps another one, or has a text that does not match its offsets.
    """
    spans = sorted({_span(plain(one), text, where) for one in found})
    for before, after in pairwise(spans):
        if after[0] < before[1]:
            shown = " and ".join(f"{text[start:end]!r} ({start}:{end} {kind})" for start, end, kind in (before, after))
            raise DataError(f"{where}: the spans {shown} overlap; a word has one tag, so keep one of them")
    return spans


def cut_words(words: Places, spans: Sequence[Span]) -> Places:
    """Split words where spans start or end inside them.

    >>> cut_words(((0, 4), (5, 15)), [(5, 11, "PER")])
    ((0, 4), (5, 11), (11, 15))
    """
    edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
    found: list[tuple[int, int]] = []
    for start, end in words:
        inside = [start, *(edge for edge in edges if start < edge < end), end] if edges else [start, end]
        found += pairwise(inside)
    return tuple(found)


def tag_words(words: Places, spans: Sequence[Span], length: int) -> tuple[str, ...]:
    """Return the BIO tag of each word: that of the span with most of its characters. `length` is the text's.

    >>> tag_words(((0, 3), (4, 7), (8, 12)), [(0, 7, "PER")], 12)
    ('B-PER', 'I-PER', 'O')
    """
    owner = np.full(length, -1)
    for number, (start, end, _) in enumerate(spans):
        owner[start:end] = number
    tags, before = [], -1
    for start, end in words:
        inside = owner[start:end]
        inside = inside[inside >= 0]
        number = int(np.bincount(inside).argmax()) if len(inside) else -1
        tags.append("O" if number < 0 else f"{'I' if number == before else 'B'}-{spans[number][2]}")
        before = number
    return tuple(tags)


def _span(one: Any, text: str, where: str) -> Span:
    if isinstance(one, Mapping):
        value = one.get("value", one)  # Label Studio
        start, end, kind = (
            next((value[name] for name in names if name in value), None) for names in (_STARTS, _ENDS, _TYPES)
        )
        said = value.get("text", value.get("word"))
    else:
        start, end, kind, said = (*one, None) if isinstance(one, list) and len(one) == 3 else (None,) * 4
    start, end, kind = whole_number(start), whole_number(end), plain(kind)
    if isinstance(kind, list) and len(kind) == 1:
        kind = kind[0]
    if start is None or end is None or not isinstance(kind, str | int) or not str(kind).strip():
        raise DataError(f'{where}: the span {one!r} is not {{"start", "end", "label"}} or [start, end, label]')
    if not 0 <= start < end <= len(text):
        raise DataError(f"{where}: the span {one!r} is empty or goes beyond the {len(text)} characters of the text")
    covered = text[start:end]
    if isinstance(said, str) and said.strip() != covered.strip():
        raise DataError(
            f"{where}: the span {one!r} covers {covered!r}, not its own text; offsets count characters, not bytes"
        )
    if not covered.strip():
        raise DataError(f"{where}: the span {one!r} covers only white space; remove it")
    if str(kind).strip().casefold() == "o":
        raise DataError(f"{where}: the span {one!r} has the type O, which means no entity; remove it")
    end -= len(covered) - len(covered.rstrip())
    start += len(covered) - len(covered.lstrip())
    return start, end, str(kind).strip()
