"""Fair queue: clients take turns by the work that they cause, and so do the requests of one client.

Start-time fair queueing (Goyal, Vin and Cheng 1996) on two levels. Each client has a tag, the virtual time at which
its next work may start; the client with the lowest tag is served, and its tag grows by the cost of what it got. A
client that comes later starts at the present virtual time, so it does not wait for all that others have queued.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol


class Source(Protocol):
    """Work that is taken in units, such as the texts of one request."""

    @property
    def empty(self) -> bool:
        """Whether nothing is left to take."""
        ...

    def take(self) -> tuple[Any, float]:
        """The next unit and its cost."""
        ...


@dataclass(slots=True)
class _Client:
    key: Hashable
    time: float = 0.0
    heap: list[tuple[float, int, Source]] = field(default_factory=list)


class FairQueue:
    """Units of many sources, by turns. Not thread-safe: the batcher has the lock."""

    def __init__(self) -> None:
        self._time = 0.0
        self._numbers = count()  # decides between equal tags: who came first
        self._clients: dict[Hashable, _Client] = {}
        self._heap: list[tuple[float, int, _Client]] = []

    def push(self, key: Hashable, source: Source) -> None:
        """Add a source of the client `key`."""
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client(key)
            heapq.heappush(self._heap, (self._time, next(self._numbers), client))
        heapq.heappush(client.heap, (client.time, next(self._numbers), source))

    def pop(self) -> Any | None:
        """The next unit, None if there is none. Sources that became empty, such as cancelled ones, are left out."""
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
