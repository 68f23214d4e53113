"""Dynamic batching across requests: windows of similar length, under the engine's token budget.

A free worker takes the queued texts at once instead of waiting for more: the queue fills while the engine is busy.

submit -> fair queue -> encode (tokenize) -> pool of windows -> select a batch -> engine -> reduce -> decode -> done

The steps call the same functions as the predictor, so both give the same predictions.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bothways.batch import make_batch
from bothways.data.examples import Example
from bothways.errors import BothwaysError, DataError, OptionError
from bothways.inference.engines.by_length import part_for
from bothways.inference.engines.engine import Engine, finite_logits
from bothways.inference.predictor import SMALL
from bothways.serving.queue import FairQueue
from bothways.tasks import Task
from bothways.tasks.task import Prediction
from bothways.text.tokenizer import Encoded, Tokenizer

LOGGER = logging.getLogger("bothways.serving")
CHARACTERS = 4  # per token, approximately: to estimate tokens before tokenization
AHEAD = 2  # batches per worker that are tokenized ahead, to choose windows of similar length from
DEFECT = "internal error: this text could not be computed"
HALF_LIFE = 10.0  # seconds, of the average speed
LONGEST_WAIT = 60  # seconds, maximum Retry-After


class QueueFullError(Exception):
    """The queue has no room for a request; `retry_after` is the estimated wait in seconds."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting:,} texts are waiting; try again in {retry_after} s")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The batcher accepts no more requests."""


@dataclass(slots=True, eq=False)
class Item:
    """One example of a request; `parts` are the results of `task.reduce` for its windows."""

    work: Work
    place: int
    example: Example
    windows: list[Encoded] = field(default_factory=list)
    parts: list[Any] = field(default_factory=list)
    left: int = 0


class Ready(NamedTuple):
    """A tokenized window; `length` is in tokens."""

    item: Item
    number: int
    length: int


class Work:
    """The examples of one request; `on_done` is called on a thread of the batcher when all have predictions.

    `defects` are the indices of examples that failed because of the model or the server, not the input.
    """

    def __init__(self, client: Hashable, task: Task, examples: Sequence[Example], on_done: Callable[[], None]) -> None:
        self.client, self.task, self.on_done = client, task, on_done
        self.predictions: list[Prediction | None] = [None] * len(examples)
        self.defects: set[int] = set()
        self.tokens = 0
        self.over = False  # done or cancelled
        self.waiting: deque[Item] = deque()
        for place, example in enumerate(examples):
            problem = example.error or task.problem(example)
            if problem is None:
                self.waiting.append(Item(self, place, example))
            else:
                self.predictions[place] = task.failure(problem)
        self.left = len(self.waiting)

    @property
    def empty(self) -> bool:
        """Whether no items are left to take."""
        return self.over or not self.waiting

    def take(self) -> tuple[Item, float]:
        """Remove and return the next item and its cost in characters."""
        item = self.waiting.popleft()
        return item, 1 + self.task.size(item.example)


class Rest:
    """The windows of a long text that are not in the pool yet; they are queued like other texts."""

    def __init__(self, windows: Sequence[Ready], most: int) -> None:
        self.windows, self.most = deque(windows), most

    @property
    def empty(self) -> bool:
        """Whether no windows are left to take."""
        return not self.windows or self.windows[0].item.work.over

    def take(self) -> tuple[list[Ready], float]:
        """Remove and return windows of at most `most` tokens (at least one), and their approximate characters."""
        taken = [self.windows.popleft()]
        tokens = taken[0].length
        while self.windows and tokens + self.windows[0].length <= self.most:
            tokens += self.windows[0].length
            taken.append(self.windows.popleft())
        return taken, CHARACTERS * tokens


class Batcher:
    """Computes submitted examples in threads, one per worker of the engine.

    At most `room` texts wait. A client may not have more texts than there are free places, so one client cannot fill
    the queue. `on_batch` is called with the tokens and windows of each batch. `slots` is held while the engine
    computes: a semaphore shared by several batchers bounds the number of concurrent batches.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        *,
        room: int = 1024,
        on_batch: Callable[[int, int], None] | None = None,
        slots: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.engine, self.tokenizer, self.room = engine, tokenizer, room
        self._on_batch = on_batch or (lambda _tokens, _windows: None)
        self._slots = slots or nullcontext()
        self._ahead = AHEAD * engine.workers * engine.max_tokens
        self._changed = threading.Condition()
        self._queue = FairQueue()
        self._pool: list[Ready] = []
        self._pooled = 0  # tokens in the pool
        self._encoding = 0  # approximate number of tokens being tokenized
        self._idle = 0
        self._waiting = 0  # submitted texts without a prediction
        self._of_client: dict[Hashable, int] = {}
        self._speed = _Speed()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batcher-{number}", daemon=True)
            for number in range(engine.workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """The number of texts that wait or are being computed."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether all threads are running; false after `close`."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(
        self, task: Task, examples: Sequence[Example], on_done: Callable[[], None], *, client: Hashable = None
    ) -> Work:
        """Queue the examples of a request of `client`; `on_done` is called when all are computed.

        If no example is valid, the work is over at once and `on_done` is not called. Raises `QueueFullError`, and
        `ClosedError` after `close`.
        """
        work = Work(client, task, examples, on_done)
        if not work.left:
            work.over = True
            return work
        with self._changed:
            if self._closed:
                raise ClosedError
            own = self._of_client.get(client, 0)
            if own + work.left > self.room - self._waiting:
                raise QueueFullError(self._waiting, self._retry_after())
            self._waiting += work.left
            self._of_client[client] = own + work.left
            self._queue.push(client, work)
            self._changed.notify()
        return work

    def cancel(self, work: Work) -> None:
        """Cancel a request: its remaining texts are dropped, and `on_done` is not called."""
        with self._changed:
            if not work.over:
                work.over = True
                work.waiting.clear()
                self._left(work, work.left)
                self._changed.notify_all()  # `close` may wait for it

    def close(self) -> None:
        """Accept no more requests, compute the queued ones, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _retry_after(self) -> int:
        """Estimate the seconds until the queue is empty, from the recent speed."""
        return max(1, min(LONGEST_WAIT, math.ceil(self._waiting / max(self._speed.now(), 1.0))))

    def _left(self, work: Work, texts: int) -> None:
        """Subtract texts of a request from the waiting ones. Needs the lock."""
        self._waiting -= texts
        self._of_client[work.client] -= texts
        if not self._of_client[work.client]:
            del self._of_client[work.client]

    def _work(self) -> None:
        while True:
            with self._changed:
                portion, about = self._portion()
                while not portion and not self._pool:
                    if self._closed and not self._encoding and not self._waiting:
                        self._changed.notify_all()
                        return
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                    portion, about = self._portion()
                self._encoding += about
            if portion:
                windows = self._encoded(portion)
                with self._changed:
                    self._encoding -= about
                    self._add(windows)
            with self._changed:
                group = self._select()
                if self._pool and self._idle:
                    self._changed.notify()
            if group:
                self._compute(group)

    def _portion(self) -> tuple[list[Item], int]:
        """Take items to tokenize until the pool is full; also estimate their tokens. Needs the lock."""
        found: list[Item] = []
        tokens = 0
        while self._pooled + self._encoding + tokens < self._ahead:
            unit = self._queue.pop()
            if unit is None:
                break
            if isinstance(unit, Item):
                found.append(unit)
                tokens += 2 + unit.work.task.size(unit.example) // CHARACTERS
            else:
                self._pool += unit
                self._pooled += sum(one.length for one in unit)
        return found, tokens

    def _encoded(self, items: Sequence[Item]) -> list[Item]:
        """Tokenize items, grouped by task, and return those that succeed; items that fail are done."""
        groups: dict[int, list[Item]] = {}
        for item in items:
            groups.setdefault(id(item.work.task), []).append(item)
        found = []
        for group in groups.values():
            try:
                self._encode(group)
                found += group
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not fail the others
                if len(group) == 1:
                    self._failed(group[0], error)
                    continue
                for item in group:
                    try:
                        self._encode([item])
                        found.append(item)
                    except Exception as own:  # noqa: BLE001
                        self._failed(item, own)
        return found

    def _encode(self, items: Sequence[Item]) -> None:
        for item in items:
            item.windows = []
        for window in items[0].work.task.encode([item.example for item in items], self.tokenizer):
            items[window.example].windows.append(window)
        for item in items:
            item.left, item.parts = len(item.windows), [None] * len(item.windows)

    def _add(self, items: Sequence[Item]) -> None:
        """Add windows to the pool; of a long text only the first, the rest is queued. Needs the lock."""
        for item in items:
            rest = Rest(
                [Ready(item, number, len(window.ids)) for number, window in enumerate(item.windows)],
                self.engine.max_tokens,
            )
            first, _ = rest.take()
            self._pool += first
            self._pooled += sum(one.length for one in first)
            if not rest.empty:
                self._queue.push(item.work.client, rest)

    def _select(self) -> list[Ready]:
        """Take a batch from the pool: the oldest window and those closest to it in length. Needs the lock.

        If other threads are idle, the budget is a fair share of the pool's tokens.
        """
        live = [one for one in self._pool if not one.item.work.over]
        if not live:
            self._pool, self._pooled = [], 0
            return []
        first = live[0]
        engine = part_for(self.engine, first.length)
        tokens = sum(one.length for one in live)
        budget = min(engine.max_tokens, max(SMALL, math.ceil(tokens / (1 + self._idle))))
        chosen = [first]
        if first.length < engine.unbatched_from:
            longest = first.length
            others = [
                one
                for one in live[1:]
                if one.length < engine.unbatched_from and part_for(self.engine, one.length) is engine
            ]
            for one in sorted(others, key=lambda one: abs(one.length - first.length)):
                if (len(chosen) + 1) * max(longest, one.length) > budget:
                    break
                longest = max(longest, one.length)
                chosen.append(one)
        taken = set(map(id, chosen))
        self._pool = [one for one in live if id(one) not in taken]
        self._pooled = tokens - sum(one.length for one in chosen)
        return chosen

    def _compute(self, group: Sequence[Ready]) -> None:
        """Run a batch; if it fails, run each window separately, so that only the bad ones fail."""
        windows = [one.item.windows[one.number] for one in group]
        try:
            batch = make_batch(windows)
            with self._slots:
                logits = finite_logits(self.engine, batch)
            rows = np.split(logits, np.cumsum(batch.counts)[:-1])
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not fail the others
            if len(group) == 1:
                self._failed(group[0].item, error)
                return
            for one in group:
                self._compute([one])
            return
        self._on_batch(sum(one.length for one in group), len(group))
        finished = []
        for member, own in zip(batch.members.tolist(), rows, strict=True):
            item, number, length = group[member]
            try:
                item.parts[number] = item.work.task.reduce(own, windows[member])
            except Exception as error:  # noqa: BLE001
                self._failed(item, error)
                continue
            with self._changed:
                item.work.tokens += length
                item.left -= 1
                if not item.left:
                    finished.append(item)
        for item in finished:
            if item.work.over:
                continue
            try:
                made = item.work.task.decode(item.example, item.parts, item.windows, self.tokenizer)
            except Exception as error:  # noqa: BLE001
                self._failed(item, error)
                continue
            self._done(item, made)

    def _failed(self, item: Item, error: Exception) -> None:
        """Fail one item: return the message of a library error; log any other error, without texts."""
        if isinstance(error, BothwaysError):
            of_the_text = isinstance(error, DataError | OptionError)  # otherwise the model is at fault
            self._done(item, item.work.task.failure(str(error)), defect=not of_the_text)
            return
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = "" if place is None else f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
        LOGGER.error("text failed", extra={"fields": {"error": type(error).__name__, "where": where}})
        self._done(item, item.work.task.failure(DEFECT), defect=True)

    def _done(self, item: Item, prediction: Prediction, *, defect: bool = False) -> None:
        work = item.work
        with self._changed:
            if work.over or work.predictions[item.place] is not None:
                return
            work.predictions[item.place] = prediction
            if defect:
                work.defects.add(item.place)
            work.left -= 1
            self._left(work, 1)
            self._speed.add(1)
            work.over = not work.left
            over = work.over
        if over:
            work.on_done()


class _Speed:
    """Texts per second: an exponential average with a half-life of `HALF_LIFE` seconds."""

    def __init__(self) -> None:
        self._begin = self._then = time.monotonic()
        self._sum = 0.0

    def add(self, texts: int) -> None:
        """Count texts that are done now."""
        self._sum, self._then = self._decayed() + texts, time.monotonic()

    def now(self) -> float:
        """Return texts per second."""
        seen = 1 - 0.5 ** ((time.monotonic() - self._begin) / HALF_LIFE)  # less than 1 shortly after the start
        return self._decayed() * math.log(2) / HALF_LIFE / max(seen, 1e-3)

    def _decayed(self) -> float:
        return self._sum * 0.5 ** ((time.monotonic() - self._then) / HALF_LIFE)
