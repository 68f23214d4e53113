"""Raw logits of the windows of an example, as targets for distillation.

K head positions, L outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bothways.data.examples import Example
from bothways.tasks.task import Prediction, Task, Trainable
from bothways.text.tokenizer import Encoded, Tokenizer


@dataclass(frozen=True, slots=True)
class Answered(Prediction):
    """The (K, L) logits of each window of an example."""

    parts: tuple[np.ndarray, ...]
    read: tuple[Encoded, ...]


@dataclass(frozen=True, slots=True)
class Logits(Task):
    """Another task, `own`, with logits as its predictions."""

    own: Trainable
    name = "logits"

    def problem(self, example: Example) -> str | None:
        """As `own`."""
        return self.own.problem(example)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """As `own`."""
        return self.own.encode(examples, tokenizer)

    def reduce(self, rows: np.ndarray, window: Encoded) -> np.ndarray:
        """Keep all logits."""
        return rows

    def decode(
        self, example: Example, parts: Sequence[Any], windows: Sequence[Encoded], tokenizer: Tokenizer
    ) -> Answered:
        """Return all logits with their windows."""
        return Answered(parts=tuple(parts), read=tuple(windows))

    def failure(self, reason: str) -> Answered:
        """Return a prediction without logits, with the reason as its error."""
        return Answered(parts=(), read=(), error=reason)
