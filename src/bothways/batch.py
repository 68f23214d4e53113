"""Windows into batches: longest first, under a token budget, packed without padding (numpy).

B sequences, T their longest length, N tokens in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bothways.text.tokenizer import Encoded

NEVER = 10**9  # longer than any window


@dataclass(frozen=True, slots=True)
class Batch:
    """B windows laid end to end, longest first."""

    ids: np.ndarray  # (N,) int64
    type_ids: np.ndarray  # (N,) int64
    positions: np.ndarray  # (N,) int64, each window from 0
    lengths: np.ndarray  # (B,) int64, descending
    members: np.ndarray  # (B,) int64: which of the given windows each one is
    head_positions: np.ndarray  # (K,) int64: the places among the N of the tokens that the head reads
    counts: np.ndarray  # (B,) int64: how many of the K are each window's

    def padded(self, pad_id: int, shape: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, T) ids, 1/0 mask and segment ids, padding at the end.

        `shape` may request more and longer windows. A padding window has one unmasked token, so softmax stays finite.
        """
        shape = shape or (len(self.lengths), int(self.lengths[0]))
        if shape == (1, len(self.ids)):
            return self.ids[None], np.ones(shape, np.int64), self.type_ids[None]
        real = np.arange(shape[1]) < self.lengths[:, None]
        ids = np.full(shape, pad_id, dtype=np.int64)
        mask, type_ids = np.zeros((2, *shape), dtype=np.int64)
        mask[:, 0] = 1
        within = slice(len(self.lengths))
        ids[within][real], mask[within][real], type_ids[within][real] = self.ids, 1, self.type_ids
        return ids, mask, type_ids

    def padded_head_positions(self, longest: int | None = None) -> np.ndarray:
        """(K,) where the tokens read are among the B·T of `padded`, row after row; `longest` is T if it is more."""
        if len(self.lengths) == 1:
            return self.head_positions
        windows = np.repeat(np.arange(len(self.counts)), self.counts)
        return windows * (longest or self.lengths[0]) + self.positions[self.head_positions]


def make_batch(windows: Sequence[Encoded]) -> Batch:
    """Lay windows end to end, longest first."""
    if len(windows) == 1:  # what is below, in half of the time
        (window,) = windows
        T, K = len(window.ids), len(window.head_positions)
        return Batch(
            ids=window.ids.astype(np.int64),
            type_ids=window.type_ids.astype(np.int64),
            positions=np.arange(T),
            lengths=np.array([T]),
            members=np.zeros(1, np.int64),
            head_positions=window.head_positions.astype(np.int64),
            counts=np.array([K]),
        )
    lengths = np.array([len(window.ids) for window in windows], dtype=np.int64)
    members = np.argsort(-lengths, kind="stable")
    lengths = lengths[members]
    firsts = np.cumsum(lengths) - lengths
    starts = np.repeat(firsts, lengths)
    counts = np.array([len(windows[member].head_positions) for member in members], dtype=np.int64)
    return Batch(
        ids=np.concatenate([windows[member].ids for member in members]).astype(np.int64),
        type_ids=np.concatenate([windows[member].type_ids for member in members]).astype(np.int64),
        positions=np.arange(len(starts), dtype=np.int64) - starts,
        lengths=lengths,
        members=members,
        head_positions=np.repeat(firsts, counts)
        + np.concatenate([windows[member].head_positions for member in members]),
        counts=counts,
    )


def budgeted(lengths: Sequence[int], max_tokens: int, unbatched_from: int = NEVER) -> Iterator[list[int]]:
    """Groups of indices, longest first, each of at most `max_tokens` tokens with their padding (or one longer window).

    Windows of `unbatched_from` tokens and more are a group each.

    >>> list(budgeted([3, 9, 4, 2], 9))
    [[1], [2, 0], [3]]
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if group and ((len(group) + 1) * lengths[group[0]] > max_tokens or lengths[group[0]] >= unbatched_from):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
