"""Quantize weights to 8 bits (numpy)."""

from __future__ import annotations

import numpy as np


def quantized(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, C) -> 8-bit rows (M, C) and their scales (M,): symmetric, the largest magnitude in each row is 127.

    >>> rows, scales = quantized(np.array([[1.0, -0.5], [0.0, 0.0]], np.float32))
    >>> rows.tolist()
    [[127, -64], [0, 0]]
    """
    scales = np.maximum(np.abs(weight).max(1), 1e-9).astype(np.float32) / 127
    return np.rint(weight / scales[:, None]).astype(np.int8), scales
