"""Text embeddings: the mean over tokens, the first token, or the pooled first token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from bothways.data.examples import Example
from bothways.tasks.picture import Picture
from bothways.tasks.task import Prediction, Task, grouped, reading_stats, with_most_context
from bothways.text.sentence_transformers import read_sentence_settings
from bothways.text.tokenizer import Encoded, Tokenizer


@dataclass(frozen=True, slots=True)
class EmbedPrediction(Prediction):
    """`vector` is (C,) for a text, or (T, C) for its tokens; empty if there is an error."""

    vector: np.ndarray

    def answer(self, *, all_scores: bool) -> dict[str, Any]:
        """embedding: the vector as a list."""
        return {"embedding": self.vector.tolist()}

    def summary(self) -> tuple[str, float]:
        """The first 8 numbers."""
        return " ".join(f"{number:.3f}" for number in self.vector.ravel()[:8]) + " ...", 1.0

    def picture(self, example: Example) -> Picture:
        """The text and the first numbers."""
        return Picture((("", example.texts[0]),), note=self.summary()[0], error=self.error)


@dataclass(frozen=True, slots=True)
class Embed(Task):
    """A vector per text. `pooling`: "mean" over all tokens, special tokens included; "cls": the first token;
    "pooler": the first token after the dense layer of pretraining; "none": (T, C), a vector per token.

    `normalize` scales vectors to length 1. Long texts are read in windows: "mean" averages over all tokens, each from
    the window with the most context around it; "cls" and "pooler" average over windows.
    """

    name = "embed"
    pooling: Literal["mean", "cls", "pooler", "none"] = "mean"
    normalize: bool = False
    max_length: int = 512
    stride: int = 0
    truncation: bool = False

    @property
    def head(self) -> str:  # type: ignore[override]
        """The encoder output to pool; the task has no trained head."""
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
        """Return the task for any encoder; a sentence-transformers `directory` determines its settings.

        `limit` is the model's maximum length in tokens, `pooling` the user's choice; "none" and "pooler" ignore the
        directory's settings. Raises `CheckpointError` if the directory has modules that are not supported.
        """
        made = cls(**(settings | {"stride": 0}))
        if directory is None or pooling in ("none", "pooler"):
            return made
        if (found := read_sentence_settings(directory, pooling)) is None:
            return made
        most = limit or made.max_length
        length = min(found.max_length or most, most)
        return replace(made, pooling=found.pooling, normalize=found.normalize, max_length=length, truncation=True)

    def failure(self, reason: str) -> EmbedPrediction:
        """Return a prediction without a vector, with the reason as its error."""
        return EmbedPrediction(np.zeros(0, np.float32), error=reason, windows=0)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Return each example's windows. "mean" and "none" read every token once, in the window with the most context
        around it, and the special tokens at both ends of the text; otherwise the first token of each window is read.
        """
        windows = self.windows(examples, tokenizer)
        if self.pooling not in ("mean", "none"):
            return windows
        found = []
        for _, group in grouped(windows):
            if len(group) == 1:
                found.append(replace(group[0], head_positions=np.arange(len(group[0].ids))))
                continue
            for window, own in with_most_context(group, 0):
                special = np.flatnonzero(window.sequence_ids < 0)
                first = special[special < own.min(initial=len(window.ids))] if window is group[0] else special[:0]
                last = special[special > own.max(initial=-1)] if window is group[-1] else special[:0]
                found.append(replace(window, head_positions=np.concatenate([first, own, last])))
        return found

    def reduce(self, rows: np.ndarray, window: Encoded) -> np.ndarray:
        """(K, C) -> (C,) mean; for "none" unchanged."""
        return rows if self.pooling == "none" else rows.mean(0)

    def decode(
        self, example: Example, parts: Sequence[np.ndarray], windows: Sequence[Encoded], tokenizer: Tokenizer
    ) -> EmbedPrediction:
        """(C,) per window -> (C,) their mean, weighted by head positions; for "none" (K, C) per window -> (T, C)."""
        if self.pooling == "none":
            vector = np.concatenate(parts)
        else:
            vector = np.average(parts, axis=0, weights=[len(window.head_positions) for window in windows]).astype(
                np.float32
            )
        if self.normalize:
            vector = vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
        return EmbedPrediction(vector, **reading_stats(windows))
