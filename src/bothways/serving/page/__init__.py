"""The pages at / and /docs: cached static files of this package, without a build step or external resources."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

router = APIRouter()
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
NAMES = (
    *("index.html", "docs.html", "style.css", "icon.svg"),
    *("app.js", "api.js", "dom.js", "inputs.js", "results.js", "docs.js"),
)


class _File(NamedTuple):
    content: bytes
    kind: str
    etag: str


@cache
def _file(name: str) -> _File:
    """A file of this package with its ETag, so that browsers can revalidate their copy."""
    content = (files(__package__) / name).read_bytes()
    return _File(content, f"{TYPES[Path(name).suffix]}; charset=utf-8", f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def _response(request: Request, name: str) -> Response:
    if name not in NAMES:
        raise HTTPException(404)
    found = _file(name)
    headers = {"Cache-Control": "no-cache", "ETag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers | {"Content-Type": found.kind})


@router.get("/", include_in_schema=False)
async def home(request: Request) -> Response:
    """The page to try the models."""
    return _response(request, "index.html")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The API reference, made from /openapi.json."""
    return _response(request, "docs.html")


@router.get("/page/{name}", include_in_schema=False)
async def page_file(request: Request, name: str) -> Response:
    """A static file of the pages."""
    return _response(request, name)
