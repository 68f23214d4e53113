"""The data to draw a prediction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A highlighted span, text[start:end], with a label ("" for an answer) and a score."""

    start: int
    end: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Picture:
    """(caption, text) pairs, marks in the last text, a bar per label, a note and an error."""

    texts: tuple[tuple[str, str], ...]
    marks: tuple[Mark, ...] = ()
    bars: tuple[tuple[str, float], ...] = ()
    note: str = ""
    error: str | None = None
