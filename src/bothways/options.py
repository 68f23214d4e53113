"""Dataclasses whose fields are options, with their help text on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import Field, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bothways.errors import OptionError


def option(default: Any, text: str, kind: Any = None) -> Any:
    """Return a dataclass field for an option: default, help text, and type on the command line if it differs."""
    return field(default=default, metadata={"help": text, "kind": kind})


def check_options(record: Any, limits: dict[str, tuple[float, float]]) -> None:
    """Raise `OptionError` for a number outside its limits, or a value that is not one of its choices."""
    for name, (low, high) in limits.items():
        value = getattr(record, name)
        if value is not None and not low <= value <= high:
            raise OptionError(f"{name} is {value}, expected a value from {low:g} to {high:g}")
    for name, kind in get_type_hints(type(record)).items():
        if get_origin(kind) is Literal and getattr(record, name) not in get_args(kind):
            raise OptionError(f"{name} is {getattr(record, name)!r}, expected one of {', '.join(get_args(kind))}")


def with_options(
    annotate: Callable[[Field[Any], Any, str], Any], *records: type, only: Collection[str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that replaces parameters of the types `records` by one option per field (or field in `only`).

    `annotate` converts a field, its type and the name of its record to an annotation for the command-line library.
    """

    def change(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(command, include_extras=True)
        own = [item for name, item in inspect.signature(command).parameters.items() if hints[name] not in records]
        own = [item.replace(annotation=hints[item.name], kind=inspect.Parameter.KEYWORD_ONLY) for item in own]
        places = {name: kind for name, kind in hints.items() if kind in records and name != "return"}
        chosen = {
            record: sorted(  # fields of the class before inherited fields
                (item for item in fields(record) if only is None or item.name in only),
                key=lambda item: item.name not in inspect.get_annotations(record),
            )
            for record in records
        }
        added = []
        for record, items in chosen.items():
            types = get_type_hints(record)
            for item in items:
                annotation = annotate(item, item.metadata["kind"] or types[item.name], record.__name__)
                added.append(
                    inspect.Parameter(
                        item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=annotation
                    )
                )

        def run(**given: Any) -> Any:
            for name, record in places.items():
                given[name] = record(**{item.name: given.pop(item.name) for item in chosen[record]})
            return command(**given)

        return with_signature(run, command, [*own, *added])

    return change


def with_signature(
    run: Callable[..., Any], command: Callable[..., Any], parameters: Sequence[inspect.Parameter]
) -> Callable[..., Any]:
    """Give `run` the name and docstring of `command`, and these parameters."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run
