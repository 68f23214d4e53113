"""Claims about what all tasks share: settings are checked, and rows become examples or say why not."""

import re
from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from bothways.data.tables import Columns
from bothways.errors import DataError, OptionError
from bothways.tasks import Answer, Classify, Embed, Fill, Pairs, Tag, ZeroShot

NLI = ("contradiction", "neutral", "entailment")


# Settings


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (Classify, {"kind": "softmax"}, r"^kind is 'softmax', expected one of single, multi, regression$"),
        (Classify, {"truncation": "trim"}, r"^truncation is 'trim', expected bool$"),
        (Classify, {"threshold": 1.5}, r"^threshold is 1\.5, expected a value from 0 to 1$"),
        (Classify, {"threshold": "x"}, r"^threshold is 'x', expected float$"),
        (Classify, {"threshold": float("nan")}, r"^threshold is nan, expected float$"),
        (Classify, {"max_length": "12"}, r"^max_length is '12', expected int$"),
        (Classify, {"max_length": True}, r"^max_length is True, expected int$"),
        (Classify, {"stride": -1}, r"^stride is -1, expected a value from 0 to inf$"),
        (Classify, {"labels": "a,b"}, r"^labels is 'a,b', expected a sequence of strings$"),
        (Classify, {"labels": (1, 2)}, r"^labels is \(1, 2\), expected a sequence of strings$"),
        (
            Tag,
            {"labels": ("O",), "aggregation_strategy": "avg"},
            r"^aggregation_strategy is 'avg', expected one of none, simple, first",
        ),
        (Answer, {"max_answer_len": 0}, r"^max_answer_len is 0, expected a value from 1"),
        (Answer, {"top_k": 0}, r"^top_k is 0, expected a value from 1"),
        (Answer, {"align_to_words": "no"}, r"^align_to_words is 'no', expected bool$"),
        (Fill, {"top_k": 2.5}, r"^top_k is 2\.5, expected int$"),
        (Embed, {"pooling": "sum"}, r"^pooling is 'sum', expected one of mean, cls, pooler, none$"),
        (ZeroShot, {"labels": (), "nli": NLI, "hypothesis_template": 5}, r"^hypothesis_template is 5, expected str$"),
        (ZeroShot, {"labels": (), "nli": NLI, "kind": "softmax"}, r"^kind is 'softmax', expected one of"),
    ],
)
def test_a_setting_of_the_wrong_type_or_value_is_refused(task, settings, message):
    needed = {"labels": ("a", "b")} if issubclass(task, Classify) else {}
    with pytest.raises(OptionError, match=message):
        task(**(needed | settings))


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (Classify(("neg", "pos")), {"labels": ("positive", "negative")}),
        (Pairs(("neg", "pos")), {"labels": ("neg", "pos", "third")}),
        (Classify(("neg", "pos")), {"labels": ["pos", "neg"]}),
        (Classify(("neg", "pos")), {"kind": "multi"}),
        (Tag(("O", "B-PER", "I-PER")), {"scheme": "IO"}),
        (Answer(), {"handle_impossible_answer": True}),
        (ZeroShot((), nli=NLI), {"nli": NLI[::-1]}),
    ],
)
def test_what_belongs_to_the_weights_cannot_be_changed(task, changes):
    (name,) = changes
    with pytest.raises(OptionError, match=rf"^{name} is fixed by the trained weights of this {task.name} model"):
        task.changed(**changes)


def test_the_other_settings_can_be_changed_and_the_same_value_is_no_change():
    made = Classify(("neg", "pos")).changed(labels=["neg", "pos"], threshold=0.3, truncation=True)
    assert made == Classify(("neg", "pos"), threshold=0.3, truncation=True)
    changed = ZeroShot((), nli=NLI).changed(labels=["sports"], kind="multi")
    assert (changed.labels, changed.kind) == (("sports",), "multi")
    with pytest.raises(OptionError, match=r"the task classify has no setting 'treshold'; choose from max_length, stri"):
        made.changed(treshold=0.3)
    with pytest.raises(OptionError, match=r"^truncation is 'trim', expected"):
        made.changed(truncation="trim")


def test_settings_of_a_damaged_file_are_a_value_error():
    with pytest.raises(ValueError, match="max_length is '12', expected int"):
        Classify.from_json({"labels": ["a", "b"], "max_length": "12"})


# Rows as examples


def test_the_examples_of_a_file_have_their_row_and_line():
    (example,) = Classify.read([{"id": 7, "text": "a", "label": "x"}], Columns())
    assert (example.row, example.number, example.where) == ({"id": 7, "text": "a", "label": "x"}, 1, "row 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ["great", "film"],
            r"is a list, \['great', 'film'\], expected a string \(words with tags are for the task tag",
        ),
        ({"en": "dull"}, r"is a dict, \{'en': 'dull'\}, expected a string$"),
        (b"bytes", r"is a bytes, b'bytes', expected a string$"),
        (object, r"is a type, "),
        (None, r"is empty; fill it in or remove the row$"),
        (float("nan"), "is empty"),
        (" \n", "is empty"),
    ],
)
def test_what_is_no_text_is_refused_in_training_and_an_error_of_its_row_in_prediction(text, message):
    rows = [{"text": "a", "label": "x"}, {"text": text, "label": "y"}, {"text": "c", "label": "x"}]
    with pytest.raises(DataError, match=rf"^row 2: the text in column 'text' {message}"):
        Classify.read(rows, Columns())
    found = list(Classify.inputs(rows, Columns()))
    assert [(one.texts, one.number) for one in found if one.error is None] == [(("a",), 1), (("c",), 3)]
    assert re.match(rf"the text {message.split(';')[0]}", found[1].error or "")
    assert found[1].row == rows[1] or text != text


def test_numbers_and_dates_are_texts():
    values = (5, 2.5, Decimal("1.50"), np.int64(3), np.str_("a"), date(2024, 1, 2), np.array("b"), True)
    found = [one.texts[0] for one in Classify.inputs([{"text": value} for value in values], Columns())]
    assert found == ["5", "2.5", "1.50", "3", "a", "2024-01-02", "b", "True"]


def test_missing_values_of_pandas_are_missing_texts():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": pandas.array(["great", pandas.NA], dtype="string"), "label": ["x", "y"]})
    for source in (frame, [{"text": "great", "label": "x"}, {"text": pandas.NA, "label": "y"}]):
        with pytest.raises(DataError, match=r"^row 2: the text in column 'text' is empty; fill it in"):
            Classify.read(source, Columns())
        assert [one.error for one in Classify.inputs(source, Columns())] == [None, "the text is empty"]


def test_every_line_of_a_text_file_is_an_example(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes(b"great film\n\n\xff\ndull film\n")
    found = list(Classify.inputs(path, Columns()))
    assert [one.number for one in found] == [1, 2, 3, 4]
    assert [one.texts for one in found] == [("great film",), ("",), ("",), ("dull film",)]
    assert found[1].error == "the text is empty"
    assert found[2].error is not None
    assert found[2].error.startswith("byte 0xff is not UTF-8")
    assert found[2].row is None
    assert Classify.read(path, Columns(), labeled=False) == found


def test_a_pair_without_one_of_its_texts_has_an_error():
    rows = [{"premise": "a", "hypothesis": "b", "id": 1}, {"premise": "a", "hypothesis": None}, {"premise": "a"}]
    errors = [one.error for one in Pairs.inputs(rows, Columns())]
    assert errors[0] is None
    assert all(
        error is not None and error.startswith("the text in column 'hypothesis' is empty") for error in errors[1:]
    )


def test_inputs_are_read_as_they_are_needed():
    pulled = []

    def rows():
        for number in range(1000):
            pulled.append(number)
            yield {"text": f"text {number}"}

    stream = Classify.inputs(rows(), Columns())
    assert pulled == []
    assert [next(stream).number for _ in range(3)] == [1, 2, 3]
    assert len(pulled) == 3


def test_the_columns_are_those_of_the_first_row_that_can_be_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text"\n{"id": 1, "text": "a"}\n{"id": 2}\n')
    assert [one.error is None for one in Classify.inputs(path, Columns())] == [False, True, False]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: no column 'body' for the text"):
        list(Classify.inputs(path, Columns(text_column="body")))
    with pytest.raises(DataError, match=r"No such file or directory"):
        Classify.inputs(tmp_path / "absent.txt", Columns())


def test_columns_without_a_header_may_be_given_as_numbers(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("x\tgreat\ny\tdull\n")
    found = Classify.read(path, Columns(text_column=1, label_column=0, header=False))
    assert [(one.texts[0], one.reference) for one in found] == [("great", "x"), ("dull", "y")]
