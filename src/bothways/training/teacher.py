"""What a teacher answers to the windows of a run: computed once, read from a file while a student learns.

B windows, K tokens read by the head, L outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bothways.errors import CheckpointError
from bothways.text.tokenizer import Encoded


@dataclass(frozen=True, slots=True)
class TeacherLogits:
    """The teacher's logits for every window, by its number, and what they count for.

    `rows` may be memory-mapped. `soft_weight` is the share of the teacher in the loss of a window with a label; the
    others are trained on the teacher alone.
    """

    rows: np.ndarray  # (K, L) of all windows, end to end
    first: np.ndarray  # (B + 1,) where the rows of each window begin
    temperature: float
    soft_weight: float

    @classmethod
    def read(cls, path: Path, windows: Sequence[Encoded], *, temperature: float, soft_weight: float) -> TeacherLogits:
        """Those of a file, which is not read into memory; raises `CheckpointError` if it is of other windows."""
        try:
            rows = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: damaged or cut short ({error}); --overwrite starts again") from error
        first = edges(windows)
        if len(rows) != first[-1]:
            raise CheckpointError(
                f"{path}: has logits of {len(rows):,} tokens, the training texts have {first[-1]:,}; repeat the first "
                "command exactly, or start again with --overwrite"
            )
        return cls(rows, first, temperature, soft_weight)

    def of_windows(self, members: np.ndarray) -> np.ndarray:
        """(K, L) the rows of some windows, in their order, in fp32."""
        parts = [self.rows[self.first[member] : self.first[member + 1]] for member in members.tolist()]
        return np.concatenate(parts).astype(np.float32)


def edges(windows: Sequence[Encoded]) -> np.ndarray:
    """(B + 1,) where the tokens that are read of each window begin, among those of all."""
    return np.cumsum([0, *(len(window.head_positions) for window in windows)])


def placeholder(window: Encoded, loss: str, outputs: int) -> Any:
    """A target for a window without one, of the form that the loss takes; what it gives is not counted."""
    forms: dict[str, Any] = {
        "single": 0,
        "multi": np.zeros(outputs, np.float32),
        "regression": 0.0,
        "tokens": np.zeros(len(window.head_positions), np.int64),
        "spans": (0, 0),
    }
    return forms[loss]
