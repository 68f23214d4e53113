"""Errors of requests: a status, a sentence, never a traceback or the text of a user."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from bothways.errors import BothwaysError

SHOWN = 5  # errors of one body


class ProblemError(Exception):
    """A request that is not answered: the status and the message that the client gets."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def of_validation(error: ValidationError) -> ProblemError:
    """The problem of a body: where it is wrong and what is expected, without what was found there."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return ProblemError(400, f"the body is not JSON ({_reason(found[0]['msg'])})")
    # Of a union, each alternative has its errors: the deepest are those of what was meant.
    lines: dict[str, str] = {}
    for one in found:
        place = ".".join(str(part) for depth, part in enumerate(one["loc"]) if not depth or not _is_type(part))
        lines[place] = f"{lines[place]}, or: {one['msg']}" if place in lines else one["msg"]
    texts = [f"{place or 'body'}: {text}" for place, text in list(lines.items())[:SHOWN]]
    more = len(lines) - SHOWN
    return ProblemError(422, "; ".join(texts) + (f"; and {more} more" if more > 0 else ""))


def of_error(error: BothwaysError) -> ProblemError:
    """A mistake of the user that the library found."""
    return ProblemError(422, str(error))


def phrase(status: int) -> str:
    """What a status means, in a few words."""
    return HTTPStatus(status).phrase.lower()


def _is_type(part: Any) -> bool:
    """Whether a part of a location is the name of a type that pydantic tried, not a key or a place in a list."""
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or "[" in part or part[:1].isupper())


def _reason(message: str) -> str:
    return message.removeprefix("Invalid JSON: ")
