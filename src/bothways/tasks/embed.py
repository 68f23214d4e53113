"""Texts as vectors: the mean of the pieces, the first piece, or its pooled form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from bothways.tasks.picture import Picture
from bothways.tasks.task import (
    Example,
    Pieces,
    Prediction,
    Task,
    grouped,
    how_read,
    owned,
)
from bothways.text.tokenizer import Encoded, Tokenizer


@dataclass(frozen=True, slots=True)
class Embedded(Prediction):
    """`vector` (C,) of a text, or (T, C) of its pieces; empty where there is an error."""

    vector: np.ndarray

    def answer(self, *, every_score: bool) -> dict[str, Any]:
        """embedding: the numbers."""
        return {"embedding": self.vector.tolist()}

    def said(self) -> tuple[str, float]:
        """Its first numbers."""
        return " ".join(f"{number:.3f}" for number in self.vector.ravel()[:8]) + " ...", 1.0

    def picture(self, example: Example) -> Picture:
        """The text and the first numbers."""
        return Picture((("", example.texts[0]),), note=self.said()[0], error=self.error)


@dataclass(frozen=True, slots=True)
class Embed(Task):
    """A vector for each text, `pooling`: "mean" over its pieces, special ones included, "cls", the first piece,
    "pooler", the first piece after the dense layer of pretraining; "none": (T, C), a vector for each piece.

    A long text's vector is the mean over its windows, each by its number of pieces.
    """

    name = "embed"
    pooling: Literal["mean", "cls", "pooler", "none"] = "mean"
    normalise: bool = False
    max_pieces: int = 512
    overlap: int = 0
    long: Literal["window", "cut"] = "window"

    @property
    def head(self) -> str:  # type: ignore[override]
        """No head of its own: every encoder can."""
        return "pooled" if self.pooling == "pooler" else "hidden"

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """Every encoder can."""
        return cls(**(settings | {"overlap": 0}))

    def failure(self, reason: str) -> Embedded:
        """No vector, and why."""
        return Embedded(np.zeros(0, np.float32), error=reason, windows=0)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Each example's windows; all pieces are read for the mean, those that no other window shows better for
        "none", else the first.
        """
        windows = self.windows(examples, tokenizer)
        if self.pooling == "mean":
            return [replace(window, reads=np.arange(len(window.ids))) for window in windows]
        if self.pooling != "none":
            return windows
        found = []
        for _, group in grouped(windows):
            for window, own in owned(group, 0):
                special = np.flatnonzero(window.texts < 0)
                first = special[special < own.min(initial=len(window.ids))] if window is group[0] else special[:0]
                last = special[special > own.max(initial=-1)] if window is group[-1] else special[:0]
                found.append(replace(window, reads=np.concatenate([first, own, last])))
        return found

    def reduce(self, rows: np.ndarray, window: Encoded) -> np.ndarray:
        """(K, C) -> (C,) their mean, or for "none" as they are."""
        return rows if self.pooling == "none" else rows.mean(0)

    def decode(
        self,
        example: Example,
        parts: Sequence[np.ndarray],
        windows: Sequence[Encoded],
        pieces: Pieces,
    ) -> Embedded:
        """(C,) of each window of one example -> its vector; for "none" (K, C) -> (T, C)."""
        if self.pooling == "none":
            vector = np.concatenate(parts)
        else:
            vector = np.average(parts, axis=0, weights=[len(window.ids) for window in windows]).astype(np.float32)
        if self.normalise:
            vector = vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
        return Embedded(vector, **how_read(windows))
