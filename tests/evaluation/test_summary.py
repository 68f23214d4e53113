"""The model card is valid for the hub, and neither card nor report tells about this machine's folders."""

import re

import numpy as np
import pytest
from huggingface_hub import ModelCard

from bothways.data.examples import Example
from bothways.evaluation.compare import BASELINE, Comparison
from bothways.evaluation.summary import card_of, facts_of, report_of, versions
from bothways.evaluation.verdicts import Contender
from bothways.tasks import Classify
from bothways.tasks.classify import LabelPrediction

REFERENCES = ["good", "bad"] * 20
EXAMPLES = [Example((f"text {number}",), reference) for number, reference in enumerate(REFERENCES)]
FACTS = {
    "base": "minilm-l6",
    "train": "train.csv",
    "dev": "dev.csv",
    "n_train": 100,
    "n_dev": 40,
    "recipe": {"epochs": 3, "learning_rate": 2e-5, "warmup_ratio": None},
    "steps": 30,
    "best_step": 20,
    "training_seconds": 12.0,
    "tokens_per_second": 1000.0,
    "precision": "fp32",
    "onnx_model": "int8, accuracy 0.9",
    "machine": "a machine",
    "versions": {"torch": "2.9"},
}


def comparison(task, names=(BASELINE, "run"), labels=("good", "bad")):
    rows = []
    for title in names:
        predictions = tuple(LabelPrediction(labels[reference == "bad"], 0.8, {}) for reference in REFERENCES)
        scores = task.score(predictions, REFERENCES, rng=np.random.default_rng(0), resamples=20)
        name = title if title == BASELINE else f"/home/somebody/{title}"
        rows.append(Contender(name, title, scores, predictions, None, 1.0, 2, 3, 4, engine=f"engine of {title}"))
    return Comparison(task, tuple(rows), ("run is better: it has *all*.",), 0, ("Few examples.",))


@pytest.mark.parametrize(
    ("base", "hub"),
    [
        ("minilm-l6", "sentence-transformers/all-MiniLM-L6-v2"),
        ("/data/models/x: #1", None),
        ("runs/pretrained", None),
        ("no: 'yes'", None),
    ],
)
def test_the_card_is_read_by_the_hub(base, hub):
    task = Classify(("bad: yes", 'g"ood', "good", "bad"))
    text = card_of(comparison(task), FACTS | {"base": base})
    card = ModelCard(text)
    assert card.data.library_name == "bothways"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model == hub
    assert "/data/models" not in text
    assert "/home/somebody" not in text


def test_the_card_has_the_scores_of_both_with_intervals_verdicts_and_notes():
    text = card_of(comparison(Classify(("bad", "good"))), FACTS)
    assert f"| | {BASELINE} | run |" in text
    assert re.search(r"\| Accuracy \| 1\.000 \(0\.912 to 1\.000\) \| 1\.000 \(0\.912 to 1\.000\) \|", text)
    assert r"run is better: it has \*all\*." in text
    assert "\n\nFew examples.\n" in text
    assert "piece" not in text
    alone = card_of(comparison(Classify(("bad", "good")), ("run",)), FACTS)
    assert "| | run |\n|---|---|\n" in alone


def test_a_report_holds_notes_engine_date_and_names():
    made = comparison(Classify(("bad", "good")), labels=("good", "good"))
    report = report_of("t", made, EXAMPLES, facts_of(FACTS | {"base": "/data/base"}))
    facts = dict(report.facts)
    assert facts["Base model"] == "base"
    assert facts["Measured with"] == "engine of run"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", facts["Date"])
    assert facts["ONNX model"] == "int8, accuracy 0.9"
    assert report.notes == ("Few examples.",)
    assert [row.name for row in report.rows] == [BASELINE, "run"]
    assert all("/" not in row.path for row in report.rows)
    assert len(report.mistakes) == 20
    assert report.mistakes[0].picture.texts == (("", "text 1"),)
    assert report.against == BASELINE


def test_errors_without_an_answer_are_no_confident_ones():
    task = Classify(("bad", "good"))
    failed = tuple(task.failure("the text is empty") for _ in REFERENCES)
    scores = task.score(failed, REFERENCES, rng=np.random.default_rng(0), resamples=20)
    row = Contender("run", "run", scores, failed, None, 1.0, 2, 3, 4)
    assert report_of("t", Comparison(task, (row,), ()), EXAMPLES, []).mistakes == []


def test_versions_are_of_what_is_installed(monkeypatch):
    from bothways.evaluation import summary

    monkeypatch.setattr(summary, "PACKAGES", ("numpy", "no-such-package"))
    assert set(versions()) == {"python", "numpy"}


def test_the_report_names_the_command_and_the_files_by_hash():
    hashes = {"task": "classify", "train_sha256": "a" * 64, "dev_sha256": "b" * 64, "sha256": "c" * 64}
    facts = dict(facts_of(FACTS | hashes | {"recipe": {"epochs": 5.0, "freeze_encoder": True, "truncation": False}}))
    command = facts["Command"].split()
    assert command[:7] == ["bothways", "finetune", "classify", "train.csv", "--dev", "dev.csv", "--base"]
    assert {"--epochs", "5.0", "--freeze-encoder"} <= set(command)
    assert facts["SHA-256"] == f"train {'a' * 12}, dev {'b' * 12}, weights {'c' * 12}"
    assert "Command" not in dict(facts_of(FACTS)), "no file, no command"


def test_texts_can_be_left_out_of_the_report():
    made = comparison(Classify(("good", "bad")), labels=("bad", "good"))
    assert report_of("t", made, EXAMPLES, []).mistakes
    assert report_of("t", made, EXAMPLES, [], texts=False).mistakes == []
