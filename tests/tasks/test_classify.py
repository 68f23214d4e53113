"""What a row means, what its windows answer together, and what cannot be answered."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.examples import Example
from bothways.data.tables import Columns
from bothways.errors import DataError
from bothways.tasks import Classify, Pairs
from bothways.tasks.classify import LabelPrediction, LabelScores, probabilities, window_weights
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.packaged("bert-base-uncased")


def read(rows, task=Classify, **columns):
    return task.read(rows, Columns(**columns))


@pytest.mark.parametrize("column", ["text", "sentence", "review", "Text"])
@pytest.mark.parametrize("label", ["label", "category", "intent"])
def test_usual_column_names_are_found(column, label):
    (example,) = read([{"id": 7, label: "yes", column: "hello"}])
    assert (example.texts, example.reference, example.where) == (("hello",), "yes", "row 1")


def test_columns_can_be_named():
    row = {"text": "not this", "body": "this", "label": "no", "mark": 3}
    (example,) = read([row], text_column="body", label_column="mark")
    assert (example.texts, example.reference) == (("this",), "3")


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
    assert listed.reference == written.reference == numbered.reference == ("x", "y")


def test_a_number_beyond_the_label_names_is_refused():
    with pytest.raises(DataError, match=r"row 1: label '3' is neither a known name nor a number below 2"):
        read([{"text": "a", "label": "3"}], label_names="x,y")


def test_labels_stand_in_natural_order_and_keep_their_names():
    rows = [{"text": "a", "label": label} for label in ("10", "9", "1", "b", "a")]
    assert Classify.learn(read(rows)).labels == ("1", "9", "10", "a", "b")


def test_mixed_kinds_of_labels_are_refused():
    with pytest.raises(DataError, match="some labels are lists, some are not"):
        Classify.learn(read([{"text": "a", "label": "x"}, {"text": "b", "label": ["x"]}]))


def test_settings_survive_json():
    for task in (Classify, Pairs):
        made = task(labels=("x", "y"), kind="multi", max_length=9, stride=3, truncation=True, threshold=0.3)
        assert task.from_json(made.as_json()) == made


def test_targets_follow_the_order_of_the_labels():
    rows = [{"text": "a", "labels": ["z"]}, {"text": "b", "labels": ["x", "z"]}, {"text": "c", "labels": []}]
    examples = read(rows)
    task = Classify.learn(examples)
    targets = [window.target.tolist() for window in task.encode(examples, TOKENIZER)]
    assert targets == [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("kind", "function"),
    [("single", lambda x: 1 / (1 + np.exp(-x))), ("multi", lambda x: 1 / (1 + np.exp(-x))), ("regression", float)],
)
def test_windows_of_a_long_text_answer_together_each_by_the_tokens_it_owns(kind, function):
    """9 tokens in windows of 6 that begin at 0 and 3: the first owns 4 tokens, the second 5."""
    task = Classify(labels=("no", "yes"), kind=kind, max_length=8, stride=2)
    (text,) = Classify.read([{"text": "one two three four five six seven eight nine"}], Columns(), labeled=False)
    windows = task.encode([text], TOKENIZER)
    assert [window.skipped for window in windows] == [0, 3]
    logits = np.array([[0.0, 4.0], [0.0, 0.0]])
    answer = task.decode(text, logits, windows, TOKENIZER)
    assert answer.score == pytest.approx((4 * function(4.0) + 5 * function(0.0)) / 9)
    assert (answer.label, answer.windows, answer.truncated) == ("yes", 2, 0)


@pytest.mark.parametrize(
    "pair", [("one two three four five six seven", "a"), ("a", "one two three four five six seven")]
)
def test_the_windows_of_a_pair_are_weighted_by_the_text_that_slides(pair):
    task = Pairs(labels=("no", "yes"), max_length=8, stride=1)
    windows = task.encode([task.example(pair)], TOKENIZER)
    assert [window.skipped for window in windows] == [0, 3]  # windows of 4 of the 7 tokens
    np.testing.assert_allclose(window_weights(windows), [3 / 7, 4 / 7])


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_is_an_error_of_its_text(kind, bad):
    task = Classify(labels=("a", "b"), kind=kind)
    example = task.example("x")
    answer = task.decode(example, [np.array([0.0, bad])], task.encode([example], TOKENIZER), TOKENIZER)
    if kind == "multi" and bad == np.inf:
        assert answer.error is None  # an infinite logit is a probability of 1
        return
    assert answer.error == "the model computed NaN or infinity for this text; its weights are damaged"
    assert (answer.windows, answer.as_json(all_scores=True)["error"]) == (1, answer.error)
    assert "NaN" not in json.dumps({**answer.as_json(all_scores=True), "error": ""})


def test_scores_are_a_small_mapping_in_the_order_of_the_labels():
    labels = tuple(f"label {number}" for number in range(1000))
    task = Classify(labels=labels)
    example = task.example("x")
    windows = task.encode([example], TOKENIZER)
    first, second = (task.decode(example, [np.arange(1000.0)], windows, TOKENIZER) for _ in range(2))
    assert list(first.scores) == list(labels)
    assert first == second
    assert first.scores == dict(second.scores)
    assert first.as_json(all_scores=True)["scores"] == dict(first.scores)
    assert type(first.as_json(all_scores=True)["scores"]) is dict
    assert len(repr(first)) < 400
    alone, both = len(pickle.dumps([first])), len(pickle.dumps([first, second]))
    assert both - alone < 9_000  # 8 bytes a label
    assert first.scores._places is second.scores._places


def test_a_number_has_no_label():
    task = Classify(labels=("score",), kind="regression")
    example = task.example("x")
    answer = task.decode(example, [np.array([3.25])], task.encode([example], TOKENIZER), TOKENIZER)
    assert answer.as_json(all_scores=True) == {"score": 3.25, "windows": 1, "truncated": 0}
    assert answer.summary() == ("3.25", 3.25)
    assert task.failure("x").as_json() == {"score": None, "error": "x", "windows": 0, "truncated": 0}


def test_a_checkpoint_with_one_output_gives_a_probability_unless_it_says_that_it_is_a_number():
    config = {"id2label": {"0": "LABEL_0"}}
    assert Classify.of_checkpoint(config).kind == "multi"
    assert Classify.of_checkpoint(config | {"problem_type": None}).kind == "multi"
    assert Classify.of_checkpoint(config | {"problem_type": "regression"}).kind == "regression"
    assert Pairs.of_checkpoint(config).kind == "multi"


def multi(scores, threshold=0.5):
    """Predictions of labels a, b, c with these scores."""
    task = Classify(labels=("a", "b", "c"), kind="multi", threshold=threshold)
    example = task.example("x")
    windows = task.encode([example], TOKENIZER)
    logits = np.log(np.array(scores) / (1 - np.array(scores)))
    return task, [task.decode(example, [row], windows, TOKENIZER) for row in logits]


def micro_f1(predictions, references, threshold):
    found = [{label for label, score in one.scores.items() if score >= threshold} for one in predictions]
    hits = sum(len(one & set(reference)) for one, reference in zip(found, references, strict=True))
    return 2 * hits / max(1, sum(map(len, found)) + sum(map(len, references)))


def test_a_threshold_that_no_score_reaches_is_tuned():
    task, predictions = multi([[0.3, 0.1, 0.05], [0.2, 0.31, 0.04], [0.1, 0.02, 0.25]])
    references = [("a",), ("b",), ("c",)]
    assert task.tunable
    tuned = task.tune_on(predictions, references)
    assert tuned == replace(task, threshold=0.22)
    assert micro_f1(predictions, references, tuned.threshold) == 1.0
    assert tuned.describe() == "multi, 3 label(s): a, b, c, threshold 0.22"


def test_predictions_are_decided_again_by_another_threshold():
    task, predictions = multi([[0.3, 0.1, 0.05], [0.2, 0.31, 0.04]])
    failed = LabelPrediction("", 0.0, {}, error="empty text")
    lower = replace(task, threshold=0.15)
    found = lower.redecided([*predictions, failed])
    assert [one.labels for one in found] == [("a",), ("a", "b"), None]
    assert found[2] is failed
    assert task.redecided(found)[0].labels == ()


@given(st.data())
def test_no_threshold_has_a_higher_micro_f1_than_the_tuned_one(data):
    rows = st.lists(st.sampled_from([0.01, 0.1, 0.2, 0.21, 0.4, 0.5, 0.6, 0.9]), min_size=3, max_size=3)
    scores = data.draw(st.lists(rows, min_size=1, max_size=6))
    references = [tuple(data.draw(st.sets(st.sampled_from("abc")))) for _ in scores]
    task, predictions = multi(scores)
    tuned = task.tune_on(predictions, references).threshold
    reached = micro_f1(predictions, references, tuned)
    assert reached >= max(micro_f1(predictions, references, one) for one in np.linspace(0.005, 0.999, 300)) - 1e-12
    if reached == micro_f1(predictions, references, 0.5):
        assert tuned == 0.5


def test_texts_without_an_answer_and_many_labels_do_not_stop_the_tuning():
    task, predictions = multi([[0.3, 0.1, 0.05]])
    assert task.tune_on([*predictions, task.failure("x")], [("a",), ("b",)]).threshold == 0.2
    assert task.tune_on([task.failure("x")], [("a",)]) == task
    assert task.tune_on([], []) == task
    many = Classify(labels=tuple(map(str, range(5000))), kind="multi")
    scores = LabelScores(many.labels, np.linspace(0.001, 0.4, 5000))
    found = LabelPrediction("4999", 0.4, scores, ())
    assert 0.39 < many.tune_on([found], [("4999",)]).threshold < 0.4
    single = Classify(labels=("a", "b"))
    assert (single.tunable, single.tune_on(predictions, ["a"])) == (False, single)


def test_several_labels_are_those_above_the_threshold_and_the_best_is_named_anyway():
    task = Classify(labels=("a", "b", "c"), kind="multi")
    examples = Classify.read([{"text": "x"}], Columns(), labeled=False)
    windows = task.encode(examples, TOKENIZER)
    answer = task.decode(examples[0], np.array([[1.0, -1.0, 2.0]]), windows, TOKENIZER)
    assert (answer.label, answer.labels) == ("c", ("a", "c"))
    none = task.decode(examples[0], np.array([[-1.0, -3.0, -2.0]]), windows, TOKENIZER)
    assert (none.label, none.labels) == ("a", ())
    assert none.summary() == ("no label", pytest.approx(1 - none.score))
    assert "no label" in none.picture(examples[0]).note


def test_a_number_is_written_beside_how_its_text_was_read():
    picture = LabelPrediction("score", 3.5, {"score": 3.5}, number=True, windows=2, truncated=7).picture(
        Example(("a",))
    )
    assert (picture.bars, picture.note) == ((), "score 3.500, read in 2 windows, 7 tokens not read")


def test_an_error_stands_in_the_place_of_the_answer():
    answer = LabelPrediction("", float("nan"), error="the text is empty", windows=0).as_json(all_scores=True)
    assert answer == {"label": None, "score": None, "windows": 0, "truncated": 0, "error": "the text is empty"}


@given(st.lists(st.lists(st.floats(-60, 60), min_size=3, max_size=3), min_size=1, max_size=5))
def test_probabilities_are_probabilities(rows):
    logits = np.array(rows, dtype=np.float32)
    single, multi = probabilities(logits, "single"), probabilities(logits, "multi")
    np.testing.assert_allclose(single.sum(-1), 1.0)
    assert ((multi >= 0) & (multi <= 1)).all()
