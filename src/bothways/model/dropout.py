"""Dropout with the randomness passed in.

On a CPU, PyTorch's dropout draws one Bernoulli sample per element from a serial generator, which took a third of
a fine-tuning step of a small model; here one 64-bit draw serves four elements. On a GPU, PyTorch's dropout uses its
default generator, seeded at the first call.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 1 << 16  # 16 random bits per element: the rate is accurate to 1/65,536


class Dropout:
    """Zeroes elements at a rate and scales up the rest (Srivastava et al. 2014); without a generator, a no-op.

    The same generator state gives the same masks, so (seed, step) is enough to resume training.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        self.rng = rng
        self._seeded = False

    def rate_on_gpu(self, device: torch.device, rate: float) -> float:
        """Return the rate for a PyTorch function on a GPU; seed the GPU's generator on first use."""
        if self.rng is None or rate == 0.0:
            return 0.0
        if not self._seeded:
            torch.cuda.default_generators[device.index].manual_seed(int(self.rng.integers(1 << 62)))
            self._seeded = True
        return rate

    def mask(self, shape: torch.Size, rate: float, dtype: torch.dtype) -> Tensor:
        """Return a mask of `shape` with zeros at `rate`, elsewhere 1 / (1 - rate)."""
        assert self.rng is not None
        threshold = round(rate * _STEPS)
        words = self.rng.integers(0, 1 << 64, size=-(-math.prod(shape) // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16))[: math.prod(shape)].view(shape)
        kept = torch.ge(bits, threshold - _STEPS // 2, out=torch.empty(shape, dtype=dtype))
        return kept.mul_(_STEPS / (_STEPS - threshold))

    def __call__(self, x: Tensor, rate: float) -> Tensor:
        """Return `x` after dropout, same shape."""
        if self.rng is None or rate == 0.0:
            return x
        if x.is_cuda:
            return F.dropout(x, self.rate_on_gpu(x.device, rate))
        return x * self.mask(x.shape, rate, x.dtype)

    def add(self, residual: Tensor, x: Tensor, rate: float) -> Tensor:
        """Return `residual` + dropout(`x`), in one pass on a CPU."""
        if self.rng is None or rate == 0.0:
            return residual + x
        if x.is_cuda:
            return residual + F.dropout(x, self.rate_on_gpu(x.device, rate))
        return torch.addcmul(residual, x, self.mask(x.shape, rate, x.dtype))


NO_DROPOUT = Dropout()
