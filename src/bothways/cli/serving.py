"""The command `serve`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from bothways.cli.parts import Engine, Offline, Precision, Threads, annotate
from bothways.errors import MissingDependencyError
from bothways.options import with_options
from bothways.progress import LOGGER
from bothways.serving.limits import Limits

NEEDED = ("fastapi", "uvicorn", "httptools", "prometheus_client")
_ACCESS = "Access"


@with_options(annotate, Limits)
def serve_command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Model directories, or names listed by `bothways models`; NAME=MODEL sets the name of a model.",
            metavar="MODEL",
        ),
    ],
    limits: Limits,
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_ACCESS)] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 chooses a free port.", min=0, max=65535)] = 8000,
    workers: Annotated[
        int,
        typer.Option(
            help="Number of processes, each with all models; for machines with more than 8 cores.", min=1, max=256
        ),
    ] = 1,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", help="Task of a model that supports several tasks, as NAME=TASK.", metavar="NAME=TASK"),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the bearer token that clients must send.", rich_help_panel=_ACCESS),
    ] = None,
    without_token: Annotated[
        bool,
        typer.Option("--without-token", help="Allow a public address without a token.", rich_help_panel=_ACCESS),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Additional host name of the server. Can be repeated.", metavar="NAME", rich_help_panel=_ACCESS
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Site whose pages may use the server (CORS). Can be repeated.",
            metavar="ORIGIN",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Proxy whose X-Forwarded-For header is trusted. Can be repeated.",
            metavar="ADDRESS",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    log_format: Annotated[
        Literal["json", "text"] | None,
        typer.Option(help="Log format on stderr. Default: text in a terminal, else json."),
    ] = None,
    engine: Engine = None,
    precision: Precision = None,
    threads: Threads = None,
    offline: Offline = False,
) -> None:
    """Serve models over HTTP (needs the extra `serve`), with a page at / to try them."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise MissingDependencyError("bothways serve needs FastAPI and uvicorn: pip install 'bothways[serve]'")
    from bothways.hardware import cores
    from bothways.serving.models import Loading, specs_of
    from bothways.serving.server import Settings, access_for, serve

    threads = max(1, (threads or cores()) // workers) if workers > 1 else threads
    serve(
        Settings(
            specs=specs_of(models, tasks or []),
            loading=Loading(engine, precision, threads, offline),
            limits=limits,
            access=access_for(
                host,
                token_file=token_file,
                without_token=without_token,
                allow_hosts=allow_host or (),
                allow_origins=allow_origin or (),
                workers=workers,
            ),
            host=host,
            port=port,
            workers=workers,
            proxies=trusted_proxy or (),
            log_level=LOGGER.level,
            as_json=log_format == "json" or (log_format is None and not sys.stderr.isatty()),
        )
    )
