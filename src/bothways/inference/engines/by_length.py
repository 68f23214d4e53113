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

    The engine for short windows is open; `open_long` opens the one for windows of `from_tokens` tokens and more with
    the first of them. Either computes no more batches at a time than it has workers, whatever the other has. After a
    fork, the engine for short windows runs long ones too if the other was OpenVINO, which does not outlive one.
    """

    def __init__(
        self, short: Engine, open_long: Callable[[], Engine], *, from_tokens: int, long_workers: int, long_name: str
    ) -> None:
        self.from_tokens, self._open_long, self._long_name = from_tokens, open_long, long_name
        self._engines: list[Engine | None] = [short, None]
        self._places = (short.workers, long_workers)
        self.workers, self.max_tokens, self.unbatched_from = max(self._places), short.max_tokens, short.unbatched_from
        self.parameters, self.weights = short.parameters, short.weights
        self._sessions = self._new_sessions()

    def describe(self) -> str:
        """Both engines; of the one for long windows its plan until it is open."""
        short, long = self._engines
        assert short is not None
        about = self._long_name if long is None else long.describe()
        return f"{short.describe()}; from {self.from_tokens} tokens {about}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.describe()}>"

    def open(self) -> None:
        """Open both engines now."""
        for length in (0, self.from_tokens):
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
            engine = self._engines[number] = self._open_long()
        return engine


def part_for(engine: Engine, length: int) -> Engine:
    """The engine that runs windows of a length: `engine` itself, unless it is composed of two."""
    return engine.part(length) if isinstance(engine, ByLength) else engine
