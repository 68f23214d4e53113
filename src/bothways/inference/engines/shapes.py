"""Shapes of batches for an engine that makes kernels for each one that it has not seen."""

from __future__ import annotations

SPARE = 8  # a batch may become larger by a part of so many
PREPARATION = 4_000_000_000  # multiplications, in the time in which the kernels of a new size are made: 10 to 20 ms


class Shapes:
    """Finds for a batch a shape that is hardly larger and whose kernels are there already.

    Kernels of linear layers depend on the number of tokens, padding included. A size that is asked for again and again
    gets its own kernels as soon as the padding has cost as much as they do.
    """

    def __init__(self, multiplications: int) -> None:
        """`multiplications` is how many a token takes."""
        self._spare_tokens = PREPARATION // multiplications
        self._sizes: set[int] = set()
        self._padding: dict[int, int] = {}  # tokens, that a size without kernels has cost so far
        self._longest = 0  # no window is padded to more than a model was seen to take

    def fit(self, windows: int, longest: int) -> tuple[int, int]:
        """At least `windows` windows of at least `longest` tokens.

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
