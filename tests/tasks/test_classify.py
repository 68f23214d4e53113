"""What a row means, what its windows answer together, and what cannot be answered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import DataError
from bothways.tasks import Classify, Pairs
from bothways.tasks.classify import Labelled, probabilities
from bothways.tasks.task import Example
from bothways.text.files import Columns
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.packaged("bert-base-uncased")


def read(rows, task=Classify, **columns):
    return task.read(rows, Columns(**columns))


@pytest.mark.parametrize("column", ["text", "sentence", "review", "Text"])
@pytest.mark.parametrize("label", ["label", "category", "intent"])
def test_usual_column_names_are_found(column, label):
    (example,) = read([{"id": 7, label: "yes", column: "hello"}])
    assert (example.texts, example.gold, example.where) == (("hello",), "yes", "row 1")


def test_columns_can_be_named():
    row = {"text": "not this", "body": "this", "label": "no", "mark": 3}
    (example,) = read([row], text_column="body", label_column="mark")
    assert (example.texts, example.gold) == (("this",), "3")


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (("premise", "hypothesis"), ("a", "b")),
        (("sentence1", "sentence2"), ("a", "b")),
        (("text1", "text2"), ("a", "b")),
    ],
)
def test_pairs_find_both_texts(names, texts):
    (example,) = read([{names[1]: "b", names[0]: "a", "label": "x"}], Pairs)
    assert example.texts == texts


def test_lists_and_separated_cells_are_several_labels():
    (listed,) = read([{"text": "a", "labels": ["x", "y", "x"]}])
    (written,) = read([{"text": "a", "label": "x, y"}], separator=",")
    (numbered,) = read([{"text": "a", "label": "0,2"}], separator=",", label_names="x,z,y")
    assert listed.gold == written.gold == numbered.gold == ("x", "y")


def test_a_number_beyond_the_label_names_is_refused():
    with pytest.raises(DataError, match=r"row 1: label '3' is neither a known name nor a number below 2"):
        read([{"text": "a", "label": "3"}], label_names="x,y")


def test_a_score_column_means_regression():
    task = Classify.learn(read([{"text": "a", "score": "1.5"}, {"text": "b", "score": 2}]))
    assert (task.kind, task.labels) == ("regression", ("score",))


def test_labels_stand_in_natural_order_and_keep_their_names():
    rows = [{"text": "a", "label": label} for label in ("10", "9", "1", "b", "a")]
    assert Classify.learn(read(rows)).labels == ("1", "9", "10", "a", "b")


def test_mixed_kinds_of_labels_are_refused():
    with pytest.raises(DataError, match="some labels are lists, some are not"):
        Classify.learn(read([{"text": "a", "label": "x"}, {"text": "b", "label": ["x"]}]))


def test_settings_survive_json():
    for task in (Classify, Pairs):
        made = task(labels=("x", "y"), kind="multi", max_pieces=9, overlap=3, long="cut", threshold=0.3)
        assert task.from_json(made.as_json()) == made


def test_targets_follow_the_order_of_the_labels():
    rows = [{"text": "a", "labels": ["z"]}, {"text": "b", "labels": ["x", "z"]}, {"text": "c", "labels": []}]
    examples = read(rows)
    task = Classify.learn(examples)
    targets = [window.target.tolist() for window in task.encode(examples, TOKENIZER)]
    assert targets == [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


def test_windows_of_a_long_text_answer_together_each_by_its_length():
    task = Classify(labels=("no", "yes"), max_pieces=8, overlap=2)
    (text,) = read([{"text": "one two three four five six seven eight nine", "label": "no"}])
    windows = task.encode([text], TOKENIZER)
    assert [len(window.ids) for window in windows] == [8, 8]
    logits = np.array([[0.0, 4.0], [0.0, 0.0]])
    answer = task.decode(text, logits, windows, TOKENIZER.pieces)
    assert answer.score == pytest.approx((1 / (1 + np.exp(-4)) + 0.5) / 2)
    assert (answer.label, answer.windows, answer.truncated) == ("yes", 2, 0)


def test_several_labels_are_those_above_the_threshold_and_the_best_is_named_anyway():
    task = Classify(labels=("a", "b", "c"), kind="multi")
    examples = Classify.read([{"text": "x"}], Columns(), gold=False)
    windows = task.encode(examples, TOKENIZER)
    answer = task.decode(examples[0], np.array([[1.0, -1.0, 2.0]]), windows, TOKENIZER.pieces)
    assert (answer.label, answer.labels) == ("c", ("a", "c"))
    none = task.decode(examples[0], np.array([[-1.0, -3.0, -2.0]]), windows, TOKENIZER.pieces)
    assert (none.label, none.labels) == ("a", ())


def test_a_number_is_written_beside_how_its_text_was_read():
    picture = Labelled("score", 3.5, {"score": 3.5}, windows=2, truncated=7).picture(Example(("a",)))
    assert (picture.bars, picture.note) == ((), "score 3.500, read in 2 windows, 7 pieces not read")


def test_an_error_stands_in_the_place_of_the_answer():
    answer = Labelled("", float("nan"), error="the text is empty", windows=0).as_json(every_score=True)
    assert answer == {"label": None, "score": None, "windows": 0, "truncated": 0, "error": "the text is empty"}


@given(st.lists(st.lists(st.floats(-60, 60), min_size=3, max_size=3), min_size=1, max_size=5))
def test_probabilities_are_probabilities(rows):
    logits = np.array(rows, dtype=np.float32)
    single, multi = probabilities(logits, "single"), probabilities(logits, "multi")
    np.testing.assert_allclose(single.sum(-1), 1.0)
    assert ((multi >= 0) & (multi <= 1)).all()
