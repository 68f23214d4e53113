"""An engine composed of two: one for batches of short windows, one for batches of long windows."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bothways.batch import Batch
from bothways.inference.engines.engine import Engine
from bothways.inference.engines.openvino import runs_here
from bothways.inference.engines.sessions import Sessions
from bothways.inference.plan import Plan


class ByLength:
    """Runs a batch in one of two engines, by its longest window.

    One is open; `open_other` opens the other when it is first needed. Each computes no more batches at a time than it
    has workers, whatever the other has. Where OpenVINO cannot run long windows because of a fork, the engine for short
    windows runs them too. So `plan.from_tokens` may be 1, which leaves no other work to that engine.
    """

    def __init__(self, opened: Engine, open_other: Callable[[], Engine], plan: Plan, *, other_workers: int) -> None:
        """`opened` runs windows of less than `plan.from_tokens` tokens, or all windows if that is 1."""
        self.from_tokens, self._open_other, self._plan = plan.from_tokens, open_other, plan
        places = (opened.workers, other_workers)
        self._engines: list[Engine | None] = [opened, None]
        if self.from_tokens == 1:
            places, self._engines = places[::-1], self._engines[::-1]
        self._places = places
        self.workers, self.max_tokens, self.unbatched_from = max(places), opened.max_tokens, opened.unbatched_from
        self.parameters, self.weights = opened.parameters, opened.weights
        self._sessions = self._new_sessions()

    def describe(self) -> str:
        """The engines that run windows; of one that is not open its plan."""
        pairs = zip(self._engines, self._plan.parts(), strict=True)
        short, long = (str(plan) if engine is None else engine.describe() for engine, plan in pairs)
        if self._falls_back():
            return short
        return long if self.from_tokens == 1 else f"{short}; from {self.from_tokens} tokens {long}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.describe()}>"

    def open(self) -> None:
        """Open the engines that run windows now."""
        for length in {1, self.from_tokens}:
            self.part(length).open()

    def part(self, length: int) -> Engine:
        """The engine for windows of a length; it is opened if it was not."""
        sessions = self._own(length)
        sessions.open()
        engine: Engine = sessions[0]
        return engine

    def run(self, batch: Batch) -> np.ndarray:
        """A packed batch -> (K, L) logits of the tokens it reads, in the batch's order."""
        sessions, place = self._own(int(batch.lengths[0])), None
        try:
            place = sessions.take()
            engine: Engine = sessions[place]
            return engine.run(batch)
        finally:
            if place is not None:
                sessions.give(place)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_sessions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._sessions = self._new_sessions()

    def _own(self, length: int) -> Sessions:
        if self._sessions[0].process != os.getpid():  # after a fork, locks may be held by threads that are not here
            self._sessions = self._new_sessions()
        return self._sessions[int(length >= self.from_tokens)]

    def _new_sessions(self) -> list[Sessions]:
        short, long = self._places
        places = (short, short if self._falls_back() else long)
        return [Sessions(partial(self._opened, number), count, 1) for number, count in enumerate(places)]

    def _opened(self, number: int) -> Engine:
        number = 0 if self._falls_back() else number
        engine = self._engines[number]
        if engine is None:
            engine = self._engines[number] = self._open_other()
        return engine

    def _falls_back(self) -> bool:
        """Return whether the engine for short windows runs all windows."""
        return self._plan.parts()[1].engine == "openvino" and not runs_here()


def part_for(engine: Engine, length: int) -> Engine:
    """The engine that runs windows of a length: `engine` itself, unless it is composed of two."""
    return engine.part(length) if isinstance(engine, ByLength) else engine
