"""Answers are parts of their passage, the best legal ones, or none; nothing of a long passage is skipped."""

import json
import re
import string
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.questions import ReferenceAnswer
from bothways.data.tables import Columns
from bothways.data.words import word_edges
from bothways.errors import DataError
from bothways.metrics import answer_scores
from bothways.tasks import Answer
from bothways.tasks.answer import AnswerPrediction, _whole_words
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.packaged("bert-base-uncased")
CONTEXT = "The Eiffel Tower stands in Paris. It was designed by Stephen Sauvestre, and built in 1889."


def read(**row):
    return Answer.read([{"question": "Who?", "context": CONTEXT} | row], Columns())


def answered(task: Answer, question: str, context: str, rows) -> AnswerPrediction:
    """What the task makes of logits: rows(window) -> (K, 2)."""
    example = task.example((question, context))
    windows = task.encode([example], TOKENIZER)
    parts = [task.reduce(rows(window), window) for window in windows]
    return task.decode(example, parts, windows, TOKENIZER)


def pointing(context: str, answer: str):
    """Logits that point at the first and the last token of an answer, wherever a window shows them."""
    begin, end = context.index(answer), context.index(answer) + len(answer)

    def rows(window):
        found = np.zeros((len(window.head_positions), 2))
        offsets = window.offsets[window.head_positions]
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
def test_an_answer_no_longer_than_the_stride_is_found_wherever_it_stands(max_length, place, length):
    words = [f"w{number}" for number in range(220)]
    context, wanted = " ".join(words), " ".join(words[place : place + length])
    task = Answer(max_length=max_length + 30, stride=16)
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
    task = Answer(max_length=20, stride=5, top_k=top_k, handle_impossible_answer=empty)
    answer = answered(task, "why?", context, lambda window: rng.normal(0, 5, (len(window.head_positions), 2)))
    for one in answer.answers:
        assert one["answer"] == context[one["start"] : one["end"]]
        assert 0 <= one["score"] <= 1
    spoken = [one["score"] for one in answer.answers if one["answer"]]
    assert spoken == sorted(spoken, reverse=True)
    assert len({(one["start"], one["end"]) for one in answer.answers}) == len(answer.answers)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_the_best_legal_span_is_found(seed, longest):
    rng = np.random.default_rng(seed)
    task = Answer(max_answer_len=longest)
    (window,) = task.encode([task.example(("who?", CONTEXT))], TOKENIZER)
    rows = rng.normal(0, 3, (len(window.head_positions), 2))
    part = task.reduce(rows, window)
    legal = [
        (
            rows[first, 0] + rows[last, 1],
            int(window.offsets[window.head_positions[first], 0]),
            int(window.offsets[window.head_positions[last], 1]),
        )
        for first in range(1, len(rows))
        for last in range(first, min(len(rows), first + longest))
    ]
    assert part.spans == sorted(legal, reverse=True)[:20]
    assert len(part.spans) == min(20, len(legal)) > 0
    assert part.null == pytest.approx(rows[0].sum())


def test_no_answer_is_said_where_its_logit_is_above_the_threshold_and_only_if_it_may_be():
    def rows(window):
        found = pointing(CONTEXT, "Paris")(window)
        found[0] = 10.0
        return found

    assert answered(Answer(), "Where?", CONTEXT, rows).best == "Paris"
    silent = answered(Answer(handle_impossible_answer=True), "Where?", CONTEXT, rows)
    assert [one["answer"] for one in silent.answers] == ["", "Paris"]
    assert silent.gap == pytest.approx(2.0)
    assert answered(Answer(handle_impossible_answer=True, threshold=3.0), "Where?", CONTEXT, rows).best == "Paris"


@pytest.mark.parametrize("asks", [0, 1])
def test_no_answer_must_win_in_every_window(asks):
    """A window without the answer says so loudly; that of the answer does not (BERT takes the least of both)."""
    context = "the Eiffel Tower . " + "and much more about it " * 6

    def rows(window):
        found = pointing(context, "Eiffel")(window)
        found[0] = 1.0 if window.window == asks else 12.0
        return found

    task = Answer(handle_impossible_answer=True, max_length=24, stride=4)
    answer = answered(task, "what?", context, rows)
    assert answer.windows > 2
    assert answer.gap == pytest.approx(2.0 - 18.0)
    assert answer.best == "Eiffel"


def test_the_threshold_is_the_one_that_is_best_on_dev():
    def one(gap: float, text: str) -> AnswerPrediction:
        return AnswerPrediction(answers=({"answer": text, "score": 1.0, "start": 0, "end": 1},), gap=gap)

    references = [(ReferenceAnswer("a", 0),), (), (ReferenceAnswer("b", 0),), (), ()]
    predictions = [one(-3.0, "a"), one(2.0, "x"), one(0.5, "b"), one(1.5, "y"), one(-4.0, "z")]
    tuned = Answer(handle_impossible_answer=True).tune_on(predictions, references)
    assert 0.5 < tuned.threshold < 1.5
    assert Answer(handle_impossible_answer=False).tune_on(predictions, references) == Answer(
        handle_impossible_answer=False
    )


def test_targets_stand_at_the_tokens_of_the_answer():
    (example,) = read(answers=[{"text": "Stephen Sauvestre", "answer_start": CONTEXT.index("Stephen")}])
    (window,) = Answer().encode([example], TOKENIZER)
    first, last = window.target
    offsets = window.offsets[window.head_positions]
    assert CONTEXT[offsets[first, 0] : offsets[last, 1]] == "Stephen Sauvestre"


def test_a_window_without_the_answer_points_at_cls():
    (example,) = read(answers=[{"text": "Eiffel", "answer_start": 4}])
    windows = Answer(max_length=16, stride=4).encode([example], TOKENIZER)
    assert windows[0].target != (0, 0)
    assert windows[-1].target == (0, 0)
    (none,) = read(answers=[])
    assert {window.target for window in Answer(max_length=16, stride=4).encode([none], TOKENIZER)} == {(0, 0)}


def test_an_answer_whose_place_is_not_certain_is_not_trained_on():
    (unsure,) = read(answers=[{"text": "Eiffel", "answer_start": 4}], start_certain=False)
    (twice,) = read(answers=["e"])
    (once,) = read(answers=["1889"])
    assert [window.target for one in (unsure, twice) for window in Answer().encode([one], TOKENIZER)] == [None, None]
    assert Answer().encode([once], TOKENIZER)[0].target is not None
    assert "2 questions are left out" in Answer().training_notes([unsure, twice, once])[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answers": 3}, "expected a list of answers"),
        ({"answers": [["Paris"]]}, "expected a list of answers"),
        ({"answers": [{"answer_start": 3}]}, "expected a list of answers"),
        ({"answers": None}, "the answer in column 'answers' is empty; write \\[\\] for a question without answer"),
        ({"answers": ""}, "the answer in column 'answers' is empty"),
        ({"answers": " "}, "the answer in column 'answers' is empty"),
        ({"answers": float("nan")}, "the answer in column 'answers' is empty"),
        ({"answers": pd.NA}, "the answer in column 'answers' is empty"),
        ({"question": " ", "answers": []}, "the question or the passage is empty"),
        ({"question": None, "answers": []}, "the question or the passage is empty"),
        ({"question": float("nan"), "answers": []}, "the question or the passage is empty"),
        ({"context": pd.NA, "answers": []}, "the question or the passage is empty"),
        ({"context": ["a"], "answers": []}, "the column 'context' holds \\['a'\\], expected a text"),
        ({"question": {"en": "Who?"}, "answers": []}, "the column 'question' holds .* expected a text"),
        ({}, "found the columns 'question', 'context', expected one of 'answers', 'answer'"),
        ({"answers": {"text": ["Paris"]}, "answer_start": [1, 2]}, None),
        ({"answers": {"text": ["Paris"], "answer_start": []}}, "found 1 answers and 0 numbers in answer_start"),
        ({"answers": {"text": [], "answer_start": [3]}}, "found 0 answers and 1 numbers in answer_start"),
        ({"answers": {"text": ["Paris"], "answer_start": [3, 4]}}, "found 1 answers and 2 numbers"),
        ({"answers": {"text": ["Paris"], "answer_start": [0.5]}}, "answer_start is 0.5, expected the number"),
        ({"answers": {"text": ["Paris"], "answer_start": ["x"]}}, "answer_start is 'x', expected the number"),
        ({"answers": {"text": ["Paris"], "answer_start": [True]}}, "answer_start is True, expected the number"),
        ({"answers": ["London"]}, "the answer 'London' does not occur in its passage"),
        ({"answers": [{"text": "London", "answer_start": 5}]}, "the answer 'London' does not occur in its passage"),
    ],
)
def test_bad_rows_are_refused_with_their_place(row, message):
    if message is None:
        (example,) = read(**row)
        assert example.reference[0].text == "Paris"
        return
    with pytest.raises(DataError, match=rf"row 1: .*{message}"):
        read(**row)


def test_all_answers_that_do_not_occur_are_named_at_once():
    rows = [{"question": "Who?", "context": "Ann slept.", "answers": [text]} for text in ("Ann", "Bob", "Lee", "slept")]
    with pytest.raises(DataError, match=r"^row 2: the answer 'Bob' .* \(2 answers: row 2, row 3\)$"):
        Answer.read(rows, Columns())


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Eiffel"], "answer_start": [np.int64(4)]},
        {"text": ["Eiffel"], "answer_start": [4.0]},
        {"text": ["Eiffel"], "answer_start": ["4"]},
        {"text": ("Eiffel",), "answer_start": (4,)},
        {"text": np.array(["Eiffel"]), "answer_start": np.array([4])},
        {"text": ["Eiffel"], "answer_start": torch.tensor([4])},
        {"text": ["Eiffel"], "answer_start": [None]},
        {"text": ["Eiffel"], "answer_start": [float("nan")]},
        {"text": ["Eiffel"]},
        {"text": "Eiffel", "answer_start": 4},
        [{"text": "Eiffel", "answer_start": np.float64(4)}],
        np.array([{"text": "Eiffel", "answer_start": 4}]),
        ["Eiffel"],
        "Eiffel",
    ],
)
def test_answers_and_their_places_are_read_in_every_form(answers):
    (example,) = read(answers=answers)
    assert example.reference == (ReferenceAnswer("Eiffel", 4),)


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [""],
        "[]",
        {"text": [], "answer_start": []},
        {"text": [""], "answer_start": [0]},
        [{"text": "", "answer_start": -1}],
        [{"text": "", "answer_start": None}],
    ],
)
def test_an_answer_without_text_is_no_answer(answers):
    (example,) = read(answers=answers)
    assert example.reference == ()
    assert Answer.learn([example]).handle_impossible_answer
    assert "1 of 1 questions have no answer" in Answer().training_notes([example])[0]


@pytest.mark.parametrize("impossible", [True, "True", "true", 1, "1"])
def test_an_impossible_question_has_no_answer_whatever_else_is_there(impossible):
    assert read(is_impossible=impossible, answers="Paris")[0].reference == ()


@pytest.mark.parametrize("impossible", [False, "False", 0, None, ""])
def test_a_possible_question_has_one(impossible):
    assert read(is_impossible=impossible, answers="Paris")[0].reference == (ReferenceAnswer("Paris", 27),)


@pytest.mark.parametrize(
    ("context", "text", "start", "place"),
    [
        ("Ann slept well.", "slept", 5, 4),  # off by one
        ("Ann slept well.", "slept", 90, 4),  # once in the passage
        ("Ann slept well.", "slept", -1, 4),
        ("Ann slept.", " Ann", 0, 0),
        ("Ann slept.", "slept ", 4, 4),
        ("the café on the corner", "cafe\u0301", 4, 4),  # NFD, and the passage is NFC
        ("the cafe\u0301 on the corner", "café", 4, 4),
        ("Ann met Ann and Ann", "Ann", 7, 8),  # the nearest of several
    ],
)
def test_an_answer_that_is_elsewhere_is_taken_there_and_counted(context, text, start, place):
    row = {"question": "Who?", "context": context, "answers": [{"text": text, "answer_start": start}]}
    examples = Answer.read([row], Columns())
    (given,) = examples[0].reference
    assert (given.start, given.certain, given.moved) == (place, True, True)
    assert context.startswith(given.text, given.start)
    assert Answer().training_notes(examples)[0].startswith("1 answers are not at their answer_start")


def test_an_answer_that_may_be_at_several_places_is_not_trained_on():
    row = {"question": "Who?", "context": "Ann met Ann and Ann", "answers": [{"text": "Ann", "answer_start": 60}]}
    examples = Answer.read([row], Columns())
    assert not examples[0].reference[0].certain
    assert len(Answer().training_notes(examples)) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("question", "context", "answers"),
        ("Question", "Passage", "Answer"),
        ("question", "document", "answer_text"),
        ("query", "paragraph", "answer"),
    ],
)
def test_usual_names_of_columns_are_known(tmp_path, names):
    (tmp_path / "a.csv").write_text(f"{names[0]},{names[1]},{names[2]},answer_start\nWho?,Ann slept.,Ann,0\n")
    (example,) = Answer.read(str(tmp_path / "a.csv"), Columns())
    assert example.texts == ("Who?", "Ann slept.")
    assert example.reference == (ReferenceAnswer("Ann", 0),)


def test_the_questions_of_a_squad_file_keep_their_ids(tmp_path):
    qas = [
        {"id": "q1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]},
        {"id": "q2", "question": "?"},
    ]
    tree = {"data": [{"title": "T", "paragraphs": [{"context": "Ann slept.", "qas": qas}]}]}
    (tmp_path / "a.json").write_text(json.dumps(tree))
    found = list(Answer.inputs(str(tmp_path / "a.json"), Columns()))
    assert [(one.row["id"], one.number) for one in found] == [("q1", 1), ("q2", 2)]


def test_a_question_that_cannot_be_read_is_an_error_in_its_place():
    rows = [
        {"question": "Who?", "context": "Ann slept."},
        {"question": ["Who?"], "context": "Ann slept."},
        {"question": float("nan"), "context": "Ann slept."},
    ]
    found = list(Answer.inputs(rows, Columns()))
    assert found[0].error is None
    assert found[1].error == "the column 'question' holds ['Who?'], expected a text"
    assert found[2].texts == ("", "Ann slept.")
    assert Answer().problem(found[2]) == "the question is empty"
    assert [one.row for one in found] == rows


def test_questions_are_read_as_they_are_needed():
    def rows():
        yield {"question": "Who?", "context": "Ann"}
        raise AssertionError("read too far")

    assert next(iter(Answer.inputs(rows(), Columns()))).texts == ("Who?", "Ann")


def test_several_answers_are_shown_if_several_are_asked_for():
    def rows(window):
        return np.random.default_rng(0).normal(0, 3, (len(window.head_positions), 2))

    one = answered(Answer(handle_impossible_answer=True), "who?", CONTEXT, rows)
    three = answered(Answer(handle_impossible_answer=True, top_k=3), "who?", CONTEXT, rows)
    assert set(one.answer(all_scores=False)) == {"answer", "score", "start", "end"}
    shown = three.answer(all_scores=False)
    assert len(shown["answers"]) >= 3
    assert shown["answers"][0]["answer"] == shown["answer"]
    shown["answers"][0]["score"] = 9.0
    assert three.answer(all_scores=False)["answers"][0]["score"] != 9.0


@given(st.text("ab1'-. é北\u0301", max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_whole_words_are_the_nearest_edges_around(text, first, second):
    start, end = sorted((min(first, len(text)), min(second, len(text))))
    edges = word_edges(text).tolist()
    wide = _whole_words(text)(start, end)
    assert wide == (max(edge for edge in edges if edge <= start), min(edge for edge in edges if edge >= end))


def test_long_words_take_no_longer():
    text = "f0" * 50_000
    began = time.perf_counter()
    whole = _whole_words(text)
    assert all(whole(place, place + 9) == (0, len(text)) for place in range(0, 90_000, 100))
    assert time.perf_counter() - began < 5


def _normalized(text: str) -> str:
    """As the official script of SQuAD 2.0 normalizes answers."""
    text = "".join(one for one in text.lower() if one not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def _f1(reference: str, found: str) -> float:
    reference_words, words = _normalized(reference).split(), _normalized(found).split()
    if not reference_words or not words:
        return float(reference_words == words)
    same = sum((Counter(reference_words) & Counter(words)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(words), same / len(reference_words)
    return 2 * precision * recall / (precision + recall)


SAID = st.lists(
    st.sampled_from(
        ["a", "an", "The", "theatre", "Paris", "paris", ".", "“", "’s", "'s", "-", "1,000", "\u00a0", "É", ""]
    ),
    max_size=5,
).map(" ".join)


@given(SAID, st.lists(SAID, max_size=3))
def test_scores_are_those_of_the_official_script(found, references):
    kept = [reference for reference in references if _normalized(reference)] or [""]
    expected = (
        max(float(_normalized(reference) == _normalized(found)) for reference in kept),
        max(_f1(reference, found) for reference in kept),
    )
    assert answer_scores(found, references) == pytest.approx(expected)


def test_answers_are_widened_to_whole_words_if_asked():
    def rows(window):
        return pointing("unaffable man", "una")(window)

    context = "unaffable man"
    assert TOKENIZER.convert_ids_to_tokens(TOKENIZER.encode(context).ids)[1] == "una"
    assert answered(Answer(max_answer_len=1), "who?", context, rows).best == "unaffable"
    assert answered(Answer(max_answer_len=1, align_to_words=False), "who?", context, rows).best == "una"


def test_settings_survive_json():
    made = Answer(handle_impossible_answer=True, threshold=1.5, max_answer_len=9, max_length=100, stride=10)
    assert Answer.from_json(json.loads(json.dumps(made.as_json()))) == made
