"""SQuAD's layout, both versions, and what is not it."""

import json

import pytest

from bothways.data.squad import is_squad, read_squad
from bothways.errors import DataError


def write(path, tree) -> str:
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree), encoding="utf-8")
    return str(path)


def squad(**question):
    qas = [{"id": "q1", "question": "Who?"} | question]
    return {"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": "Ann was.", "qas": qas}]}]}


def test_questions_become_rows(tmp_path):
    answers = [{"text": "Ann", "answer_start": 0}]
    (row,) = read_squad(write(tmp_path / "a.json", squad(answers=answers)))
    assert row.values == {
        "id": "q1",
        "title": "T",
        "question": "Who?",
        "context": "Ann was.",
        "answers": answers,
        "start_certain": True,
    }
    assert row.where.endswith("a.json: question q1")


def test_an_impossible_question_has_no_answers_and_an_unlabeled_one_has_none(tmp_path):
    (row,) = read_squad(write(tmp_path / "a.json", squad(answers=[], is_impossible=True)))
    assert row.values["answers"] == []
    (row,) = read_squad(write(tmp_path / "b.json", squad()))
    assert row.values["answers"] is None


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"data": 1}, "found no list 'data'"),
        ({"data": [{"paragraphs": 1}]}, "found no list 'paragraphs'"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": [3]}]}]}, "question 1: its question is None"),
        ({"data": []}, "no questions"),
        ('{"data": [', "broken JSON"),
    ],
)
def test_what_is_not_squad_is_said(tmp_path, tree, message):
    with pytest.raises(DataError, match=message):
        list(read_squad(write(tmp_path / "a.json", tree)))


def test_squad_is_told_from_other_json(tmp_path):
    assert is_squad(write(tmp_path / "a.json", squad()))
    assert not is_squad(write(tmp_path / "b.json", [{"question": "x", "data": 1}]))
    assert not is_squad(write(tmp_path / "c.jsonl", {"data": 1}))


def test_the_real_files_have_the_counts_that_are_published(shared_data):
    rows = list(read_squad(str(shared_data / "squad" / "dev-v2.0.json")))
    assert len(rows) == 6163
    assert sum(row.values["answers"] == [] for row in rows) == 3028
    assert sum(row.values["start_certain"] for row in rows) == 5613
