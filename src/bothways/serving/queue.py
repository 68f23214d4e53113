"""Fair queue: clients share the server equally by cost, and so do the requests of one client.

Start-time fair queueing (Goyal, Vin and Cheng 1996) on two levels. Each client has a tag, the virtual time at which
its next unit may start. The client with the lowest tag is served, and its tag grows by the cost of the unit. A new
client starts at the current virtual time, so it does not wait for everything that others have queued.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol


class Source(Protocol):
    """Work that is split into units, such as the texts of one request."""

    @property
    def empty(self) -> bool:
        """Whether nothing is left to take."""
        ...

    def take(self) -> tuple[Any, float]:
        """Remove and return the next unit and its cost."""
        ...


@dataclass(slots=True)
class _Client:
    key: Hashable
    time: float = 0.0
    heap: list[tuple[float, int, Source]] = field(default_factory=list)


class FairQueue:
    """Returns units of many sources in turn. Not thread-safe: the batcher holds a lock."""

    def __init__(self) -> None:
        self._time = 0.0
        self._numbers = count()  # breaks ties between equal tags
        self._clients: dict[Hashable, _Client] = {}
        self._heap: list[tuple[float, int, _Client]] = []

    def push(self, key: Hashable, source: Source) -> None:
        """Add a source for the client `key`."""
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client(key)
            heapq.heappush(self._heap, (self._time, next(self._numbers), client))
        heapq.heappush(client.heap, (client.time, next(self._numbers), source))

    def pop(self) -> Any | None:
        """Remove and return the next unit, or None. Empty sources, such as cancelled requests, are skipped."""
        while self._heap:
            tag, _, client = self._heap[0]
            while client.heap and client.heap[0][2].empty:
                heapq.heappop(client.heap)
            if not client.heap:
                heapq.heappop(self._heap)
                del self._clients[client.key]
                continue
            own, _, source = client.heap[0]
            unit, cost = source.take()
            self._time, client.time = tag, own
            heapq.heapreplace(client.heap, (own + cost, next(self._numbers), source))
            heapq.heapreplace(self._heap, (tag + cost, next(self._numbers), client))
            return unit
        return None
