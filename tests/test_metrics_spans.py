"""Entity and answer scores against the official rules, on real tags and on hard cases by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics as official
from seqeval.scheme import IOB2

from bothways.data.columns import read_sentences
from bothways.data.schemes import entity_spans
from bothways.metrics import answer_scores, answering, tagging

TAGS = st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"])


def rng():
    return np.random.default_rng(0)


def reference(references, predicted) -> dict[str, float]:
    options = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    return {
        "entity_f1": official.f1_score(references, predicted, **options),
        "entity_precision": official.precision_score(references, predicted, **options),
        "entity_recall": official.recall_score(references, predicted, **options),
        "token_accuracy": official.accuracy_score(references, predicted),
    }


@given(st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=8), min_size=1, max_size=4))
def test_entity_scores_equal_seqeval_strict(sentences):
    references = [[reference for reference, _ in one] for one in sentences]
    predicted = [[guess for _, guess in one] for one in sentences]
    found = tagging(references, predicted, rng=rng(), resamples=2).metrics
    if not any(
        entity_spans(reference) or entity_spans(guess) for reference, guess in zip(references, predicted, strict=True)
    ):
        assert found["entity_f1"].value == found["entity_recall"].value == 0  # seqeval fails where there is nothing
        return
    for name, value in reference(references, predicted).items():
        assert found[name].value == pytest.approx(value), name


def test_entity_scores_equal_seqeval_strict_on_damaged_conll(shared_data):
    references = [list(one.tags) for one in read_sentences(str(shared_data / "conll2003" / "dev.txt"))]
    chance = rng()
    every = sorted({tag for reference in references for tag in reference})
    predicted = [
        [chance.choice(every) if chance.random() < 0.1 else tag for tag in reference] for reference in references
    ]
    scores = tagging(references, predicted, rng=rng(), resamples=50)
    for name, value in reference(references, predicted).items():
        interval = scores.metrics[name]
        assert interval.value == pytest.approx(value)
        assert interval.low < interval.value < interval.high
    assert sum(row.support for row in scores.per_class) == 5923


def test_an_inside_tag_that_continues_nothing_begins_and_lengthens_nothing():
    assert entity_spans(["I-X", "B-X", "I-Y", "I-X", "I-"]) == [("X", 1, 2)]


def test_perfect_and_empty_predictions():
    references = [["B-X", "I-X", "O"], ["O"]]
    assert tagging(references, references, rng=rng()).metrics["entity_f1"].value == 1.0
    nothing = tagging(references, [["O", "O", "O"], ["O"]], rng=rng()).metrics
    assert (nothing["entity_f1"].value, nothing["token_accuracy"].value) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("guess", "references", "exact", "f1"),
    [
        ("The Normans", ["Normans"], 1, 1),  # articles do not count
        ("theatre", ["atre"], 0, 0),  # but only whole words are articles
        ("U.S.", ["us"], 1, 1),  # punctuation goes without leaving a space
        ("1,000", ["1000"], 1, 1),
        ("well-known", ["well known"], 0, 0),
        ("in  the\tNorth", ["in north"], 1, 1),
        ("Beyoncé", ["Beyonce"], 0, 0),  # accents count
        ("red blue", ["red green", "blue"], 0, 2 / 3),  # the best reference counts
        ("a b b", ["b c"], 0, 0.5),  # repeated words count once each
        ("", ["x"], 0, 0),
        ("", [], 1, 1),  # no answer, rightly
        ("x", [], 0, 0),
        ("the", [], 1, 1),  # normalizes to nothing
        ("x", ["the", "x"], 1, 1),  # a reference that is nothing is no reference
        ("“quoted”", ["quoted"], 0, 0),  # only ASCII punctuation is removed
    ],
)
def test_answers_are_compared_by_squads_rules(guess, references, exact, f1):
    assert answer_scores(guess, references) == (exact, pytest.approx(f1))


def test_questions_with_and_without_answer_are_told_apart():
    scores = answering(["x", "y", "", "z"], [["x"], ["y y"], [], []], rng=rng()).metrics
    assert {name: interval.value for name, interval in scores.items()} == pytest.approx(
        {
            "exact_match": 0.5,
            "f1": (1 + 2 / 3 + 1 + 0) / 4,
            "has_answer_exact_match": 0.5,
            "has_answer_f1": (1 + 2 / 3) / 2,
            "no_answer_accuracy": 0.5,
        }
    )
    assert set(answering(["x"], [["x"]], rng=rng()).metrics) == {"exact_match", "f1"}
