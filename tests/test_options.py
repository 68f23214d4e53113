"""Records become options: each field one, with its default, its help and its choices."""

import inspect
from dataclasses import dataclass
from typing import Literal

import pytest

from bothways.errors import OptionError
from bothways.options import check_options, option, with_options


@dataclass(frozen=True)
class Colours:
    """Two options."""

    ink: Literal["black", "blue"] = option("black", "Colour of the ink.")
    depth: int = option(3, "How deep.")


def annotate(field, kind, record):
    return (field.name, kind, record, field.metadata["help"])


def test_a_record_becomes_one_parameter_for_each_field():
    @with_options(annotate, Colours)
    def paint(wall: str, colors: Colours, *, twice: bool = False) -> tuple[str, Colours, bool]:
        """Paint it."""
        return wall, colors, twice

    parameters = inspect.signature(paint).parameters
    assert list(parameters) == ["wall", "twice", "ink", "depth"]
    assert parameters["ink"].default == "black"
    assert parameters["ink"].annotation == ("ink", Literal["black", "blue"], "Colours", "Colour of the ink.")
    assert paint.__doc__ == "Paint it."
    assert paint(wall="a", twice=True, ink="blue", depth=1) == ("a", Colours("blue", 1), True)


def test_some_fields_alone_can_be_options():
    @with_options(annotate, Colours, only=["depth"])
    def paint(colors: Colours) -> Colours:
        return colors

    assert list(inspect.signature(paint).parameters) == ["depth"]
    assert paint(depth=9) == Colours("black", 9)


def test_numbers_and_choices_are_checked():
    with pytest.raises(OptionError, match="depth is 9, expected a value from 0 to 5"):
        check_options(Colours(depth=9), {"depth": (0, 5)})
    with pytest.raises(OptionError, match="ink is 'red', expected one of black, blue"):
        check_options(Colours(ink="red"), {})
