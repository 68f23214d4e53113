"""The teacher's logits for the windows of a run, computed once and read from a file while the student is trained.

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
    """The teacher's logits for every window, and their weight in the loss.

    `rows` may be memory-mapped. `soft_weight` is the weight of the teacher in the loss of a labeled window; unlabeled
    windows are trained only on the teacher.
    """

    rows: np.ndarray  # (K, L) of all windows, end to end
    first: np.ndarray  # (B + 1,) the first row of each window
    temperature: float
    soft_weight: float

    @classmethod
    def read(cls, path: Path, windows: Sequence[Encoded], *, temperature: float, soft_weight: float) -> TeacherLogits:
        """Memory-map the logits of a file; raises `CheckpointError` if it is damaged or belongs to other windows."""
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
        """Return the (K, L) rows of some windows in fp32, in the order of `members`."""
        parts = [self.rows[self.first[member] : self.first[member + 1]] for member in members.tolist()]
        return np.concatenate(parts).astype(np.float32)


def edges(windows: Sequence[Encoded]) -> np.ndarray:
    """Return (B + 1,) cumulative numbers of tokens read, the edges of the windows in the concatenated rows."""
    return np.cumsum([0, *(len(window.head_positions) for window in windows)])


def placeholder(window: Encoded, loss: str, outputs: int) -> Any:
    """Return a placeholder target of the form that the loss expects; its loss has weight 0."""
    forms: dict[str, Any] = {
        "single": 0,
        "multi": np.zeros(outputs, np.float32),
        "regression": 0.0,
        "tokens": np.zeros(len(window.head_positions), np.int64),
        "spans": (0, 0),
    }
    return forms[loss]
