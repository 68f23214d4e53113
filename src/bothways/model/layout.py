"""Where the tokens of a batch lie, and attention over them: padded rectangles or packed without padding.

B sequences, T their longest length, N tokens in all, C hidden width, H heads, D = C / H.

Only attention mixes the tokens of a sequence; every other layer works on each token alone. So the tokens of
a batch can lie in one row (N, C) with no padding, and attention alone asks the layout to bring them into
rectangles, one for each group of sequences of similar length. A padded batch is a layout of one rectangle
that is there already. Both end in the same `attend`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bothways.model.dropout import Dropout

GROUP_AT_LEAST = 4  # sequences in a rectangle: fewer cost more in calls than they save in padding
GROUP_SHORTEST = 0.8  # of the longest in the same rectangle


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: Dropout, rate: float) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, 3.2.1), (..., T, D) each -> (..., T, D).

    `bias` is added to the scores: 0 where a key is real, -inf where it is padding. The softmax is computed
    in fp32 whatever the inputs are; plain products are faster here than the fused kernel, whose backward in
    bf16 is slow on a CPU (docs/performance.md).
    """
    scale = query.shape[-1] ** -0.5
    scores = (query @ key.transpose(-1, -2)).float()  # (..., T, T)
    scores = scores * scale if bias is None else torch.add(bias, scores, alpha=scale)
    shares = dropout(scores.softmax(-1), rate)
    return shares.to(value.dtype) @ value


def padding_bias(lengths: Tensor, width: int) -> Tensor:
    """(B,) lengths -> (B, 1, 1, T): 0 on the tokens, -inf on the padding behind them."""
    real = torch.arange(width, device=lengths.device) < lengths[:, None]  # (B, T)
    return torch.zeros(real.shape, device=real.device).masked_fill_(~real, float("-inf"))[:, None, None]


class Layout(Protocol):
    """Brings (…, 3C) queries, keys and values into rectangles and their attention back to (…, C)."""

    def attention(self, qkv: Tensor, dropout: Dropout, rate: float) -> Tensor:
        """Self-attention within each sequence."""
        ...


@dataclass(frozen=True, slots=True)
class Padded:
    """A batch as it is usually laid out, (B, T, ...), with padding behind the shorter sequences."""

    heads: int
    bias: Tensor | None  # (B, 1, 1, T)

    def attention(self, qkv: Tensor, dropout: Dropout, rate: float) -> Tensor:
        """(B, T, 3C) -> (B, T, C)."""
        B, T, _ = qkv.shape
        split = qkv.view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        mixed = attend(split[0], split[1], split[2], self.bias, dropout, rate)  # (B, H, T, D)
        return mixed.transpose(1, 2).flatten(2)


@dataclass(frozen=True, slots=True)
class Rectangle:
    """One group of sequences of similar length, as the places where its rows are found.

    `spread` (3·B·H·T,) names for each row of the (3, B, H, T) rectangle its row among the (N·3·H) rows of
    the packed qkv; `gather` (N'·3·H,) the reverse; `lift` (N'·H,) names for each packed row of the result
    its row among the (B·H·T), `settle` (B·H·T,) the reverse. Padding names some row of its own sequence.
    """

    sequences: int
    width: int
    start: int  # in tokens
    stop: int
    bias: Tensor | None
    real: Tensor | None  # (B, 1, T, 1), 0 on padding
    spread: Tensor
    gather: Tensor
    settle: Tensor
    lift: Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """All tokens of a batch in one row, (N, ...), longest sequence first."""

    heads: int
    rectangles: tuple[Rectangle, ...]

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, heads: int) -> Packed:
        """(B,) lengths, longest first -> where each token goes."""
        rectangles, first, start = [], 0, 0
        for last in range(1, len(lengths) + 1):
            small = last - first < GROUP_AT_LEAST or len(lengths) - last < GROUP_AT_LEAST
            if last < len(lengths) and (small or lengths[last] >= GROUP_SHORTEST * lengths[first]):
                continue
            rectangle = _rectangle(lengths[first:last], start, heads)
            rectangles.append(rectangle)
            first, start = last, rectangle.stop
        return cls(heads, tuple(rectangles))

    def attention(self, qkv: Tensor, dropout: Dropout, rate: float) -> Tensor:
        """(N, 3C) -> (N, C)."""
        D = qkv.shape[-1] // 3 // self.heads
        parts = []
        for part in self.rectangles:
            rows = qkv[part.start : part.stop].reshape(-1, D)  # (N'·3·H, D)
            split = _Move.apply(rows, part.spread, part.gather, None)  # type: ignore[no-untyped-call]
            query, key, value = split.view(3, part.sequences, self.heads, part.width, D)
            mixed = attend(query, key, value, part.bias, dropout, rate)  # (B, H, T, D)
            flat = mixed.reshape(-1, D)
            back = _Move.apply(flat, part.lift, part.settle, part.real)  # type: ignore[no-untyped-call]
            parts.append(back.view(part.stop - part.start, self.heads * D))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _rectangle(lengths: np.ndarray, start: int, heads: int) -> Rectangle:
    B, T, H = len(lengths), int(lengths[0]), heads
    ends = np.cumsum(lengths)
    column = np.minimum(np.arange(T), lengths[:, None] - 1)  # (B, T): padding repeats the last token
    token = (ends - lengths)[:, None] + column  # (B, T) packed token of each place
    real = np.arange(T) < lengths[:, None]
    which, head = np.arange(3)[:, None, None, None], np.arange(H)[:, None]
    spread = (token[None, :, None, :] * 3 + which) * H + head  # (3, B, H, T)
    settle = token[:, None, :] * H + head  # (B, H, T)
    sequence, place = np.nonzero(real)  # (N',) each, in packed order
    lift = (sequence[:, None] * H + np.arange(H)) * T + place[:, None]  # (N', H) rows of (B, H, T)
    gather = np.arange(3)[:, None] * (B * H * T) + lift[:, None, :]  # (N', 3, H) rows of (3, B, H, T)
    full = bool(real.all())
    flags = torch.from_numpy(real)
    return Rectangle(
        sequences=B,
        width=T,
        start=start,
        stop=start + int(ends[-1]),
        bias=None if full else padding_bias(torch.from_numpy(lengths), T),
        real=None if full else flags[:, None, :, None].to(torch.float32),
        spread=_index(spread),
        gather=_index(gather),
        settle=_index(settle),
        lift=_index(lift),
    )


def _index(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows.reshape(-1), dtype=np.int32))


class _Move(torch.autograd.Function):
    """Rows by index, with a backward that is a row copy too: a real row is read once, padding never counts."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, back: Tensor, real: Tensor | None) -> Tensor:
        ctx.save_for_backward(back, real)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back, real = ctx.saved_tensors
        moved = grad.reshape(-1, grad.shape[-1]).index_select(0, back)
        if real is not None:
            B, _, T, _ = real.shape
            moved = moved.view(B, -1, T, grad.shape[-1]).mul_(real.to(grad.dtype)).flatten(0, 2)
        return moved, None, None, None
