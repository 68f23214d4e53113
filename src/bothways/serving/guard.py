"""ASGI middleware: request ids, logs, metrics and security headers; authentication and limits on the body.

`Observed` is the outer middleware: it catches every error, and its log records contain no user text.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bothways.serving.limits import Limits
from bothways.serving.metrics import Metrics
from bothways.serving.problems import ProblemError

LOGGER = logging.getLogger("bothways.serving")
OPEN = ("/", "/docs", "/health", "/ready")  # need no token, like all paths under /page/
PROBES = ("/health", "/ready", "/metrics")  # polled every few seconds; logged with --verbose only
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HEADERS = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]


class Observed:
    """Assigns a request id (or keeps the client's), logs and counts requests; sends 500 if the application fails."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        given = _header(scope, b"x-request-id")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        facts: dict[str, Any] = {}  # set by the routes: model, texts, tokens
        scope.setdefault("state", {})
        scope["state"] |= {"request_id": request_id, "facts": facts, "begin": begin}
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = message.setdefault("headers", [])
                own += [*HEADERS, (b"x-request-id", request_id.encode())]
                if not any(name == b"cache-control" for name, _ in own):
                    own.append((b"cache-control", b"no-store"))
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - the server goes on, and the client learns no more than the id
            _log_failure(request_id, error)
            if not status:
                await send_problem(answer, 500, "internal error; the log of the server has more", request_id)
        finally:
            self.metrics.in_flight.dec()
            self._record(scope, status or 499, time.perf_counter() - begin, facts)

    def _record(self, scope: Scope, status: int, seconds: float, facts: dict[str, Any]) -> None:
        route = getattr(scope.get("route"), "path", "other")
        model = str(facts.get("model", ""))
        self.metrics.requests.labels(route, model, str(status)).inc()
        if status < 400:
            self.metrics.seconds.labels(route, model).observe(seconds)
        level = logging.DEBUG if route in PROBES and status < 400 else logging.INFO
        if LOGGER.isEnabledFor(level):
            fields: dict[str, Any] = {
                "request_id": scope["state"]["request_id"],
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
                "client": (scope.get("client") or ("",))[0],
            }
            LOGGER.log(level, "request", extra={"fields": fields | facts})


class Guarded:
    """Checks the token, the Host header, and the size and duration of the request body.

    `hosts` are the allowed values of the Host header (None: any). The check prevents DNS rebinding, in which another
    site points its host name at this machine: the browser then sends that name.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, token: str | None = None, hosts: frozenset[str] | None = None
    ) -> None:
        self.app, self.limits, self.hosts = app, limits, hosts
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._admit(scope)
        except ProblemError as problem:
            await send_problem(send, problem.status, problem.message, scope["state"]["request_id"], problem.headers)
            return
        await self.app(scope, self._bounded(receive), send)

    def _admit(self, scope: Scope) -> None:
        """Raise `ProblemError` for a request that can be rejected before its body is read."""
        host = re.sub(r":\d+$", "", _header(scope, b"host")).lower()
        if self.hosts is not None and host not in self.hosts:
            raise ProblemError(
                403, "the Host header does not name this server; if it should, start it with --allow-host"
            )
        path = scope["path"]
        if self._token is not None and path not in OPEN and not path.startswith("/page/"):
            scheme, _, found = _header(scope, b"authorization").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(found.strip().encode(), self._token):
                raise ProblemError(
                    401, "expected the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                )
        length = _header(scope, b"content-length")
        if length.isdigit() and int(length) > self.limits.max_body_bytes:
            raise self._too_large()

    def _bounded(self, receive: Receive) -> Receive:
        """Wrap `receive` so that it raises `ProblemError` for a body that is too large or too slow."""
        read, complete = 0, False
        until = time.monotonic() + self.limits.read_timeout

        async def bounded() -> Message:
            nonlocal read, complete
            if complete:  # the next message is http.disconnect
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise ProblemError(
                    408, f"the body was not received within {self.limits.read_timeout:g} s", {"Connection": "close"}
                ) from None
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if read > self.limits.max_body_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> ProblemError:
        most = self.limits.max_body_bytes
        return ProblemError(
            413, f"the body is larger than {most:,} bytes; send several requests", {"Connection": "close"}
        )


async def send_problem(
    send: Send, status: int, message: str, request_id: str, headers: Mapping[str, str] | None = None
) -> None:
    """Send an error as JSON."""
    body = json.dumps({"error": message, "request_id": request_id}).encode()
    own = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    own += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": own})
    await send({"type": "http.response.body", "body": body})


def _log_failure(request_id: str, error: Exception) -> None:
    """Log the traceback locations and the type of an error, but not its message, which may contain user text."""
    where = [f"{place.filename}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)]
    fields = {"request_id": request_id, "error": type(error).__name__, "where": where}
    LOGGER.error("request failed", extra={"fields": fields})


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
