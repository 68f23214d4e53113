"""Spans of characters become tags of words, in the layouts that annotation tools write."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.schemes import entity_spans
from bothways.data.spans import cut_words, plain, read_spans, tag_words, whole_number
from bothways.data.words import split_words
from bothways.errors import DataError

TEXT = "Ann Lee saw Rome."


@pytest.mark.parametrize(
    "span",
    [
        {"start": 12, "end": 16, "label": "LOC"},
        {"start": 12, "end": 16, "labels": ["LOC"], "text": "Rome"},
        {"start_offset": 12, "end_offset": 16, "label": "LOC", "id": 7},
        {"value": {"start": 12, "end": 16, "text": "Rome", "labels": ["LOC"]}, "type": "labels"},
        {"entity_group": "LOC", "score": 0.9, "word": "Rome", "start": 12, "end": 16},
        {"start": 12.0, "end": "16", "label": "LOC"},
        {"start": np.int64(12), "end": np.array(16), "label": np.str_("LOC")},
        [12, 16, "LOC"],
        (12, 16, "LOC"),
        np.array([12, 16, "LOC"], object),
        {"start": 11, "end": 16, "label": " LOC "},
    ],
)
def test_spans_of_every_tool_are_read(span):
    assert read_spans([span], TEXT, "row 1") == [(12, 16, "LOC")]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[0, 7, "PER"], [4, 7, "PER"]], r"the spans 'Ann Lee' \(0:7 PER\) and 'Lee' \(4:7 PER\) overlap"),
        ([[0, 3, "PER"], [0, 3, "LOC"]], "overlap"),
        ([[3, 4, "PER"]], "covers only white space"),
        ([[4, 4, "PER"]], "is empty or goes beyond the 17 characters"),
        ([[7, 4, "PER"]], "is empty or goes beyond"),
        ([[-3, 4, "PER"]], "is empty or goes beyond"),
        ([[0, 18, "PER"]], "is empty or goes beyond"),
        ([[0.5, 3, "PER"]], "is not"),
        ([["a", 3, "PER"]], "is not"),
        ([[True, 3, "PER"]], "is not"),
        ([[0, float("nan"), "PER"]], "is not"),
        ([[0, 3]], "is not"),
        ([[0, 3, None]], "is not"),
        ([[0, 3, ["A", "B"]]], "is not"),
        ([[0, 3, " "]], "is not"),
        ([[0, 3, "O"]], "has the type O"),
        (["PER"], "is not"),
        ([{"start": 0, "end": 3, "label": "PER", "text": "Lee"}], "covers 'Ann', not its own text"),
    ],
)
def test_spans_that_cannot_be_meant_are_refused(spans, message):
    with pytest.raises(DataError, match=rf"^row 1: .*{message}"):
        read_spans(spans, TEXT, "row 1")


def test_one_span_given_twice_is_one():
    assert read_spans([[0, 3, "PER"], [0, 3, "PER"]], TEXT, "row 1") == [(0, 3, "PER")]


@given(st.text("ab -'é", max_size=20), st.lists(st.tuples(st.integers(0, 20), st.sampled_from("XY")), max_size=6))
def test_tags_of_cut_words_are_the_spans(text, marks):
    edges = sorted({min(place, len(text)) for place, _ in marks})
    spans = [
        (start, end, kind)
        for (start, end), (_, kind) in zip(zip(edges[::2], edges[1::2], strict=False), marks, strict=False)
        if text[start:end].strip() == text[start:end] != ""
    ]
    words = cut_words(split_words(text), spans)
    tags = tag_words(words, spans, len(text))
    found = [(words[first][0], words[last - 1][1], kind) for kind, first, last in entity_spans(tags)]
    assert found == spans
    assert "".join(text[start:end] for start, end in words) == "".join(
        character for character in text if not character.isspace()
    )


def test_a_word_has_the_tag_of_the_span_that_covers_most_of_it():
    assert tag_words(((0, 10),), [(0, 3, "X"), (3, 9, "Y")], 10) == ("B-Y",)
    assert tag_words(((0, 2), (3, 5)), [(0, 1, "X")], 5) == ("B-X", "O")


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (3.0, 3), ("3", 3), (np.int32(3), 3), (np.array(3.0), 3), (" -1 ", -1), (3.5, None), ("3.5", None)]
    + [(value, None) for value in (True, None, "", float("nan"), float("inf"), [3], "²")],
)
def test_whole_numbers(value, number):
    assert whole_number(value) == number


def test_arrays_and_tuples_are_lists():
    assert plain(np.array(["a", "b"])) == plain(("a", "b")) == ["a", "b"]
