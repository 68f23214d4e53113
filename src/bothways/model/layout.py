"""Layouts of a batch, padded or packed without padding, and attention over them.

B sequences, T maximum length, N tokens in total, C hidden width, H heads, D = C / H.

Only attention mixes the tokens of a sequence; every other layer processes each token separately. So the tokens of
a batch can be packed in one row (N, C) without padding, and the layout copies them into rectangles for attention
only, one for each group of sequences of similar length. A padded batch already is one rectangle. Both use the same
`attend`. On a GPU, a kernel reads packed sequences in place (`Varlen`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bothways.model.dropout import Dropout

TOKENS_MULTIPLE = 16  # bf16 products with an odd number of rows are up to 20 % slower
RECTANGLE_COST = 400_000  # overhead of one more rectangle, in attention scores
MAX_SCORES = 4_000_000  # per rectangle, 16 MB: the scores stay in cache, and memory is reused
MAX_SCORES_GPU = 1 << 28  # on a GPU, calls cost more than memory


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    dropout: Dropout,
    rate: float,
    relative: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, 3.2.1), (..., T, D) each -> (..., T, D).

    `bias` is added to the scores: 0 for tokens, -inf for padding; so is `relative` (H, T, T). The softmax is always
    computed in fp32. Plain products are faster here than the fused kernel, whose bf16 backward is slow on a CPU
    (docs/performance.md).
    """
    scale = query.shape[-1] ** -0.5
    scores = (query @ key.transpose(-1, -2)).float()  # (..., T, T)
    scores = scores * scale if bias is None else torch.add(bias, scores, alpha=scale)
    if relative is not None:
        scores = scores.add_(relative)
    shares = dropout(scores.softmax(-1), rate)
    return shares.to(value.dtype) @ value


def padding_bias(lengths: Tensor, width: int) -> Tensor:
    """(B,) lengths -> (B, 1, 1, T): 0 for tokens, -inf for padding after them."""
    real = torch.arange(width, device=lengths.device) < lengths[:, None]  # (B, T)
    return torch.zeros(real.shape, device=real.device).masked_fill_(~real, float("-inf"))[:, None, None]


class Layout(Protocol):
    """Computes attention over a batch: (…, 3C) queries, keys and values -> (…, C)."""

    @property
    def widths(self) -> tuple[int, ...]:
        """The width T of each rectangle, widest first."""
        ...

    def attention(self, qkv: Tensor, dropout: Dropout, rate: float, relative: Sequence[Tensor] = ()) -> Tensor:
        """Return self-attention within each sequence; `relative` has one (H, T, T) position bias per rectangle.

        The tokens of a sequence are in consecutive columns, so relative positions are differences of columns.
        """
        ...


@dataclass(frozen=True, slots=True)
class Padded:
    """The usual layout of a batch, (B, T, ...), with padding after the shorter sequences."""

    heads: int
    bias: Tensor  # (B, 1, 1, T)

    @property
    def widths(self) -> tuple[int, ...]:
        """T."""
        return (self.bias.shape[-1],)

    def attention(self, qkv: Tensor, dropout: Dropout, rate: float, relative: Sequence[Tensor] = ()) -> Tensor:
        """(B, T, 3C) -> (B, T, C)."""
        B, T, _ = qkv.shape
        split = qkv.view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        own = relative[0] if relative else None
        mixed = attend(split[0], split[1], split[2], self.bias, dropout, rate, own)  # (B, H, T, D)
        return mixed.transpose(1, 2).flatten(2)


@dataclass(frozen=True, slots=True)
class Rectangle:
    """R rows of width T for a group of sequences; several short sequences share a row.

    The index tensors hold the source of each copied vector of D numbers. `spread` (3·R·H·T,) fills the rectangle from
    the packed qkv, and `gather` (N'·3·H,) is its backward. `lift` (N'·H,) copies the result out of the rectangle, and
    `settle` (R·H·T,) is its backward. Empty places copy the first token and attend only to each other.
    """

    rows: int
    width: int
    start: int  # in tokens
    stop: int
    bias: Tensor | None  # (R, 1, T, T): 0 within a sequence, -inf between sequences
    real: Tensor | None  # (R, 1, T, 1): 0 for empty places
    spread: Tensor
    gather: Tensor
    settle: Tensor
    lift: Tensor

    def to(self, device: torch.device) -> Rectangle:
        """Return a copy on another device."""
        moved: dict[str, Any] = {
            item.name: value.pin_memory().to(device, non_blocking=True)
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class Packed:
    """All tokens of a batch in one row, (N, ...), longest sequence first."""

    heads: int
    rectangles: tuple[Rectangle, ...]
    filler: int  # padding tokens at the end, up to a multiple of TOKENS_MULTIPLE

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, heads: int, device: torch.device | None = None) -> Packed:
        """(B,) lengths, longest first -> the layout, on the model's device."""
        rectangles: list[Rectangle] = []
        start, gpu = 0, device is not None and device.type != "cpu"
        for group in np.split(lengths, group_edges(lengths, heads, MAX_SCORES_GPU if gpu else MAX_SCORES)):
            made = _rectangle(group, start, heads)
            rectangles.append(made.to(device) if device is not None and gpu else made)
            start = made.stop
        return cls(heads, tuple(rectangles), -start % TOKENS_MULTIPLE)

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each rectangle."""
        return tuple(part.width for part in self.rectangles)

    def attention(self, qkv: Tensor, dropout: Dropout, rate: float, relative: Sequence[Tensor] = ()) -> Tensor:
        """(N, 3C) -> (N, C)."""
        D = qkv.shape[-1] // 3 // self.heads
        parts = []
        for number, part in enumerate(self.rectangles):
            pieces = qkv[part.start : part.stop].reshape(-1, D)  # (N'·3·H, D)
            split = _Move.apply(pieces, part.spread, part.gather, None)  # type: ignore[no-untyped-call]
            query, key, value = split.view(3, part.rows, self.heads, part.width, D)
            own = relative[number] if relative else None
            mixed = attend(query, key, value, part.bias, dropout, rate, own).reshape(-1, D)  # (R·H·T, D)
            back = _Move.apply(mixed, part.lift, part.settle, part.real)  # type: ignore[no-untyped-call]
            parts.append(back.view(part.stop - part.start, self.heads * D))
        if self.filler:
            parts.append(qkv.new_zeros(self.filler, self.heads * D))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True, slots=True)
class Varlen:
    """All tokens of a batch in one row on a GPU, (N, ...), in bf16, for flash attention (Dao 2023)."""

    heads: int
    edges: Tensor  # (B + 1,) int32: the start of each sequence and the end of the last; the filler is a sequence
    longest: int
    filler: int

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, heads: int, device: torch.device) -> Varlen:
        """(B,) lengths, longest first -> the layout, on the model's device."""
        tokens = int(lengths.sum())
        filler = -tokens % TOKENS_MULTIPLE
        ends = np.cumsum(np.append(lengths, filler) if filler else lengths)
        edges = on_device(np.append(0, ends).astype(np.int32), device)
        return cls(heads, edges, max(int(lengths[0]), filler), filler)

    @property
    def widths(self) -> tuple[int, ...]:
        """Empty: there are no rectangles."""
        return ()

    def attention(self, qkv: Tensor, dropout: Dropout, rate: float, relative: Sequence[Tensor] = ()) -> Tensor:
        """(N, 3C) -> (N, C)."""
        assert not relative  # the kernel does not support biases
        query, key, value = qkv.view(len(qkv), 3, self.heads, -1).unbind(1)  # (N, H, D)
        dropped = dropout.rate_on_gpu(qkv.device, rate)
        mixed = torch.ops.aten._flash_attention_forward(
            query, key, value, self.edges, self.edges, self.longest, self.longest, dropped, False, False
        )[0]
        return mixed.reshape(len(qkv), -1)


def has_flash_attention(device: torch.device, head_size: int) -> bool:
    """Whether PyTorch and the device support flash attention for packed sequences with heads of this size."""
    if head_size % 8 or head_size > 256:
        return False
    if (
        device.type != "cuda"
        or torch.version.hip is not None
        or not hasattr(torch.ops.aten, "_flash_attention_forward")
    ):
        return False
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on the device; the copy to a GPU is asynchronous."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def group_edges(lengths: np.ndarray, heads: int, max_scores: int = MAX_SCORES) -> list[int]:
    """Return where to split a batch, longest first, into groups with one rectangle each.

    A group ends before a sequence at most half as long as its first, if the scores this saves, (first - next) per
    head and remaining token, exceed `RECTANGLE_COST`. It also ends before it would exceed `max_scores`.
    """
    edges: list[int] = []
    first, behind = int(lengths[0]), np.cumsum(lengths[::-1])[::-1]  # tokens from here on
    tokens = 0  # in the group so far
    for place, length in enumerate(lengths):
        shorter = 2 * length <= first and behind[place] * (first - length) * heads > RECTANGLE_COST
        if shorter or (tokens and (tokens + length) * first * heads > max_scores):
            edges.append(place)
            first, tokens = int(length), 0
        tokens += int(length)
    return edges


def rows_for(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) lengths, longest first -> the row and first column of each, in rows as wide as the longest.

    First fit decreasing (Johnson 1973): each sequence goes into the first row with room.
    """
    room: list[int] = []
    row, column = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for place, length in enumerate(lengths.tolist()):
        which = next((index for index, left in enumerate(room) if left >= length), len(room))
        if which == len(room):
            room.append(int(lengths[0]))
        row[place], column[place] = which, lengths[0] - room[which]
        room[which] -= length
    return row, column


def _rectangle(lengths: np.ndarray, start: int, heads: int) -> Rectangle:
    row, column = rows_for(lengths)
    R, T, H, N = int(row.max()) + 1, int(lengths[0]), heads, int(lengths.sum())
    sequence = np.repeat(np.arange(len(lengths)), lengths)  # (N,)
    within = np.arange(N) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = (row[sequence], column[sequence] + within)
    token, owner = np.zeros((R, T), np.int64), np.full((R, T), -1)
    token[place], owner[place] = np.arange(N), sequence
    head = np.arange(H)
    settle = token[:, None, :] * H + head[:, None]  # (R, H, T)
    spread = (token[None, :, None, :] * 3 + np.arange(3)[:, None, None, None]) * H + head[:, None]  # (3, R, H, T)
    lift = (place[0][:, None] * H + head) * T + place[1][:, None]  # (N, H) places in (R, H, T)
    gather = np.arange(3)[:, None] * (R * H * T) + lift[:, None, :]  # (N, 3, H) places in (3, R, H, T)
    alone = len(lengths) == R and bool((lengths == T).all())
    same = torch.from_numpy(owner[:, :, None] == owner[:, None, :])
    return Rectangle(
        rows=R,
        width=T,
        start=start,
        stop=start + N,
        bias=None if alone else torch.zeros(same.shape).masked_fill_(~same, float("-inf"))[:, None],
        real=None if alone else torch.from_numpy(owner >= 0)[:, None, :, None].float(),
        spread=_index(spread),
        gather=_index(gather),
        settle=_index(settle),
        lift=_index(lift),
    )


def _index(places: np.ndarray) -> Tensor:
    return torch.from_numpy(places.reshape(-1).astype(np.int32))


class _Move(torch.autograd.Function):
    """Select rows by index; the backward pass also copies rows, as each real row is read once and padding is zeroed."""

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
