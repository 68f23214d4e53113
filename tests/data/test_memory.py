"""Claims about rows from memory: what a data frame or data set holds is what is read, whatever wraps it."""

import math
from decimal import Decimal
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from bothways.data.memory import is_missing, plain
from bothways.data.tables import read_rows
from bothways.errors import DataError

ROWS = [{"text": "great", "label": "good"}, {"text": "dull", "label": "bad"}]


def values(source, **options):
    return [row.values for row in read_rows(source, **options)]


def answers(source):
    return [(row.number, row.values, row.error) for row in read_rows(source, strict=False)]


def test_wrapped_values_become_plain_ones():
    torch = pytest.importorskip("torch")
    arrow = pytest.importorskip("pyarrow")
    for wrapped, expected in (
        (torch.tensor(1), 1),
        (torch.tensor([1, 0]), [1, 0]),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array("a"), "a"),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.str_("a"), "a"),
        (arrow.scalar("a"), "a"),
        (arrow.scalar(["a"]), ["a"]),
        (np.ma.masked, None),
        ("a", "a"),
        (None, None),
    ):
        found = plain(wrapped)
        assert found == expected
        assert type(found) is type(expected)


def test_nothing_is_missing_but_none_and_what_differs_from_itself():
    pandas = pytest.importorskip("pandas")
    missing = [None, math.nan, np.float32("nan"), np.float64("nan"), Decimal("NaN"), pandas.NA, pandas.NaT]
    assert all(is_missing(plain(value)) for value in [*missing, np.datetime64("NaT")])
    there = ["", "nan", "NA", "None", 0, False, [], [math.nan], np.zeros((2, 2)), {}]
    assert not any(is_missing(plain(value)) for value in there)


def test_a_data_frame_is_read_row_by_row():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, index=[7, 3])
    assert values(frame) == ROWS
    assert [row.where for row in read_rows(frame)] == ["row 1", "row 2"]
    assert values(frame.set_axis([0, 1], axis=1))[0] == {"0": "great", "1": "good"}
    with pytest.raises(
        DataError, match=r"^two columns of the data frame have the same name \(text, text\); rename one"
    ):
        values(frame.set_axis(["text", "text"], axis=1))
    assert values(pandas.DataFrame({"text": pandas.Categorical(["a", "b"])})) == [{"text": "a"}, {"text": "b"}]
    assert answers(frame["text"]) == [(1, {"text": "great"}, None), (2, {"text": "dull"}, None)]


def test_a_table_of_pyarrow_is_read_row_by_row():
    arrow = pytest.importorskip("pyarrow")
    assert values(arrow.Table.from_pylist(ROWS)) == values(arrow.RecordBatch.from_pylist(ROWS)) == ROWS
    for texts in (arrow.array(["a"]), arrow.chunked_array([["a"]])):
        assert answers(texts) == [(1, {"text": "a"}, None)]


def test_a_data_set_is_the_same_in_every_format():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-X"])),
        }
    )
    rows = [{"text": "great", "label": 1, "tags": [0, 1]}, {"text": "dull", "label": 0, "tags": []}]
    made = datasets.Dataset.from_list(rows, features=features)
    expected = [
        {"text": "great", "label": "good", "tags": ["O", "B-X"]},
        {"text": "dull", "label": "bad", "tags": []},
    ]
    for form in (None, "numpy", "torch", "pandas", "arrow"):
        assert values(made.with_format(form)) == expected
    assert values(made.to_iterable_dataset()) == expected
    assert values(made.with_format("torch", columns=["label"])) == [{"label": "good"}, {"label": "bad"}]
    assert [row["label"] for _, row, _ in answers(made)] == [1, 0]  # not asked for, so not named
    with pytest.raises(
        DataError, match=r"^found a DatasetDict, expected rows such as a list of dicts; for a DatasetDict"
    ):
        values(datasets.DatasetDict(train=made))


def test_numbers_without_a_name_are_missing_or_refused():
    class Rows(list):
        features: ClassVar[dict] = {"label": SimpleNamespace(names=["neg", "pos"])}

    assert values(Rows([{"label": -1}, {"label": 1}])) == [{"label": None}, {"label": "pos"}]
    with pytest.raises(DataError, match=r"^row 1: label 2 is not one of 0 to 1; correct it"):
        values(Rows([{"label": 2}]))
    with pytest.raises(DataError, match=r"^row 2: found str, expected a dict of columns$"):
        values([{"text": "a"}, "b"])


def test_generators_and_texts_are_sources():
    assert values(dict(row) for row in ROWS) == ROWS
    assert answers(iter(["a", {"text": "b"}, ""])) == [
        (1, {"text": "a"}, None),
        (2, {"text": "b"}, None),
        (3, {"text": ""}, None),
    ]
    assert answers([]) == []


def test_one_wrong_item_is_an_error_of_its_own():
    assert answers(["a", None, ("b", "c"), "d"]) == [
        (1, {"text": "a"}, None),
        (2, {}, "found NoneType, expected a text or a dict of columns"),
        (3, {}, "found tuple, expected a text or a dict of columns"),
        (4, {"text": "d"}, None),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"text": ["a"], "label": ["b"]}, r"^found a dict, expected rows such as a list of dicts"),
        ({"a", "b"}, r"^found a set, whose order is not defined; expected a list$"),
        (frozenset("ab"), r"^found a set, whose order"),
        (b"a text", r"^found bytes, expected a path, a list of dicts, a data frame or a data set$"),
        (5, r"^found int, expected a path"),
        (None, r"^found NoneType, expected a path"),
    ],
)
def test_sources_without_rows_in_an_order_are_refused(source, message):
    for strict in (True, False):
        with pytest.raises(DataError, match=message):
            read_rows(source, strict=strict)
