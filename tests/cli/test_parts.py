"""Labels, JSON and texts as the command line reads and writes them."""

import json
import math
from datetime import date
from typing import get_args, get_type_hints

import numpy as np
import pytest

from bothways.cli import parts
from bothways.cli.parts import argument_text, json_text, split_labels
from bothways.errors import OptionError
from bothways.inference import choice as engines


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["sport, politics"], ("sport", "politics")),
        (['"arts, culture", sport'], ("arts, culture", "sport")),
        (["arts, culture", "sport"], ("arts, culture", "sport")),
        (["non-fiction"], ("non-fiction",)),
        (['"say ""hi""",b'], ('say "hi"', "b")),
        ([], None),
        (None, None),
    ],
)
def test_labels_are_a_list_as_in_csv_or_one_an_option(values, labels):
    assert split_labels(values) == labels


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a,,b"], "found an empty label"),
        ([""], "found an empty label"),
        (["a", " "], "found an empty label"),
        (["a,b,a"], "the label 'a' is given twice"),
        (['"a, b'], "quote a label that contains a comma"),
    ],
)
def test_labels_that_are_not_clear_are_refused(values, message):
    with pytest.raises(OptionError, match=message):
        split_labels(values)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_json_is_standard_whatever_the_numbers(number):
    text = json_text({"score": number, "scores": [number, {"a": number}], "array": np.array([1.0, math.nan])})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(text, parse_constant=refuse)
    assert found["scores"][1] == {"a": None}
    assert found["array"] == [1.0, None]


def test_json_commands_no_terminal_and_loses_nothing():
    hostile = "a\x1b]0;x\x07\x7f\x9b2J\u202eb\u2066\u2028 東京"
    for ascii_only in (False, True):
        text = json_text({hostile: hostile}, ascii_only=ascii_only)
        assert not any(character in text for character in "\x1b\x07\x7f\x9b\u202e\u2066\u2028\n")
        assert json.loads(text) == {hostile: hostile}
    assert text.isascii()
    assert json.loads(json_text("\ud83d")) == "\ufffd"


def test_values_of_parquet_files_have_a_form_in_json():
    found = json.loads(json_text({"day": date(2020, 1, 2), "raw": b"\xffa", "array": np.arange(2), "n": np.int64(5)}))
    assert found == {"day": "2020-01-02", "raw": "\ufffda", "array": [0, 1], "n": 5}


def test_arguments_are_utf8_in_every_locale():
    assert argument_text("東京".encode().decode("ascii", "surrogateescape")) == "東京"
    assert argument_text("\udcff") == "\ufffd"
    assert argument_text("plain é") == "plain é"


@pytest.mark.parametrize(("option", "choices"), [("Engine", "Name"), ("Precision", "Precision"), ("Device", "Device")])
def test_the_choices_are_those_of_load(option, choices):
    if not hasattr(engines, choices):
        pytest.skip(f"no choice of {choices}")
    kind = getattr(parts, option).__origin__
    assert set(get_args(get_args(kind)[0])) == set(get_args(getattr(engines, choices)))
    assert get_type_hints(parts.annotate)
