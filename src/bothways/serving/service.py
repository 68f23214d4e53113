"""Request handling that all routes share: queue the texts, wait, and return the results."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from bothways.serving.batcher import ClosedError, Work
from bothways.serving.limits import Limits
from bothways.serving.metrics import Metrics
from bothways.serving.models import Models, ServedModel
from bothways.serving.problems import ProblemError

PATIENCE = 0.05  # seconds before disconnects are watched for; most requests are done by then


class Computed(NamedTuple):
    """The results of a request in input order, as its pipeline returns them."""

    results: list[Any]
    tokens: int
    notes: list[str]


class Service:
    """The models, limits and metrics of a server. `ready` is true while requests are accepted."""

    def __init__(self, models: Models, limits: Limits, metrics: Metrics, *, reload: bool) -> None:
        self.models, self.limits, self.metrics, self.reload = models, limits, metrics, reload
        self.ready = False

    async def compute(
        self, request: Request, model: ServedModel, route: str, inputs: Sequence[Any], options: Mapping[str, Any]
    ) -> Computed:
        """Compute the results for the inputs of a request.

        Raises `ProblemError`: 400 for an invalid X-Request-Timeout, 422 for invalid input (also if every input fails),
        429 if the queue is full, 499 if the client disconnects, 500 if every input fails because of a server error,
        503 if the server stops, 504 after the time limit.
        """
        facts = request.state.facts
        facts |= {"model": model.name, "texts": len(inputs)}
        limit = self._time_limit(request)
        prepared = model.prepare(route, inputs, options)
        call, loop = prepared.call, asyncio.get_running_loop()
        done = loop.create_future()

        def finish() -> None:
            with suppress(RuntimeError):  # the loop may be closed already
                loop.call_soon_threadsafe(_set, done)

        try:
            work = model.submit(call, finish, _client(request))
        except ProblemError:
            self.metrics.rejected.labels(model.name, "queue").inc()
            raise
        except ClosedError:
            raise ProblemError(503, "the server stops", {"Retry-After": "1"}) from None
        self.metrics.waiting.labels(model.name).set(model.batcher.waiting)
        if not work.over or work.left:
            await self._wait(request, model, work, done, limit)
        self.metrics.waiting.labels(model.name).set(model.batcher.waiting)
        self.metrics.texts.labels(model.name).inc(len(inputs))
        self.metrics.tokens.labels(model.name).inc(work.tokens)
        facts["tokens"] = work.tokens
        predictions = work.predictions
        errors = [one.error for one in predictions if one is not None]
        if errors and all(error is not None for error in errors):
            raise ProblemError(500 if len(work.defects) == len(errors) else 422, f"input 0: {errors[0]}")
        return Computed(call.results(predictions), work.tokens, prepared.notes)

    async def _wait(
        self, request: Request, model: ServedModel, work: Work, done: asyncio.Future[None], limit: float
    ) -> None:
        """Wait until a request is computed; cancel it at its time limit or when the client disconnects."""
        try:
            await asyncio.wait((done,), timeout=min(PATIENCE, limit))
            if not done.done() and limit > PATIENCE:
                watch = asyncio.ensure_future(_until_gone(request))
                try:
                    await asyncio.wait((done, watch), timeout=limit - PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    watch.cancel()
                if watch.done() and not watch.cancelled() and not done.done():
                    self.metrics.rejected.labels(model.name, "gone").inc()
                    raise ProblemError(499, "the client disconnected")
            if not done.done():
                self.metrics.rejected.labels(model.name, "timeout").inc()
                raise ProblemError(504, f"not computed within {limit:g} s")
        finally:
            model.batcher.cancel(work)  # no effect if it is done

    def _time_limit(self, request: Request) -> float:
        """The time limit in seconds: the server's, or the client's if that is shorter."""
        given = request.headers.get("x-request-timeout")
        if given is None:
            return self.limits.timeout
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise ProblemError(400, "the header X-Request-Timeout: expected seconds, such as 2.5")
        return min(seconds, self.limits.timeout)


def of_request(request: Request) -> Service:
    """The service that handles a request."""
    service: Service = request.app.state.service
    return service


def json_response(value: Any, status: int = 200) -> Response:
    """A value as JSON; NaN and infinity become null."""
    return Response(to_json(value, inf_nan_mode="null"), status, media_type="application/json")


def seconds_since_start(request: Request) -> float:
    """Seconds since a request arrived."""
    return round(time.perf_counter() - request.state.begin, 6)


def _client(request: Request) -> str:
    """The client's address, the key of the fair queue."""
    return request.client.host if request.client else ""


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


async def _until_gone(request: Request) -> None:
    """Wait until the client closes its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
