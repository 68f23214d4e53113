"""Relative positions: the ranges that the distances between tokens fall into (Raffel et al. 2020, 2.1)."""

from __future__ import annotations

import numpy as np

FAR = 128  # tokens: larger distances share the last range


def distance_buckets(length: int, buckets: int) -> np.ndarray:
    """The range of every distance of a key from its query in a window of `length`: (2·length - 1,), from 1 - length on.

    One half of the buckets is for keys before the query and the query itself, the other for keys after it. In each,
    the first half has one distance each, the others have ranges that grow up to a distance of `FAR`.

    >>> distance_buckets(4, buckets=8).tolist()
    [2, 2, 1, 0, 5, 6, 6]
    """
    offsets = np.arange(1 - length, length)
    distance, half, exact = np.abs(offsets), buckets // 2, buckets // 4
    growth = np.log(np.maximum(distance, 1) / exact) / np.log(FAR / exact)  # 0 at `exact`, 1 at `FAR`
    ranges = exact + np.floor(growth * (half - exact) + 1e-9).astype(np.int64)  # a range begins at a whole number
    return half * (offsets > 0) + np.where(distance < exact, distance, np.minimum(ranges, half - 1))
