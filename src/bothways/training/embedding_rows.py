"""Train only the rows of the embedding table that the training texts use.

A small file uses a few thousand of 30,522 tokens, but a dense table costs its full size in every gradient, norm and
update: half of MiniLM's parameters. Adam changes rows without a gradient only by weight decay, so unused rows keep
their pretrained values. The others train exactly as in the full table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from bothways.text.tokenizer import Encoded


class UsedRows:
    """Replaces an embedding table during training by the rows that some windows use."""

    def __init__(self, embedding: nn.Embedding, windows: Sequence[Encoded]) -> None:
        used = np.zeros(embedding.num_embeddings, dtype=bool)
        for window in windows:
            used[window.ids] = True
        self.embedding = embedding
        self.rows = torch.from_numpy(np.flatnonzero(used))
        self.places = np.cumsum(used) - 1  # (V,) id -> row of the small table
        self.whole = embedding.weight
        self.small = nn.Parameter(self.whole.detach()[self.rows].clone(), requires_grad=self.whole.requires_grad)
        embedding.weight = self.small

    def ids(self, ids: np.ndarray) -> np.ndarray:
        """Token ids -> rows of the small table."""
        return self.places[ids]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put the whole table back, with the trained rows, while the block runs."""
        self.restore()
        try:
            yield
        finally:
            self.embedding.weight = self.small

    @torch.no_grad()
    def restore(self) -> None:
        """Put the whole table back, with the trained rows."""
        self.whole[self.rows] = self.small
        self.embedding.weight = self.whole
