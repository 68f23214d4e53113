"""Batch shapes for an engine that compiles kernels for each size it has not seen."""

from __future__ import annotations

SPARE = 8  # padding may add at most 1/8 to a batch
PREPARATION = 4_000_000_000  # multiplications that take as long as compiling a new size, 10 to 20 ms


class Shapes:
    """Finds a slightly larger shape for a batch whose kernels are already compiled.

    The kernels of linear layers depend on the number of tokens, including padding. A size gets its own kernels once
    the padding spent on it has cost as much as compiling them.
    """

    def __init__(self, multiplications: int) -> None:
        """`multiplications` is the number per token."""
        self._spare_tokens = PREPARATION // multiplications
        self._sizes: set[int] = set()
        self._padding: dict[int, int] = {}  # tokens of padding spent so far on a size without kernels
        self._longest = 0  # windows are never padded beyond a length the model has run

    def fit(self, windows: int, longest: int) -> tuple[int, int]:
        """A shape (B, T) with B >= `windows` and T >= `longest` tokens.

        >>> shapes = Shapes(20_000_000)
        >>> shapes.fit(8, 32), shapes.fit(8, 30), shapes.fit(15, 16), shapes.fit(8, 20)
        ((8, 32), (8, 32), (16, 16), (8, 20))
        """
        size = windows * longest
        self._longest = max(self._longest, longest)
        if size in self._sizes:
            return windows, longest
        most = size + size // SPARE
        found = [
            (count * length, count, length)
            for count in range(windows, most // longest + 1)
            for length in range(longest, min(most // count, self._longest) + 1)
            if count * length in self._sizes
        ]
        if found:
            larger, count, length = min(found)
            self._padding[size] = self._padding.get(size, 0) + larger - size
            if self._padding[size] < self._spare_tokens:
                return count, length
        self._sizes.add(size)
        return windows, longest
