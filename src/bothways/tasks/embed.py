"""Texts as vectors: the mean of the pieces, the first piece, or its pooled form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from bothways.data.examples import Example
from bothways.tasks.picture import Picture
from bothways.tasks.task import Pieces, Prediction, Task, grouped, how_read, owned
from bothways.text.sentence_transformers import read_sentence_settings
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
    """A vector for each text. `pooling`: "mean" over its tokens, special tokens included; "cls", the first token;
    "pooler", the first token after the dense layer of pretraining; "none": (T, C), a vector for each token.

    `normalize` gives vectors of length 1. A long text is read in windows: the mean is over all of its tokens, each in
    the window that shows most around it; of "cls" and "pooler", over its windows.
    """

    name = "embed"
    pooling: Literal["mean", "cls", "pooler", "none"] = "mean"
    normalize: bool = False
    max_pieces: int = 512
    overlap: int = 0
    long: Literal["window", "cut"] = "window"

    @property
    def head(self) -> str:  # type: ignore[override]
        """No head of its own: every encoder can."""
        return "pooled" if self.pooling == "pooler" else "hidden"

    @classmethod
    def of_checkpoint(
        cls,
        config: dict[str, Any],
        *,
        directory: Path | None = None,
        limit: int | None = None,
        pooling: str | None = None,
        **settings: Any,
    ) -> Self:
        """Every encoder can; a `directory` of sentence-transformers says how.

        `limit` is how many tokens the model reads at most, `pooling` what the user chose: tokens and "pooler" are the
        encoder's own, whatever the directory says. Raises `CheckpointError` if its vectors cannot be computed here.
        """
        made = cls(**(settings | {"overlap": 0}))
        if directory is None or pooling in ("none", "pooler"):
            return made
        if (found := read_sentence_settings(directory, pooling)) is None:
            return made
        most = limit or made.max_pieces
        length = min(found.max_length or most, most)
        return replace(made, pooling=found.pooling, normalize=found.normalize, max_pieces=length, long="cut")

    def failure(self, reason: str) -> Embedded:
        """No vector, and why."""
        return Embedded(np.zeros(0, np.float32), error=reason, windows=0)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Each example's windows. For "mean" and "none" every token is read once, in the window that shows most around
        it, special tokens at both ends of the text; else the first token of each window.
        """
        windows = self.windows(examples, tokenizer)
        if self.pooling not in ("mean", "none"):
            return windows
        found = []
        for _, group in grouped(windows):
            if len(group) == 1:
                found.append(replace(group[0], reads=np.arange(len(group[0].ids))))
                continue
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
        """(C,) of each window of one example -> its vector, by the tokens read; for "none" (K, C) -> (T, C)."""
        if self.pooling == "none":
            vector = np.concatenate(parts)
        else:
            vector = np.average(parts, axis=0, weights=[len(window.reads) for window in windows]).astype(np.float32)
        if self.normalize:
            vector = vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
        return Embedded(vector, **how_read(windows))
