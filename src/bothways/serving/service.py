"""What all routes do with a request: find the model, queue the texts, wait, and make the answer."""

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

PATIENCE = 0.05  # seconds before a client is watched; most requests are answered by then


class Computed(NamedTuple):
    """The results of a request, in the order of its inputs, as its pipeline gives them."""

    results: list[Any]
    tokens: int
    notes: list[str]


class Service:
    """The models with what their requests have in common. `ready` tells whether requests are taken."""

    def __init__(self, models: Models, limits: Limits, metrics: Metrics, *, reload: bool) -> None:
        self.models, self.limits, self.metrics, self.reload = models, limits, metrics, reload
        self.ready = False

    async def compute(
        self, request: Request, model: ServedModel, route: str, inputs: Sequence[Any], options: Mapping[str, Any]
    ) -> Computed:
        """The results for the inputs of a request.

        Raises `ProblemError`: 422 for what is wrong (also if there is a result for no input), 429 if the queue is full,
        499 if the client has gone, 500 for a defect in every input, 504 after the time limit.
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
        """Wait until a request is computed; cancel it at its time limit, or when the client has gone."""
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
                    raise ProblemError(499, "the client has gone")
            if not done.done():
                self.metrics.rejected.labels(model.name, "timeout").inc()
                raise ProblemError(504, f"not computed within {limit:g} s")
        finally:
            model.batcher.cancel(work)  # nothing, if it is done

    def _time_limit(self, request: Request) -> float:
        """Seconds that a request may take: the server's, or the client's own if that is less."""
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
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def json_response(value: Any, status: int = 200) -> Response:
    """A value as JSON; a number that JSON has no form for becomes null."""
    return Response(to_json(value, inf_nan_mode="null"), status, media_type="application/json")


def seconds_since_start(request: Request) -> float:
    """Seconds since a request came."""
    return round(time.perf_counter() - request.state.begin, 6)


def _client(request: Request) -> str:
    """Whose turn it is by: the address of the client."""
    return request.client.host if request.client else ""


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


async def _until_gone(request: Request) -> None:
    """Ends when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
