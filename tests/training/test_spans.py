"""Taggers and answerers memorize a few examples, from files to predictions from disk, and are served as evaluated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bothways.cli import run as run_command
from bothways.inference.predictor import load
from bothways.jobs.evaluate import evaluate
from bothways.jobs.finetune import finetune
from bothways.training.recipe import Recipe
from tests.tiny import TINY, write_base

RECIPE = Recipe(epochs=40, batch_size=4, learning_rate=3e-3, dropout=0.0, precision="fp32", eval_steps=20)
CONLL = """-DOCSTART- -X- O

Ann B-PER
Lee I-PER
saw O
Rome B-LOC

Rome B-LOC
saw O
Bob B-PER
. O

we O
saw O
Ann B-PER
. O

Bob B-PER
of O
Oslo B-LOC
"""
PASSAGES = (
    ("Ann lives in Rome.", {"Where?": "Rome", "Who?": "Ann", "When?": None}),
    ("Bob was born in Oslo in 1950.", {"Where?": "Oslo", "Who?": "Bob", "When?": "1950"}),
    ("Nobody knows.", {"Where?": None, "When?": None}),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"), TINY.replace(max_position_embeddings=64))


def squad(path: Path) -> Path:
    paragraphs = []
    for context, questions in PASSAGES:
        qas = [
            {
                "id": f"{context}{question}",
                "question": question,
                "is_impossible": answer is None,
                "answers": [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}],
            }
            for question, answer in questions.items()
        ]
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"version": "2.0", "data": [{"title": "", "paragraphs": paragraphs}]}))
    return path


def test_a_tagger_memorizes_its_sentences(base, tmp_path):
    train = tmp_path / "train.conll"
    train.write_text(CONLL)
    run = finetune("tag", str(train), str(train), out=tmp_path / "run", base=base, recipe=RECIPE)
    assert run.comparison.rows[0].scores.metrics["entity_f1"].value == 1.0
    again = evaluate(tmp_path / "run", str(train))
    assert again.scores.metrics["entity_f1"].value == 1.0
    assert [row.label for row in again.scores.per_class] == ["LOC", "PER"]
    (found,) = load(tmp_path / "run")(["Ann Lee saw Rome"])
    assert [(one.entity_group, one.word) for one in found.entities] == [("PER", "Ann Lee"), ("LOC", "Rome")]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert config["id2label"]["0"] == "O"
    assert "Entity F1" in (tmp_path / "run" / "report.html").read_text()


def test_names_after_an_elision_are_found_in_running_text(base, tmp_path):
    train = tmp_path / "train.conll"
    train.write_text("l' O\nItalie B-LOC\ngagne O\n\nd' O\nAirbus B-ORG\nvole O\n\nvive O\nl' O\nItalie B-LOC\n")
    finetune("tag", str(train), str(train), out=tmp_path / "run", base=base, recipe=replace(RECIPE, epochs=60))
    model = load(tmp_path / "run")
    texts = ["l'Italie gagne", "d'Airbus vole"]
    found = [[(one.word, one.start) for one in answer.entities] for answer in model(texts)]
    assert found == [[("Italie", 2)], [("Airbus", 2)]]


def test_an_answerer_memorizes_its_questions_and_those_without_answer(base, tmp_path, capsys):
    train = squad(tmp_path / "train.json")
    recipe = replace(RECIPE, epochs=150, eval_steps=100)
    run = finetune("answer", str(train), str(train), out=tmp_path / "run", base=base, recipe=recipe)
    assert run.comparison.rows[0].scores.metrics["f1"].value == 1.0
    model = load(tmp_path / "run")
    assert model.task.handle_impossible_answer
    for context, questions in PASSAGES:
        found = model([(question, context) for question in questions])
        assert [one.best for one in found] == [answer or "" for answer in questions.values()]
    assert evaluate(model, str(train)).scores.metrics["no_answer_accuracy"].value == 1.0
    capsys.readouterr()
    assert run_command(["evaluate", str(tmp_path / "run"), str(train), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["metrics"]["exact_match"]["value"] == 1.0
    assert written["n"] == 8


@pytest.mark.parametrize("form", ["html", "text", "csv", "jsonl"])
def test_predictions_are_written_in_every_form(base, tmp_path, form, capsys):
    train = squad(tmp_path / "train.json")
    finetune(
        "answer", str(train), str(train), out=tmp_path / "run", base=base, recipe=Recipe(epochs=1, learning_rate=1e-3)
    )
    capsys.readouterr()
    command = ["predict", str(tmp_path / "run"), "Where?", "", "--pair", "Ann lives in Rome.", "--format", form]
    assert run_command(command) == 0
    written = capsys.readouterr().out
    assert "the question is empty" in written
    if form == "jsonl":
        first = json.loads(written.splitlines()[0])
        assert set(first) == {"answer", "score", "start", "end", "windows", "truncated"}
