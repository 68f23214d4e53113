"""Relative positions: buckets of distances between tokens (Raffel et al. 2020, 2.1)."""

from __future__ import annotations

import numpy as np

FAR = 128  # tokens: larger distances share the last bucket


def distance_buckets(length: int, buckets: int) -> np.ndarray:
    """Return the bucket of each key-query distance from 1 - length to length - 1: (2·length - 1,).

    One half of the buckets is for keys at or before the query, the other for keys after it. In each half, the first
    half of the buckets holds one distance each; the ranges of the others grow up to a distance of `FAR`.

    >>> distance_buckets(4, buckets=8).tolist()
    [2, 2, 1, 0, 5, 6, 6]
    """
    offsets = np.arange(1 - length, length)
    distance, half, exact = np.abs(offsets), buckets // 2, buckets // 4
    growth = np.log(np.maximum(distance, 1) / exact) / np.log(FAR / exact)  # 0 at `exact`, 1 at `FAR`
    ranges = exact + np.floor(growth * (half - exact) + 1e-9).astype(np.int64)  # 1e-9 absorbs rounding errors
    return half * (offsets > 0) + np.where(distance < exact, distance, np.minimum(ranges, half - 1))
