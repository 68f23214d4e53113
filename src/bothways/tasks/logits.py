"""The logits themselves, of the windows of an example: what a student learns from its teacher.

K tokens read by the head, L outputs.
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
    """The logits of an example, (K, L) for each of its windows."""

    parts: tuple[np.ndarray, ...]
    read: tuple[Encoded, ...]


@dataclass(frozen=True, slots=True)
class Logits(Task):
    """A task whose predictions are its logits."""

    own: Trainable
    name = "logits"

    def problem(self, example: Example) -> str | None:
        """As the task says."""
        return self.own.problem(example)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """As the task does."""
        return self.own.encode(examples, tokenizer)

    def reduce(self, rows: np.ndarray, window: Encoded) -> np.ndarray:
        """All is kept."""
        return rows

    def decode(
        self, example: Example, parts: Sequence[Any], windows: Sequence[Encoded], tokenizer: Tokenizer
    ) -> Answered:
        """All is given."""
        return Answered(parts=tuple(parts), read=tuple(windows))

    def failure(self, reason: str) -> Answered:
        """Nothing, and why."""
        return Answered(parts=(), read=(), error=reason)
