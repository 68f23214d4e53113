"""Background threads that compute batches and read inputs.

Computing threads end with the predictor, reading threads with the stream: when it is garbage-collected (a stream also
when it is closed), or when the interpreter exits.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Self

from bothways.errors import BothwaysError

IDLE_SECONDS = 0.005  # without a further input, until available inputs are answered
FULL_SECONDS = 0.05  # maximum time to fill a chunk after its first input


class Job:
    """One call, and its result or error."""

    __slots__ = ("_call", "done", "error", "value")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call: Callable[[], Any] | None = call
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the call and keep its result or error; drops the call, which references the predictor."""
        call, self._call = self._call, None
        if call is None:  # already run
            return
        try:
            self.value = call()
        except BaseException as error:  # noqa: BLE001 - it is raised on the thread that asks for the result
            self.error = error
        self.done = True


class _Shared:
    """The state shared with the threads of `Workers`, so that the object itself can be collected while they run."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: deque[Job] = deque()
        self.running: set[Job] = set()
        self.stopped = False


class Workers:
    """`count` threads that run jobs in order, for all streams of a predictor.

    They start with the first jobs, and end when the object is collected or the interpreter exits. After a fork, the
    new process needs a new object.
    """

    def __init__(self, count: int) -> None:
        self.count, self.process = count, os.getpid()
        self._shared = _Shared()
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _stop, self._shared, self._threads, self.process)  # also at interpreter exit

    def put(self, jobs: Iterable[Job]) -> None:
        """Queue jobs."""
        with self._shared.changed:  # several threads may submit the first jobs
            while len(self._threads) < self.count:
                thread = threading.Thread(target=_work, args=(self._shared,), daemon=True)
                thread.start()
                self._threads.append(thread)
            self._shared.waiting.extend(jobs)
            self._shared.changed.notify_all()

    def wait(self, job: Job) -> None:
        """Wait until a job is done."""
        with self._shared.changed:
            while not job.done:
                self._shared.changed.wait()

    def drop(self, jobs: Collection[Job]) -> None:
        """Remove jobs that have not started, and wait for the others."""
        shared = self._shared
        with shared.changed:
            kept = [job for job in shared.waiting if job not in jobs]
            shared.waiting.clear()
            shared.waiting.extend(kept)
            # An abandoned stream may be collected on any thread, even one that runs its job.
            while threading.current_thread() not in self._threads and not shared.running.isdisjoint(jobs):
                shared.changed.wait()


def _work(shared: _Shared) -> None:
    while True:
        with shared.changed:
            while not shared.waiting and not shared.stopped:
                shared.changed.wait()
            if shared.stopped:
                return
            job = shared.waiting.popleft()
            shared.running.add(job)
        job.run()
        with shared.changed:
            shared.running.discard(job)
            shared.changed.notify_all()
        del job  # free its result and error while this thread waits


def _stop(shared: _Shared, threads: list[threading.Thread], process: int) -> None:
    if process != os.getpid():  # a fork does not copy the threads, and one may have held the lock
        return
    with shared.changed:
        shared.stopped = True
        shared.changed.notify_all()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()


class Jobs:
    """The jobs of one stream: run by workers, or on the calling thread if there is only one job or one worker.

    Jobs that have not started when it is closed are never run.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._held: deque[Job] = deque()  # not queued
        self._put: set[Job] = set()  # queued, result not taken

    def submit(self, calls: Iterable[Callable[[], Any]], *, more: bool) -> list[Job]:
        """Submit calls; `more` means that others follow before the first result is needed."""
        self._check()
        jobs = [Job(call) for call in calls]
        self._held.extend(jobs)
        together = more or self._put or len(self._held) > 1
        if together and self._held and self._workers.count > 1:
            self._put.update(self._held)
            self._workers.put(self._held)
            self._held.clear()
        return jobs

    def result(self, job: Job) -> Any:
        """Wait for a job; returns its result or raises its error."""
        self._check()
        while self._held and not job.done and job not in self._put:
            self._held.popleft().run()
        if not job.done:
            self._workers.wait(job)
        self._put.discard(job)
        if job.error is not None:
            raise job.error
        return job.value

    def _check(self) -> None:
        if self._workers.process != os.getpid():
            raise BothwaysError("a stream started before a fork cannot continue in the new process; start a new one")

    def close(self) -> None:
        """Drop all jobs that have not started."""
        self._held.clear()
        if self._put and self._workers.process == os.getpid():
            self._workers.drop(self._put)
        self._put.clear()


class Reader:
    """Reads an iterable on a separate thread, so that a slow source does not delay answers.

    It reads only what `take` requests. `ended` is set when everything is taken, `error` is the source's exception.
    """

    def __init__(self, source: Iterable[Any], cost: Callable[[Any], int]) -> None:
        self.ended, self.error = False, None
        self._shared = _Inputs(cost)
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(_read, source, self._shared), daemon=True)
        self.close = weakref.finalize(self, _leave, self._shared, self._thread, os.getpid())

    def start(self) -> Self:
        """Start reading."""
        self._thread.start()
        return self

    error: BaseException | None

    def take(self, most: int, most_cost: int, *, wait: bool) -> list[Any]:
        """Return the next inputs, up to `most`, a total cost of `most_cost` or a pause of the source.

        Without `wait`, returns an empty list if no input arrives soon.
        """
        shared = self._shared
        with shared.changed:
            shared.most, shared.most_cost = most, most_cost
            shared.changed.notify_all()
            while not shared.items and not shared.ended:
                if not shared.changed.wait(None if wait else IDLE_SECONDS) and not wait:
                    break
            until = time.monotonic() + FULL_SECONDS
            while shared.items and not shared.ended and not shared.full():
                before = len(shared.items)
                shared.changed.wait(IDLE_SECONDS)
                if len(shared.items) == before or time.monotonic() > until:
                    break
            if shared.full():
                shared.most = 0  # read no more until the next request
            taken, shared.items, shared.cost = shared.items, [], 0
            self.ended, self.error = shared.ended, shared.error
        return taken


class Direct:
    """Reads an iterable on the calling thread."""

    error: BaseException | None

    def __init__(self, source: Iterable[Any], cost: Callable[[Any], int]) -> None:
        self.ended, self.error = False, None
        self._source, self._cost = iter(source), cost

    def take(self, most: int, most_cost: int, *, wait: bool) -> list[Any]:  # noqa: ARG002 - it always waits
        """Return the next inputs, up to `most` or a total cost of `most_cost`."""
        taken: list[Any] = []
        cost = 0
        try:
            while len(taken) < most and cost < most_cost:
                taken.append(next(self._source))
                cost += self._cost(taken[-1])
        except StopIteration:
            self.ended = True
        except Exception as error:  # noqa: BLE001 - the stream raises it, after the answers to what came before
            self.ended, self.error = True, error
        return taken

    def close(self) -> None:
        """Do nothing."""


class _Inputs:
    def __init__(self, cost: Callable[[Any], int]) -> None:
        self.changed = threading.Condition()
        self.items: list[Any] = []
        self.cost_of, self.cost = cost, 0
        self.most = self.most_cost = 0
        self.ended = self.stopped = False
        self.error: BaseException | None = None

    def full(self) -> bool:
        return len(self.items) >= self.most or self.cost >= self.most_cost


def _read(source: Iterable[Any], shared: _Inputs) -> None:
    error: BaseException | None = None
    items = iter(source)
    del source
    try:
        while True:
            with shared.changed:
                while shared.full() and not shared.stopped:
                    shared.changed.wait()
                if shared.stopped:
                    break
            item = next(items)
            cost = shared.cost_of(item)
            with shared.changed:
                shared.items.append(item)
                shared.cost += cost
                if len(shared.items) == 1 or shared.full():
                    shared.changed.notify_all()
    except StopIteration:
        pass
    except BaseException as problem:  # noqa: BLE001 - the stream raises it, after the answers to what came before
        error = problem
    finally:
        with shared.changed:
            shared.ended, shared.error = True, error
            shared.changed.notify_all()


def _leave(shared: _Inputs, thread: threading.Thread, process: int) -> None:
    if process != os.getpid():  # as in _stop
        return
    with shared.changed:
        shared.stopped = True
        shared.changed.notify_all()
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(IDLE_SECONDS)  # the source may block it indefinitely
