"""Load models and serve them with uvicorn: one process, or several on one port."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import logging
import socket
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from bothways.errors import CheckpointError, OptionError
from bothways.hardware import cores, environment
from bothways.jobs.info import describe_model
from bothways.progress import Reporter
from bothways.serving.app import Access, create_app
from bothways.serving.guard import LOCAL_HOSTS
from bothways.serving.limits import Limits
from bothways.serving.logs import LogReporter, logging_to_stderr
from bothways.serving.metrics import Metrics
from bothways.serving.models import Loading, Models, ServedModel, Spec, open_model, resolve

LOGGER = logging.getLogger("bothways.serving")
SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `serve`, which can be pickled for worker processes.

    `proxies` are the addresses whose X-Forwarded-For header is trusted.
    """

    specs: Sequence[Spec]
    loading: Loading = field(default_factory=Loading)
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    proxies: Sequence[str] = ()
    log_level: int = logging.INFO
    as_json: bool = True


class _Timer:
    """Aborts a connection after some seconds, unless it is stopped."""

    def __init__(self, protocol: TimedProtocol, seconds: float) -> None:
        self._protocol, self._seconds = protocol, seconds
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._handle is None:
            self._handle = self._protocol.loop.call_later(self._seconds, self._protocol.transport.abort)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with timeouts for clients that send their headers, or read the response, too slowly."""

    def __init__(self, *given: Any, seconds: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self._reading, self._writing = _Timer(self, seconds), _Timer(self, seconds)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the read timeout; abort the connection if there are too many."""
        super().connection_made(transport)
        self._reading.start()
        if self.limit_concurrency is not None and len(self.connections) > 2 * self.limit_concurrency:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Stop the read timeout if the headers are complete, else start it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._reading.stop()
        else:
            self._reading.start()

    def pause_writing(self) -> None:
        """Start the write timeout: the client is not reading."""
        super().pause_writing()
        self._writing.start()

    def resume_writing(self) -> None:
        """Stop the write timeout."""
        super().resume_writing()
        self._writing.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timeouts."""
        self._reading.stop()
        self._writing.stop()
        super().connection_lost(exc)


def access_for(
    host: str,
    *,
    token_file: Path | None,
    without_token: bool,
    allow_hosts: Sequence[str] = (),
    allow_origins: Sequence[str] = (),
    workers: int = 1,
) -> Access:
    """Who may use a server that listens at `host`.

    Raises `OptionError` for a public address without a token, unless `without_token` allows it, and for an invalid
    token file or origin.
    """
    token = None if token_file is None else read_token(token_file)
    local = is_local(host)
    if not local and token is None and not without_token:
        raise OptionError(
            f"{host} can be reached from other machines, and there is no token: give one with --token-file FILE, or "
            "--without-token if everyone who can reach the server may use it"
        )
    for origin in allow_origins:
        if "://" not in origin or origin.rstrip("/") != origin:
            raise OptionError(f"--allow-origin {origin!r}: expected scheme and host, such as https://example.org")
    # Without a token, a foreign name in the Host header means DNS rebinding: another site led a browser here.
    hosts = LOCAL_HOSTS | {name.lower() for name in allow_hosts} if local and token is None else None
    return Access(token, hosts, tuple(allow_origins), reload=workers == 1)


def is_local(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """Read the token in a file; raises `OptionError` if it is too short, not ASCII or contains spaces."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--token-file {path}: cannot be read ({error})") from None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or len(token.split()) != 1:
        raise OptionError(
            f"--token-file {path}: expected one token of at least {SHORTEST_TOKEN} characters, without spaces; "
            "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )
    return token


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address; raises `OptionError` if it is taken, not local or not allowed."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise OptionError(f"--host {host}: not an address of this machine ({error})") from None
    made = socket.socket(family, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.set_inheritable(True)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise OptionError(f"port {port} of {host} is taken by another program; choose one with --port") from None
        raise OptionError(f"cannot listen at {host}, port {port} ({error.strerror})") from None
    return made


def serve(settings: Settings) -> None:
    """Serve until the process is stopped (SIGTERM, Ctrl-C); requests in flight are finished.

    Raises what `open_model` and `bound_socket` raise, before anything is served.
    """
    with ExitStack() as stack:
        stack.enter_context(logging_to_stderr(settings.log_level, as_json=settings.as_json))
        listening = stack.enter_context(bound_socket(settings.host, settings.port))
        host, port = listening.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        fields = {"address": address, "models": [spec.name for spec in settings.specs], "workers": settings.workers}
        if settings.workers > 1:
            _check(settings, LogReporter())
            shared = stack.enter_context(tempfile.TemporaryDirectory(prefix="bothways-metrics-"))
            stack.enter_context(environment("PROMETHEUS_MULTIPROC_DIR", shared))
            config = configuration(settings, partial(_worker_app, settings, shared), factory=True)
            LOGGER.info("listening", extra={"fields": fields})
            Multiprocess(config, sockets=[listening]).run()
        else:
            app = build_app(settings)
            gc.collect()
            gc.freeze()  # models live until the end: the garbage collector need not scan them
            server = uvicorn.Server(configuration(settings, app))
            LOGGER.info("listening", extra={"fields": fields})
            with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after shutdown
                server.run(sockets=[listening])
        LOGGER.info("stopped")


def build_app(settings: Settings, shared: str | None = None) -> FastAPI:
    """Create the application with its models loaded and warm."""
    metrics, reporter = Metrics(shared=shared), LogReporter()
    slots = threading.BoundedSemaphore(max(1, settings.loading.threads or cores()))

    def opened(spec: Spec) -> ServedModel:
        return open_model(
            spec, settings.loading, settings.limits, slots=slots, on_batch=metrics.batch, reporter=reporter
        )

    models = Models([opened(spec) for spec in settings.specs], opened)
    return create_app(models, limits=settings.limits, access=settings.access, metrics=metrics)


def _worker_app(settings: Settings, shared: str) -> FastAPI:
    """The application of a worker process."""
    ExitStack().enter_context(logging_to_stderr(settings.log_level, as_json=settings.as_json))
    app = build_app(settings, shared)
    gc.collect()
    gc.freeze()
    return app


def configuration(settings: Settings, app: Any, *, factory: bool = False) -> uvicorn.Config:
    """The uvicorn configuration of an application."""
    limits = settings.limits
    protocol: Any = partial(TimedProtocol, seconds=limits.read_timeout)
    return uvicorn.Config(
        app,
        factory=factory,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        workers=settings.workers,
        limit_concurrency=limits.max_connections,
        timeout_graceful_shutdown=limits.stop_timeout,
        timeout_worker_healthcheck=60,
    )


def _check(settings: Settings, reporter: Reporter) -> None:
    """Raise `CheckpointError` for a model that the workers could not load, before they are started."""
    for spec in settings.specs:
        problems = describe_model(*resolve(spec, settings.loading, reporter))["problems"]
        if problems:
            raise CheckpointError(problems[0])
