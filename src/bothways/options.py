"""Records whose fields are options: the text beside each is its help on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bothways.errors import OptionError


def option(default: Any, text: str, kind: Any = None) -> Any:
    """A dataclass field that is an option, with its default, its help, and its type on the command line if another."""
    return field(default=default, metadata={"help": text, "kind": kind})


def check_options(record: Any, limits: dict[str, tuple[float, float]]) -> None:
    """Raise `OptionError` for a number outside its limits, or a word that is none of its choices."""
    for name, (low, high) in limits.items():
        value = getattr(record, name)
        if value is not None and not low <= value <= high:
            raise OptionError(f"{name} is {value}, expected a value from {low:g} to {high:g}")
    for name, kind in get_type_hints(type(record)).items():
        if get_origin(kind) is Literal and getattr(record, name) not in get_args(kind):
            raise OptionError(f"{name} is {getattr(record, name)!r}, expected one of {', '.join(get_args(kind))}")


def with_options(
    annotate: Callable[[Any, str, str], Any], *records: type
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A command whose parameters of the types `records` become one option for each of their fields.

    `annotate` makes of a field's type, name and help the annotation that the command-line library wants.
    """

    def change(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(command, include_extras=True)
        own = [item for name, item in inspect.signature(command).parameters.items() if hints[name] not in records]
        own = [item.replace(annotation=hints[item.name]) for item in own]
        places = {name: kind for name, kind in hints.items() if kind in records}
        added = []
        for record in records:
            types = get_type_hints(record)
            for item in fields(record):
                annotation = annotate(item.metadata["kind"] or types[item.name], item.name, item.metadata["help"])
                added.append(
                    inspect.Parameter(
                        item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=annotation
                    )
                )

        def run(**given: Any) -> Any:
            for name, record in places.items():
                given[name] = record(**{item.name: given.pop(item.name) for item in fields(record)})
            return command(**given)

        own = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in (*own, *added)}
        return run

    return change
