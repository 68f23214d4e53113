"""An evaluation tells what was measured and what limits it, and has a row for each example."""

import json
import re

import numpy as np
import pytest

from bothways.data.tables import Columns
from bothways.errors import DataError, OptionError
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.predictor import Predictor, load
from bothways.jobs.compare import compare
from bothways.jobs.evaluate import evaluate
from bothways.jobs.sources import columns_for, named, seen_in_training
from bothways.tasks import Answer, Classify, Tag, ZeroShot
from bothways.tasks.answer import AnswerPrediction
from bothways.tasks.classify import LabelPrediction
from bothways.tasks.tag import TagPrediction
from bothways.text.tokenizer import Tokenizer
from tests.tiny import GOOD, ROWS, write_csv, write_trained


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_trained(tmp_path_factory.mktemp("evaluated"))


class Fake:
    """An engine that runs nothing."""

    workers = 1

    def describe(self):
        return "a fake"


class Told(Predictor):
    """A predictor that answers what it is told."""

    def __init__(self, task, predictions, model_directory=None):
        super().__init__(task, Tokenizer.packaged("bert-base-uncased"), Fake(), model_directory)
        self.predictions = predictions

    def predict_examples(self, examples, _=None):
        assert len(examples) == len(self.predictions)
        return self.predictions


def labeled(labels):
    return [LabelPrediction(label, 0.9, {label: 0.9}) for label in labels]


def test_an_evaluation_tells_model_engine_file_versions_and_date(model, tmp_path):
    answer = json.loads(json.dumps(evaluate(model, write_csv(tmp_path / "test.csv")).as_json()))
    assert answer["model"] == str(model)
    assert "int8" in answer["engine"] or "fp32" in answer["engine"]
    assert answer["file"] == "test.csv"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", answer["date"])
    assert {"bothways", "python", "numpy", "onnxruntime", "tokenizers"} <= set(answer["versions"])
    assert answer["settings"]["max_length"] == 16
    assert answer["n"] == 12
    assert "12 example(s) give wide" in answer["notes"][0]


def test_words_that_the_vocabulary_lacks_are_told(model, caplog):
    rows = [{"text": "ᚠᚢᚦ ᚱᚲ film", "label": "good"}, {"text": "ᚠ" * 101, "label": "bad"}]
    assert any("75 % of the words are not in the vocabulary" in note for note in evaluate(model, rows).notes)
    assert "not in the vocabulary" in caplog.text
    assert not any("vocabulary" in note for note in evaluate(model, ROWS).notes)


def test_results_are_shown_in_one_short_line(model):
    evaluation, comparison = evaluate(model, ROWS), compare(ROWS, model, ROWS)
    for result in (evaluation, evaluation.scores, comparison):
        assert len(repr(result)) < 400
        assert "\n" not in repr(result)
    assert re.search(r"on 12 examples: <Scores: accuracy 1\.000 \(0\.758 to 1\.000\)", repr(evaluation))
    assert "TF-IDF" in repr(comparison)


def test_each_example_has_a_row_with_its_reference_its_answer_and_whether_it_is_correct(model):
    evaluation = evaluate(model, [*ROWS[:3], {"text": "dull film", "label": "good"}])
    rows = [json.loads(json.dumps(row)) for row in evaluation.rows()]
    assert [row["correct"] for row in rows] == [True, True, True, False]
    assert [row["text"] for row in rows] == [*GOOD[:3], "dull film"]
    assert (rows[3]["reference"], rows[3]["label"]) == ("good", "bad")
    assert 0.5 < rows[3]["score"] <= 1


def test_rows_of_every_task_are_json(tmp_path):
    tag = Told(Tag(("O", "B-X", "I-X")), [TagPrediction(tags=("B-X", "O"), scores=(0.9, 0.8))])
    (row,) = evaluate(tag, [{"tokens": ["Ann", "sang"], "tags": ["B-X", "O"]}]).rows()
    assert (row["reference"], row["tags"], row["correct"]) == (["B-X", "O"], ["B-X", "O"], True)
    answer = Told(Answer(), [AnswerPrediction(answers=({"answer": "Ann", "score": 0.5, "start": 0, "end": 3},))])
    question = {"question": "Who?", "context": "Ann sang.", "answers": {"text": ["Ann"], "answer_start": [0]}}
    (row,) = evaluate(answer, [question]).rows()
    assert (row["question"], row["context"], row["reference"], row["correct"]) == ("Who?", "Ann sang.", ["Ann"], True)
    number = Told(Classify(("score",), "regression"), [LabelPrediction("score", 2.5, {"score": 2.5})])
    (row,) = evaluate(number, [{"text": "a", "score": 2.0}]).rows()
    assert (row["reference"], row["score"], row["difference"]) == (2.0, 2.5, 0.5)
    several = Told(Classify(("a", "b"), "multi"), [LabelPrediction("a", 0.9, {}, ("a",))])
    (row,) = evaluate(several, [{"text": "x", "labels": ["a", "b"]}]).rows()
    assert (row["reference"], row["labels"], row["correct"]) == (["a", "b"], ["a"], False)
    json.dumps(row)


def test_an_answer_that_failed_counts_as_wrong_and_not_for_calibration():
    task = Classify(("a", "b"))
    predictor = Told(task, [*labeled("ab"), task.failure("the text is too long")])
    evaluation = evaluate(predictor, [{"text": text, "label": label} for text, label in ("xa", "yb", "za")])
    assert evaluation.scores.metrics["accuracy"].value == pytest.approx(2 / 3)
    assert evaluation.scores.metrics["calibration_error"].value == pytest.approx(0.1)
    assert any("1 of 3 examples could not be answered" in note for note in evaluation.notes)
    row = list(evaluation.rows())[2]
    assert (row["error"], row["correct"]) == ("the text is too long", False)


def test_a_model_that_always_gives_one_label_is_called_so(caplog):
    rows = [{"text": str(number), "label": "ab"[number % 4 == 0]} for number in range(40)]
    evaluation = evaluate(Told(Classify(("a", "b")), labeled("a" * 40)), rows)
    assert evaluation.notes == ("The model always answers 'a', so it does not distinguish the examples.",)
    assert evaluation.notes[0] in caplog.text
    assert evaluation.scores.metrics["matthews"].value == 0


OOS = [
    *ROWS,
    {"text": "what time is it", "label": "oos"},
    {"text": "x", "label": "oos"},
    {"text": "y", "label": "none"},
]


def test_all_labels_that_the_model_does_not_know_are_named_at_once(model):
    with pytest.raises(
        DataError, match=r"label 'oos' is not one of the 2 known: bad, good; .* 'oos' \(2\), 'none' \(1\);"
    ):
        evaluate(model, OOS)
    with pytest.raises(DataError, match=r"'oos' \(2\), 'none' \(1\)"):
        compare(OOS, [model], ROWS)


def test_or_they_count_as_wrong(model):
    evaluation = evaluate(model, OOS, unknown_labels="wrong")
    assert evaluation.scores.metrics["accuracy"].value == pytest.approx(12 / 15)
    assert {row.label: row.support for row in evaluation.scores.per_class}["oos"] == 2
    assert any("3 of 15 examples have a label unknown to the model" in note for note in evaluation.notes)
    assert [row["correct"] for row in evaluation.rows()][-3:] == [False] * 3
    with pytest.raises(OptionError, match="found unknown_labels='skip', expected error or wrong"):
        evaluate(model, OOS, unknown_labels="skip")
    with pytest.raises(DataError, match="does not suit a model of kind"):
        evaluate(model, [{"text": "x", "labels": ["good"]}], columns=Columns(kind="multi"), unknown_labels="wrong")


def test_options_that_a_loaded_model_would_ignore_are_refused(model):
    loaded = load(model)
    with pytest.raises(OptionError, match="found task='tag' for a loaded model that does classify"):
        evaluate(loaded, ROWS, task="tag")
    with pytest.raises(OptionError, match=r"found labels=, but the model is already loaded; pass it to load\(\)"):
        evaluate(loaded, ROWS, labels=("x", "y"))
    assert evaluate(loaded, ROWS, task="classify").as_json()["n"] == 12


def test_zero_shot_without_labels_or_with_one_twice_is_an_error_of_the_options():
    nli = ("contradiction", "neutral", "entailment")
    with pytest.raises(OptionError, match="zero-shot needs labels to choose from"):
        evaluate(Told(ZeroShot(labels=(), nli=nli), []), [{"text": "x", "label": "a"}])
    with pytest.raises(OptionError, match="a label is given twice"):
        evaluate(Told(ZeroShot(labels=("a", "a"), nli=nli), []), [{"text": "x", "label": "a"}])


def test_label_names_of_the_training_file_do_not_hold_for_another_task(tmp_path):
    facts = {"columns": {"label_names": "entailment,neutral,contradiction", "separator": None}}
    nli = ("contradiction", "neutral", "entailment")
    trained = ModelDirectory(tmp_path, None, Classify(nli), None, facts)
    assert columns_for(trained, None).label_names == ("entailment", "neutral", "contradiction")
    assert columns_for(trained, Columns(label_names="a,b")).label_names == ("a", "b")
    other = ModelDirectory(tmp_path, None, ZeroShot(labels=("World", "Sports"), nli=nli), None, facts)
    assert columns_for(other, None).label_names is None
    predictor = Told(other.task, labeled(["World", "World"]), other)
    rows = [{"text": "x", "label": "World"}, {"text": "y", "label": "Sports"}]
    assert evaluate(predictor, rows).scores.metrics["accuracy"].value == 0.5


def test_a_file_of_the_training_or_dev_files_name_is_pointed_out(tmp_path):
    facts = {"train": "train.csv", "dev": "dev.csv"}
    assert "has the same name as the training file" in seen_in_training(facts, tmp_path / "train.csv")
    assert "used to choose the checkpoint" in seen_in_training(facts, "dev.csv")
    assert seen_in_training(facts, "test.csv") is None
    assert seen_in_training({"train": "rows in memory"}, ROWS) is None


def test_no_name_of_a_file_has_the_folders_of_this_machine(tmp_path):
    assert named(tmp_path / "a.csv") == "a.csv"
    assert named("data/a.csv") == "data/a.csv"
    assert named(ROWS) == "rows in memory"


def test_many_labels_are_no_large_json():
    labels = [f"label {k}" for k in range(2000)]
    random = np.random.default_rng(0)
    references, found = (np.array(labels)[random.integers(2000, size=500)].tolist() for _ in range(2))
    rows = [{"text": str(number), "label": label} for number, label in enumerate(references)]
    answer = evaluate(Told(Classify(tuple(labels)), labeled(found)), rows).as_json()
    assert "confusion" not in answer
    assert len(answer["confused"]) == 100
    assert len(json.dumps(answer)) < 300_000


def test_a_comparison_writes_a_report_without_absolute_paths(model, tmp_path):
    comparison = compare(ROWS, [model, model], against=str(model), report=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert str(model) not in page
    assert comparison.rows[0].engine in page
    assert "12 example(s) give wide" in page
    assert comparison.verdicts[0].startswith("run is not shown to be better than run: accuracy")
