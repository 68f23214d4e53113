"""What is drawn of a prediction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A part of a text that a model points at: text[start:end], with a label ("" for an answer) and a score."""

    start: int
    end: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Picture:
    """Texts with their captions, parts of the last one marked, a bar for each label, a note or an error."""

    texts: tuple[tuple[str, str], ...]
    marks: tuple[Mark, ...] = ()
    bars: tuple[tuple[str, float], ...] = ()
    note: str = ""
    error: str | None = None
