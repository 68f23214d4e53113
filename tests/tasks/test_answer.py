"""Answers are parts of their passage, the best legal ones, or none; nothing of a long passage is skipped."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import DataError
from bothways.tasks import Answer
from bothways.tasks.answer import Answered, Given, _whole_words
from bothways.text.files import Columns
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.packaged("bert-base-uncased")
CONTEXT = "The Eiffel Tower stands in Paris. It was designed by Stephen Sauvestre, and built in 1889."


def read(**row):
    return Answer.read([{"question": "Who?", "context": CONTEXT} | row], Columns())


def answered(task: Answer, question: str, context: str, rows) -> Answered:
    """What the task makes of logits: rows(window) -> (K, 2)."""
    example = task.example((question, context))
    windows = task.encode([example], TOKENIZER)
    parts = [task.reduce(rows(window), window) for window in windows]
    return task.decode(example, parts, windows, TOKENIZER.pieces)


def pointing(context: str, answer: str):
    """Logits that point at the first and the last piece of an answer, wherever a window shows them."""
    begin, end = context.index(answer), context.index(answer) + len(answer)

    def rows(window):
        found = np.zeros((len(window.reads), 2))
        offsets = window.offsets[window.reads]
        found[1:][offsets[1:, 0] == begin, 0] = 9.0
        found[1:][offsets[1:, 1] == end, 1] = 9.0
        return found

    return rows


def test_the_answer_is_the_part_of_the_passage_that_is_pointed_at():
    answer = answered(Answer(), "Who designed it?", CONTEXT, pointing(CONTEXT, "Stephen Sauvestre"))
    (best,) = answer.answers
    assert best["answer"] == "Stephen Sauvestre" == CONTEXT[best["start"] : best["end"]]
    assert 0.9 < best["score"] <= 1


@pytest.mark.parametrize(
    ("context", "answer", "wide"),
    [
        ("The unaffable Eiffel", "una", "unaffable"),
        ("塔在巴黎市中心。", "巴黎", "巴黎"),  # each letter is a word
        ("हिन्दी भाषा", "ह", "हिन्दी"),  # marks belong to it
        ("a (1889) b", "1889", "1889"),
    ],
)
def test_answers_are_widened_to_whole_words_of_every_script(context, answer, wide):
    begin = context.index(answer)
    start, end = _whole_words(context)(begin, begin + len(answer))
    assert context[start:end] == wide


@given(st.integers(12, 60), st.integers(0, 200), st.integers(1, 4))
def test_an_answer_no_longer_than_the_overlap_is_found_wherever_it_stands(max_pieces, place, length):
    words = [f"w{number}" for number in range(220)]
    context, wanted = " ".join(words), " ".join(words[place : place + length])
    task = Answer(max_pieces=max_pieces + 30, overlap=16)
    answer = answered(task, "which?", context, pointing(context, wanted))
    assert answer.best == wanted
    assert answer.truncated == 0


@given(
    st.text(min_size=1, max_size=80).filter(str.strip),
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.booleans(),
)
def test_every_answer_is_a_part_of_its_passage_in_all_of_unicode(context, seed, top_k, empty):
    rng = np.random.default_rng(seed)
    task = Answer(max_pieces=20, overlap=5, top_k=top_k, empty=empty)
    answer = answered(task, "why?", context, lambda window: rng.normal(0, 5, (len(window.reads), 2)))
    for one in answer.answers:
        assert one["answer"] == context[one["start"] : one["end"]]
        assert 0 <= one["score"] <= 1
    spoken = [one["score"] for one in answer.answers if one["answer"]]
    assert spoken == sorted(spoken, reverse=True)
    assert len({(one["start"], one["end"]) for one in answer.answers}) == len(answer.answers)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_the_best_legal_span_is_found(seed, longest):
    rng = np.random.default_rng(seed)
    task = Answer(longest=longest)
    (window,) = task.encode([task.example(("who?", CONTEXT))], TOKENIZER)
    rows = rng.normal(0, 3, (len(window.reads), 2))
    part = task.reduce(rows, window)
    legal = [
        (
            rows[first, 0] + rows[last, 1],
            int(window.offsets[window.reads[first], 0]),
            int(window.offsets[window.reads[last], 1]),
        )
        for first in range(1, len(rows))
        for last in range(first, min(len(rows), first + longest))
    ]
    assert part.spans == sorted(legal, reverse=True)[: len(part.spans)]
    assert part.null == pytest.approx(rows[0].sum())


def test_no_answer_is_said_where_its_logit_is_above_the_threshold_and_only_if_it_may_be():
    def rows(window):
        found = pointing(CONTEXT, "Paris")(window)
        found[0] = 10.0
        return found

    assert answered(Answer(), "Where?", CONTEXT, rows).best == "Paris"
    silent = answered(Answer(empty=True), "Where?", CONTEXT, rows)
    assert [one["answer"] for one in silent.answers] == ["", "Paris"]
    assert silent.gap == pytest.approx(2.0)
    assert answered(Answer(empty=True, threshold=3.0), "Where?", CONTEXT, rows).best == "Paris"


def test_the_threshold_is_the_one_that_is_best_on_dev():
    def one(gap: float, text: str) -> Answered:
        return Answered(answers=({"answer": text, "score": 1.0, "start": 0, "end": 1},), gap=gap)

    golds = [(Given("a", 0),), (), (Given("b", 0),), (), ()]
    predictions = [one(-3.0, "a"), one(2.0, "x"), one(0.5, "b"), one(1.5, "y"), one(-4.0, "z")]
    tuned = Answer(empty=True).tuned(predictions, golds)
    assert 0.5 < tuned.threshold < 1.5
    assert Answer(empty=False).tuned(predictions, golds) == Answer(empty=False)


def test_targets_stand_at_the_pieces_of_the_answer():
    (example,) = read(answers=[{"text": "Stephen Sauvestre", "answer_start": CONTEXT.index("Stephen")}])
    (window,) = Answer().encode([example], TOKENIZER)
    first, last = window.target
    offsets = window.offsets[window.reads]
    assert CONTEXT[offsets[first, 0] : offsets[last, 1]] == "Stephen Sauvestre"


def test_a_window_without_the_answer_points_at_cls():
    (example,) = read(answers=[{"text": "Eiffel", "answer_start": 4}])
    windows = Answer(max_pieces=16, overlap=4).encode([example], TOKENIZER)
    assert windows[0].target != (0, 0)
    assert windows[-1].target == (0, 0)
    (none,) = read(answers=[])
    assert {window.target for window in Answer(max_pieces=16, overlap=4).encode([none], TOKENIZER)} == {(0, 0)}


def test_an_answer_whose_place_is_not_certain_is_not_trained_on():
    (unsure,) = read(answers=[{"text": "Eiffel", "answer_start": 4}], start_certain=False)
    (twice,) = read(answers=["e"])
    (once,) = read(answers=["1889"])
    assert [window.target for one in (unsure, twice) for window in Answer().encode([one], TOKENIZER)] == [None, None]
    assert Answer().encode([once], TOKENIZER)[0].target is not None
    assert "2 questions are left out" in Answer().noticed([unsure, twice, once])[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answers": 3}, "expected a list of answers"),
        ({"question": " ", "answers": []}, "the question or the passage is empty"),
    ],
)
def test_bad_rows_are_refused_with_their_place(row, message):
    with pytest.raises(DataError, match=rf"row 1: .*{message}"):
        read(**row)


def test_the_layout_of_datasets_is_read_too():
    (example,) = read(answers={"text": ["Eiffel", "Tower"], "answer_start": [4, 11]})
    assert [(one.text, one.start) for one in example.gold] == [("Eiffel", 4), ("Tower", 11)]


def test_answers_are_widened_to_whole_words_if_asked():
    def rows(window):
        return pointing("unaffable man", "una")(window)

    context = "unaffable man"
    assert TOKENIZER.pieces(TOKENIZER.encode(context).ids)[1] == "una"
    assert answered(Answer(longest=1), "who?", context, rows).best == "unaffable"
    assert answered(Answer(longest=1, align=False), "who?", context, rows).best == "una"


def test_settings_survive_json():
    made = Answer(empty=True, threshold=1.5, longest=9, max_pieces=100, overlap=10)
    assert Answer.from_json(json.loads(json.dumps(made.as_json()))) == made
