"""What runs a model: one small interface."""

from __future__ import annotations

import importlib.util
from typing import Literal, Protocol

import numpy as np

from bothways.batch import Batch
from bothways.errors import MissingDependencyError
from bothways.runtime.artifact import Artifact
from bothways.terminal import Reporter


class Engine(Protocol):
    """Runs batches of at most `max_tokens` tokens (or of one longer window)."""

    max_tokens: int

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        ...

    def run(self, batch: Batch) -> np.ndarray:
        """A packed batch -> (K, L) logits of the pieces it reads, in the batch's order."""
        ...


def open_engine(artifact: Artifact, reporter: Reporter, *, precision: Literal["bf16", "fp32"] | None = None) -> Engine:
    """The engine for a model directory; `precision` None takes the fastest that this processor computes directly."""
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            f"{artifact.directory}: running this model needs PyTorch: pip install 'bothways[train]'"
        )
    from bothways.model.engine import open_torch_engine

    return open_torch_engine(artifact.directory, artifact.task.head, artifact.task.outputs, precision, reporter)
