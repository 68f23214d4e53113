"""Errors of requests: a status and a sentence, never a traceback or user text."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from bothways.errors import BothwaysError

SHOWN = 5  # errors reported per body


class ProblemError(Exception):
    """A request that failed: the status, message and headers of the error response."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def of_validation(error: ValidationError) -> ProblemError:
    """The problem of an invalid body: where it is invalid and what is expected, without its content."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return ProblemError(400, f"the body is not JSON ({_reason(found[0]['msg'])})")
    # Each alternative of a union has its own error: those at the same place are joined with "or".
    lines: dict[str, str] = {}
    for one in found:
        place = ".".join(str(part) for depth, part in enumerate(one["loc"]) if not depth or not _is_type(part))
        lines[place] = f"{lines[place]}, or: {one['msg']}" if place in lines else one["msg"]
    texts = [f"{place or 'body'}: {text}" for place, text in list(lines.items())[:SHOWN]]
    more = len(lines) - SHOWN
    return ProblemError(422, "; ".join(texts) + (f"; and {more} more" if more > 0 else ""))


def of_error(error: BothwaysError) -> ProblemError:
    """A library error caused by the input, as status 422."""
    return ProblemError(422, str(error))


def phrase(status: int) -> str:
    """The reason phrase of a status, in lower case."""
    return HTTPStatus(status).phrase.lower()


def _is_type(part: Any) -> bool:
    """Whether a part of a location is the name of a type that pydantic tried, not a key or a list index."""
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or "[" in part or part[:1].isupper())


def _reason(message: str) -> str:
    return message.removeprefix("Invalid JSON: ")
