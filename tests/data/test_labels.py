"""Claims about labels: one class has one name, numbers are numbers, and nothing that is no label becomes one."""

from decimal import Decimal

import numpy as np
import pytest

from bothways.data.labels import Cell, label_notes, labels_of_cells, speller
from bothways.data.tables import Columns
from bothways.errors import DataError, OptionError
from bothways.tasks import Classify, Pairs


def references(*labels, column="label", **columns):
    cells = [Cell(label, f"row {number}") for number, label in enumerate(labels, start=1)]
    return labels_of_cells(cells, column, Columns(**columns))


def refused(message, *labels, **columns):
    with pytest.raises(DataError, match=message):
        references(*labels, **columns)


# Numbers


@pytest.mark.parametrize("column", ["label", "labels", "target", "my own"])
@pytest.mark.parametrize("labels", [("0.0", "1.25", "2"), (0.0, 1.25, 2), (np.float32(0), "1.25", Decimal(2))])
def test_numbers_that_are_not_all_whole_mean_regression(column, labels):
    assert references(*labels, column=column) == [0.0, 1.25, 2.0]


@pytest.mark.parametrize("column", ["score", " score", "Score ", "\ufeffscore", "similarity"])
def test_a_score_column_means_regression_whatever_is_around_its_name(column):
    assert references("1", "2", column=column) == [1.0, 2.0]
    rows = [{"text": "a", column: "1"}, {"text": "b", column: "2"}]
    assert [example.reference for example in Classify.read(rows, Columns())] == [1.0, 2.0]


def test_whole_numbers_are_classes_with_one_spelling():
    assert references(1.0, 1, "1", "1.0", np.float32(1), np.int64(1), Decimal("1.0"), "0", "-2.0") == [
        *["1"] * 7,
        "0",
        "-2",
    ]
    assert references("1.0", "0.0") == references(1, 0) == ["1", "0"]
    assert references("007", "7") == ["007", "7"]
    assert references(1.0, "v1") == ["1.0", "v1"]
    assert references(1, 2.5, "1.0", kind="single") == ["1", "2.5", "1"]
    assert references("1.0", "0", label_names="neg,pos") == ["pos", "neg"]
    assert references(["1.0", 2], [2.0]) == [("1", "2"), ("2",)]


def test_true_has_one_spelling():
    assert references(True, "true", "TRUE", "False", np.bool_(False)) == ["True", "True", "True", "False", "False"]
    assert references(True, "True", "true", 1, "0") == ["1", "1", "1", "1", "0"]
    assert references(True, "yes") == ["True", "yes"]
    assert references(True, 2) == ["True", "2"]
    assert references(True, "false", label_names="neg,pos") == ["pos", "neg"]


def test_numbers_among_words_are_refused_until_the_kind_is_named():
    message = r"^row 2: the label 'n/a' in column 'label' is not a number, while 1\.5 at row 1 is one.*--kind single"
    refused(message, 1.5, "n/a", "2")
    assert references(1.5, "n/a", kind="single") == ["1.5", "n/a"]
    refused(r"^row 2: 'n/a' in column 'label' is not a number; --kind single", "1.5", "n/a", kind="regression")
    refused(r"^row 1: '3,5' in column 'label' is not a number; write decimals with a point", "3,5", kind="regression")
    for label in ("1_000", "inf", "nan", float("inf"), True, [1.0]):
        refused(r"^row 1: .* is not a number", label, kind="regression")


# Missing labels, and what is no label


def test_names_that_look_like_nothing_are_names():
    names = ["None", "NA", "null", "nan"]
    assert references(*names) == names
    (note,) = label_notes(names)
    assert note == "3 rows have the label None or null or nan, learned as a class; leave out rows without a label"
    assert label_notes(["-1", "1"] * 2) == label_notes(["-", "+"] * 2) == []
    assert label_notes(["-1", "0", "1"])[0].startswith("1 row has the label -1")
    assert label_notes(["a", "-", "-"])[0].startswith("2 rows have the label -,")


def test_missing_labels_are_refused_with_their_row():
    pandas = pytest.importorskip("pandas")
    for missing in (
        None,
        float("nan"),
        np.float32("nan"),
        np.array(np.nan),
        pandas.NA,
        pandas.NaT,
        "",
        " \u00a0\u200b",
    ):
        refused(r"^row 2: the label in column 'label' is empty; fill it in or remove the row", "a", missing)
        assert references("a", missing, separator=",") == [("a",), ()]
    for missing in (None, float("nan")):
        refused(r"^row 1: a label in the list in column 'label' is empty", [missing, "good"])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"name": "x"}, r"the label in column 'label' is a dict, \{'name': 'x'\}, expected a name or a number$"),
        ([[0, 3, "PER"]], r"a label in the list .* is a list, \[0, 3, 'PER'\], .*are spans, which the task tag learns"),
        ([{"label": "PER"}], r"a label in the list .* is a dict"),
        (b"good", r"the label in column 'label' is a bytes"),
        ("['a', 'b']", r"the label \"\['a', 'b'\]\" .* is a list written as text"),
        ('["a"]', r"the label '\[\"a\"\]' .* is a list written as text"),
    ],
)
def test_what_is_no_label_is_refused(label, message):
    refused(f"^row 1: {message}", label)


@pytest.mark.parametrize("labels", [("3,5", "4"), ("27", "4,27"), ("1", "1,000"), ("1,5", "2,0")])
def test_numbers_with_a_comma_are_neither_classes_nor_guessed(labels):
    refused(
        r"^row \d: the label '.*,.*' in column 'label' is a number with a comma.*--separator.*--kind single", *labels
    )
    assert references(*labels, kind="single") == [*labels]
    assert all(isinstance(reference, tuple) for reference in references(*labels, separator=","))


def test_labels_made_of_other_labels_are_noted():
    (note,) = label_notes(["joy|love", "joy", "love"])
    assert note.startswith("1 of 3 labels are made of others, such as 'joy|love'; if they are several labels, give --")
    assert label_notes(["arts, culture", "arts", "news"]) == []


def test_a_label_in_brackets_is_a_label():
    assert references("[/b]", "price [usd]", "[x]") == ["[/b]", "price [usd]", "[x]"]
    assert references("['a']", "b", kind="single") == ["['a']", "b"]


# Several labels


def test_a_quoted_label_may_hold_the_separator():
    assert references('"arts, culture",news', "news,news,", "", separator=",") == [
        ("arts, culture", "news"),
        ("news",),
        (),
    ]
    assert references("arts, culture|news", "|news|", separator="|") == [("arts, culture", "news"), ("news",)]
    assert references('5" pipe,"x', separator=",") == [('5" pipe', '"x')]
    assert references("0,1", separator=",", label_names='"arts, culture",news') == [("arts, culture", "news")]
    with pytest.raises(OptionError, match=r"a separator is for several labels per cell .* found kind 'single'"):
        Classify.read([{"text": "a", "label": "x"}], Columns(separator=",", kind="single"))


def test_vectors_of_zeros_and_ones_need_the_names_of_their_places():
    rows = ([1, 0, 0], [0, 1.0, 1], [0, 0, 0])
    refused(r"^row 1 and below: the labels are vectors of 3 zeros and ones; name the 3 labels", *rows)
    assert references(*rows, label_names="a,b,c") == [("a",), ("b", "c"), ()]
    assert references([0, 1], [1], label_names="a,b,c") == [("a", "b"), ("b",)]


def test_a_multi_label_task_may_have_one_label_that_some_rows_lack():
    rows = [{"text": "a", "labels": ["x"]}, {"text": "b", "labels": []}]
    assert Classify.learn(Classify.read(rows, Columns())).labels == ("x",)
    with pytest.raises(DataError, match=r"^row 1 and below: every row has the label 'x'; expected"):
        Classify.learn(Classify.read(rows[:1] * 2, Columns()))
    with pytest.raises(DataError, match=r"every row has no label"):
        Classify.learn(Classify.read(rows[1:] * 2, Columns()))
    with pytest.raises(DataError, match=r"every row has the number 2\.5"):
        Classify.learn(Classify.read([{"text": "a", "score": 2.5}] * 2, Columns()))


# Labels that look the same


def test_labels_that_look_the_same_are_the_same():
    alike = ("\u00e9t\u00e9", "e\u0301te\u0301", "\ufeff\u00e9t\u00e9", "\u00e9\u200bt\u00e9", "\u00e9t\u00e9\u00a0")
    assert set(references(*alike)) == {"\u00e9t\u00e9"}
    assert references("a\u200cb", "a\u200db") == ["a\u200cb", "a\u200db"]  # joiners have a meaning within a word


def test_labels_that_differ_only_in_case_or_space_are_noted():
    (note,) = label_notes(["Good", "good", "bad", "very bad", "good"])
    assert note == "the labels 'Good', 'good' differ only in case, spaces or look, and are different"
    (note,) = label_notes(["very bad", "very\u00a0bad", "good"])
    assert "'very bad', 'very\\xa0bad'" in note
    (note,) = label_notes(["pos", "p\u043es", "neg"])
    assert "'pos', 'p\\u043es'" in note
    assert label_notes(["a", "b", ("c"), "a"]) == []
    assert label_notes(["+", "-", "+", "-"]) == []


def test_labels_that_are_hardly_classes_are_noted():
    (note,) = label_notes([*[f"free text {n}" for n in range(12)], "a", "a", "b", "b"])
    assert note.startswith("12 of 14 labels occur once ('free text 0', 'free text 1', 'free text 2' ...): a model")
    (note,) = label_notes([str(n) for n in range(20)] * 2)
    assert note.startswith("the labels are 20 whole numbers, learned as classes; --kind regression")
    (note,) = label_notes([0.5, 3.0])
    assert note.startswith("the labels are numbers from 0.5 to 3, learned by regression; --kind single")
    (note,) = label_notes(['"good, very"', "bad"] * 2)
    assert note.startswith('the label "good, very" is in quotes')
    assert label_notes(["1", "2"] * 5) == []


def test_an_unknown_label_that_looks_like_a_known_one_is_shown_beside_it():
    rows = [{"text": "a", "label": "Good"}]
    with pytest.raises(
        DataError, match=r"^row 1: label 'Good' is not one of the 2 known: bad, good \(it looks like 'go"
    ):
        Classify(("bad", "good")).check(Classify.read(rows, Columns()))
    with pytest.raises(
        DataError, match=r"^row 1: the label 'Good' does not suit a model of kind 'regression'; give --k"
    ):
        Classify(("score",), kind="regression").check(Classify.read(rows, Columns()))


# Rows without agreement


def test_rows_on_which_annotators_did_not_agree_are_left_out_and_counted(caplog):
    rows = [{"sentence1": "a", "sentence2": f"b {n}", "gold_label": label} for n, label in enumerate("x-yx-")]
    found = Pairs.read(rows, Columns())
    assert [(example.reference, example.number) for example in found] == [("x", 1), ("y", 3), ("x", 4)]
    assert caplog.messages == ["row 2 and others: 2 rows have no label ('-') and are left out"]
    assert references("+", "-", column="gold_label") == references("+", "-") == ["+", "-"]
    assert references("a", "-") == ["a", "-"]
    refused(r"^row 1 and below: every gold_label is '-'", "-", "-", column="gold_label")


def test_one_label_is_spelled_as_it_is():
    assert speller(["1.0"])("1.0") == "1"
    assert speller(["B-PER"])("B-PER") == "B-PER"


def test_label_names_that_no_row_has_are_noted(caplog):
    assert references("0", "1", label_names="arts, culture,news") == ["arts", "culture"]
    assert caplog.messages == ["no row has the last 1 of 3 label names ('news')"]
    caplog.clear()
    references("0", "2", label_names="a,b,c")
    assert not caplog.messages
