"""An engine composed of two: one for batches of short windows, one for batches of long windows."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bothways.batch import Batch
from bothways.inference.engines.engine import Engine
from bothways.inference.engines.openvino import OpenVinoEngine
from bothways.inference.engines.sessions import Sessions


class ByLength:
    """Runs a batch in one of two engines, by its longest window.

    One is open; `open_other` opens the other when it is first needed. Each computes no more batches at a time than it
    has workers, whatever the other has. After a fork, the engine for short windows runs long ones too if the other was
    OpenVINO, which does not outlive one; so `from_tokens` may be 1, which leaves no other work to it.
    """

    def __init__(
        self, opened: Engine, open_other: Callable[[], Engine], *, from_tokens: int, other_workers: int, other_name: str
    ) -> None:
        """`opened` is for windows of less than `from_tokens` tokens, or for all if that is 1."""
        self.from_tokens, self._open_other, self._other_name = from_tokens, open_other, other_name
        self._engines: list[Engine | None] = [None, opened] if from_tokens == 1 else [opened, None]
        places = (opened.workers, other_workers)
        self._places = places[::-1] if from_tokens == 1 else places
        self.workers, self.max_tokens, self.unbatched_from = max(places), opened.max_tokens, opened.unbatched_from
        self.parameters, self.weights = opened.parameters, opened.weights
        self._sessions = self._new_sessions()

    def describe(self) -> str:
        """The engines that run windows; of one that is not open its plan."""
        short, long = (self._other_name if engine is None else engine.describe() for engine in self._engines)
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
            if isinstance(self._engines[1], OpenVinoEngine):  # its threads do not survive a fork
                self._engines[1] = self._engines[0]
        return self._sessions[int(length >= self.from_tokens)]

    def _new_sessions(self) -> list[Sessions]:
        return [Sessions(partial(self._opened, number), places, 1) for number, places in enumerate(self._places)]

    def _opened(self, number: int) -> Engine:
        engine = self._engines[number]
        if engine is None:
            engine = self._engines[number] = self._open_other()
        return engine


def part_for(engine: Engine, length: int) -> Engine:
    """The engine that runs windows of a length: `engine` itself, unless it is composed of two."""
    return engine.part(length) if isinstance(engine, ByLength) else engine
