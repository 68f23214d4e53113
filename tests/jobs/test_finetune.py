"""Fine-tuning as a whole: keywords, overwriting, stopping, what fails late, what is noticed, what is written down."""

import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import bothways
from bothways.errors import BothwaysError, CheckpointError, InterruptedRunError, MissingDependencyError, OptionError
from bothways.jobs import finetune as job
from bothways.jobs.directory import NEXT, claimed
from bothways.jobs.finetune import finetune
from bothways.model.checkpoint import read_safetensors, write_safetensors
from tests.tiny import ROWS, write_base, write_csv

FAST = {"epochs": 1, "batch_size": 4, "max_length": 16, "stride": 4, "precision": "fp32", "export": False}
LEARNS = FAST | {"epochs": 20, "learning_rate": 8e-3, "dropout": 0.0, "eval_steps": 60}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """The measuring in processes of their own takes seconds and is not what these tests are about."""
    if "slow" not in request.keywords:
        from bothways.evaluation import compare, measure

        monkeypatch.setattr(compare, "in_process", lambda what, test: measure.measure(what | {"test": test}))


def weights_of(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


def test_fields_of_recipe_and_columns_are_keywords(base, tmp_path):
    rows = [{"body": row["text"], "verdict": row["label"]} for row in ROWS]
    finetune(
        "classify", rows, rows, base=base, out=tmp_path / "out", text_column="body", label_column="verdict", **FAST
    )
    recipe = json.loads((tmp_path / "out" / "run.json").read_text())["recipe"]
    assert (recipe["epochs"], recipe["batch_size"]) == (1, 4)
    with pytest.raises(OptionError, match="unknown option 'num_train_epochs'; did you mean 'epochs'"):
        bothways.finetune("classify", rows, base=base, out=tmp_path / "other", num_train_epochs=3)
    assert not (tmp_path / "other").exists()


def test_a_pooler_that_was_never_trained_begins_anew_and_learns_with_a_frozen_encoder(base, tmp_path, caplog):
    shutil.copytree(base, tmp_path / "base")
    tensors, metadata = read_safetensors(base / "model.safetensors")
    zero = {"pooler.dense.bias": torch.zeros_like(tensors["pooler.dense.bias"])}
    write_safetensors(tmp_path / "base" / "model.safetensors", tensors | zero, metadata)
    caplog.set_level(logging.INFO, "bothways")
    out = tmp_path / "out"
    finetune("classify", ROWS, ROWS, base=tmp_path / "base", out=out, **FAST | {"freeze_encoder": True})
    assert any("the pooler in the file was never trained" in text for text in caplog.messages)
    assert json.loads((out / "run.json").read_text())["trained_parameters"] == 32 * 33 + 2 * 33
    after = read_safetensors(out / "model.safetensors")[0]
    assert not torch.equal(after["bert.pooler.dense.weight"], tensors["pooler.dense.weight"])
    assert after["bert.pooler.dense.bias"].any()
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(after[f"bert.{words}"], tensors[words])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": None}, "batch_size is None, expected a value of the type int"),
        ({"batch_size": 4.5}, "batch_size is 4.5, expected a value of the type int"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast', expected a value of the type float"),
        ({"freeze_encoder": 1}, "freeze_encoder is 1, expected a value of the type bool"),
        ({"export": "fp16"}, "export is 'fp16', expected True or False"),
        ({"time_budget": "soon"}, "time budget 'soon' is not a time"),
        ({"time_budget": 0}, "time_budget is 0 seconds"),
        ({"text": "body"}, "unknown option 'text'; did you mean 'text_column'"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_before_anything_is_written(base, tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        finetune("classify", ROWS, base=base, out=tmp_path / "out", **FAST | options)
    assert not (tmp_path / "out").exists()


def test_overwriting_keeps_the_old_model_until_the_new_one_is_complete(base, tmp_path, monkeypatch):
    out = tmp_path / "out"
    finetune("classify", ROWS, ROWS, base=base, out=out, **FAST)
    old = weights_of(out)
    (out / "notes.txt").write_text("mine")
    evaluated = []

    def stopping(self, *given, **more):
        evaluated.append(weights_of(out) == old)
        if len(evaluated) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return predict(self, *given, **more)

    predict = job.Predictor.predict_examples
    again = FAST | {"epochs": 3, "seed": 1}
    with monkeypatch.context() as patched:
        patched.setattr(job.Predictor, "predict_examples", stopping)
        with pytest.raises(InterruptedRunError, match="--resume to continue"):
            finetune("classify", ROWS, ROWS, base=base, out=out, overwrite=True, **again)
    assert evaluated == [True]
    assert weights_of(out) == old
    assert bothways.load(out)(["a great film"])[0].label in ("good", "bad")
    finetune("classify", ROWS, ROWS, base=base, out=out, resume=True, **again)
    assert weights_of(out) != old
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / NEXT).exists()


def test_a_run_that_diverges_leaves_the_old_model(base, tmp_path, monkeypatch):
    out = tmp_path / "out"
    finetune("classify", ROWS, ROWS, base=base, out=out, **FAST)
    old = weights_of(out)
    monkeypatch.setattr("bothways.training.optimizer.MasterAdamW.step", lambda *_, **__: float("nan"))
    with pytest.raises(BothwaysError, match="try a lower --learning-rate"):
        finetune("classify", ROWS, ROWS, base=base, out=out, overwrite=True, **FAST)
    assert weights_of(out) == old


def test_a_directory_in_use_is_refused_before_anything_is_read(base, tmp_path):
    with claimed(tmp_path / "out"), pytest.raises(OptionError, match="another process is writing a run there"):
        finetune("classify", tmp_path / "nowhere.csv", base=base, out=tmp_path / "out", overwrite=True)


def test_parts_of_a_model_carry_one_run_id(base, tmp_path):
    out = tmp_path / "out"
    finetune("classify", ROWS, ROWS, base=base, out=out, **FAST)
    facts = json.loads((out / "bothways.json").read_text())["facts"]
    with safe_open(out / "model.safetensors", "np") as file:
        assert file.metadata()["run"] == facts["run"]
    assert re.fullmatch("[0-9a-f]{32}", facts["run"])
    assert json.loads((out / "run.json").read_text())["run"] == facts["run"]


@pytest.mark.parametrize(
    ("broken", "error", "note"),
    [
        (
            "compare_on",
            RuntimeError("measuring failed:\nTraceback\nMemoryError"),
            "the comparison could not be made; the",
        ),
        ("compare_on", BothwaysError("was ended by signal 9"), "the comparison could not be made"),
        ("card_of", OSError(28, "No space left on device"), "the model card could not be written"),
        ("report_of", ValueError("no figures"), "the report could not be written"),
        ("export_accepted", MemoryError(), "the ONNX model could not be written"),
    ],
)
def test_what_fails_after_the_training_does_not_lose_the_run(base, tmp_path, monkeypatch, caplog, broken, error, note):
    out = tmp_path / "out"

    def failing(*_, **__):
        raise error

    monkeypatch.setattr(job, broken, failing)
    run = finetune(
        "classify", ROWS, ROWS, base=base, out=out, **FAST | {"export": True} if broken == "export_accepted" else FAST
    )
    assert note in caplog.text
    assert f"the model is in {out}" in caplog.text
    assert not (out / "resume.safetensors").exists()
    assert (run.comparison is None) == (broken == "compare_on")
    assert bothways.load(out)(["a great film"])[0].label in ("good", "bad")
    assert (out / "README.md").exists() == (broken not in ("compare_on", "card_of"))


def test_a_defect_after_the_training_is_not_hidden(base, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "compare_on", lambda *_, **__: {}["rows"])
    with pytest.raises(KeyError):
        finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "out", **FAST)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 4}, "epochs was 20, now 4"),
        ({"learning_rate": 1e-4}, "learning_rate was 0.008, now 0.0001"),
        ({"seed": 2}, "seed was 0, now 2"),
        ({"train": ROWS[:-1]}, "other training texts"),
        ({"dev": ROWS[:-1]}, "other dev texts"),
        ({"base": "other"}, "other base"),
        ({"base": "dropout"}, "other config of the base"),
    ],
    ids=str,
)
def test_a_resumed_run_that_differs_is_told_in_what(base, tmp_path, monkeypatch, change, told):
    out = tmp_path / "out"
    begin = {"train": ROWS, "dev": ROWS, "base": base} | LEARNS
    with monkeypatch.context() as patched:
        patched.setattr(job.Trainable, "tunable", True, raising=False)
        stop_in_the_first_evaluation(patched)
        with pytest.raises(InterruptedRunError):
            finetune("classify", begin.pop("train"), begin.pop("dev"), out=out, **begin)
    run_json = (out / "run.json").read_bytes()
    if change.get("base") == "other":
        change = {"base": write_base(tmp_path / "other", bothways_tiny(num_hidden_layers=1))}
    elif change.get("base") == "dropout":
        change = {"base": write_base(tmp_path / "dropout", bothways_tiny(hidden_dropout_prob=0.3))}
    given = {"train": ROWS, "dev": ROWS, "base": base} | LEARNS | change
    with pytest.raises(CheckpointError, match=f"other data, base or settings .*{re.escape(told)}"):
        finetune("classify", given.pop("train"), given.pop("dev"), out=out, resume=True, **given)
    assert (out / "run.json").read_bytes() == run_json


def bothways_tiny(**changes):
    from tests.tiny import TINY

    return TINY.replace(**changes)


def stop_in_the_first_evaluation(monkeypatch) -> None:
    predict = job.Predictor.predict_examples

    def stopping(self, *given, **more):
        os.kill(os.getpid(), signal.SIGINT)
        return predict(self, *given, **more)

    monkeypatch.setattr(job.Predictor, "predict_examples", stopping)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_process_saves_and_can_be_resumed(base, tmp_path, sent):
    train = write_csv(tmp_path / "train.csv")
    command = [sys.executable, "-m", "bothways", "finetune", "classify", str(train), "--dev", str(train)]
    command += [
        "--base",
        str(base),
        "--epochs",
        "400",
        "--eval-steps",
        "3",
        "--no-export",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "out" / "metrics.jsonl"
    while process.poll() is None and not (log.is_file() and "dev" in log.read_text()):
        time.sleep(0.02)
    process.send_signal(sent)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == 130, message
    assert "--resume to continue" in message
    assert (tmp_path / "out" / "resume.safetensors").is_file()
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_model_that_gives_one_answer_is_noticed_once(base, tmp_path, caplog):
    rows = [dict(row) for row in ROWS[:6]] * 4 + ROWS[6:7]
    finetune("classify", rows, rows, base=base, out=tmp_path / "out", **FAST | {"learning_rate": 1e-9})
    assert len(re.findall("out always answers '(?:good|bad)' on the dev set", caplog.text)) == 1
    assert len(re.findall("steps only", caplog.text)) == 1


def test_also_if_nothing_can_be_compared(base, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(job, "compare_on", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no memory")))
    rows = [{"text": row["text"], "score": float(place)} for place, row in enumerate(ROWS)]
    finetune("classify", rows, rows, base=base, out=tmp_path / "out", **FAST | {"learning_rate": 0.0})
    assert "the model always answers about 5.46 on the dev set" in caplog.text
    assert "trained for 3 steps only" in caplog.text


def test_a_tagger_that_finds_nothing_is_noticed(base, tmp_path, caplog):
    rows = [{"words": ["Ann", "slept", "very", "well", "in", "it"], "tags": ["B-PER", "O", "O", "O", "O", "O"]}] * 8
    rows += [{"words": ["it", "rained", "a", "lot"], "tags": ["O"] * 4}] * 8
    finetune("tag", rows, rows, base=base, out=tmp_path / "out", **FAST | {"learning_rate": 1e-3, "epochs": 4})
    assert "out finds no entity" in caplog.text


def test_a_model_that_answers_well_is_not_complained_of(base, tmp_path, caplog):
    finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "out", **LEARNS)
    assert "always answers" not in caplog.text


def test_what_dev_does_not_test_is_told(base, tmp_path, caplog):
    dev = [{"text": "another text", "label": "good"}, {"text": "Great  FILM", "label": "good"}]
    finetune("classify", ROWS, dev, base=base, out=tmp_path / "out", **FAST)
    assert "1 of 2 dev texts are also in train" in caplog.text
    assert len(re.findall("1 of 2 labels do not occur in these examples.*: bad", caplog.text)) == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_stops_a_run_after_its_training_says_how_to_finish_it(base, tmp_path, monkeypatch, error):
    def failing(*_, **__):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(job.ModelDirectory, "write", failing)
        with pytest.raises(
            BothwaysError,
            match=r"training is complete and its checkpoint is saved in .*out; repeat the command with --resume",
        ):
            finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "out", **FAST)
    finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "out", resume=True, **FAST)
    assert bothways.load(tmp_path / "out")(["a great film"])[0].label in ("good", "bad")


def test_progress_is_information_and_no_warning(base, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="bothways"):
        finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "out", **FAST | {"time_budget": 0.5})
    levels = {record.message: record.levelname for record in caplog.records}
    assert any("epoch" in text and "accuracy" in text and "macro_f1" in text for text in levels)
    assert any("the time budget replaces epochs (1)" in text for text in levels)
    progress = [
        level for text, level in levels.items() if re.match(r"epoch|\d+ training texts|training for|loaded", text)
    ]
    assert progress
    assert set(progress) == {"INFO"}


def test_facts_name_what_the_model_was_made_from_without_paths(base, tmp_path):
    train = write_csv(tmp_path / "train.csv")
    out = tmp_path / "out"
    finetune("classify", train, train, base=base, out=out, **FAST)
    facts = json.loads((out / "bothways.json").read_text())["facts"]
    assert facts["train"] == facts["dev"] == "train.csv"
    assert facts["base"] == base.name
    for name in ("train_sha256", "base_sha256", "sha256", "tokenizer_sha256"):
        assert re.fullmatch("[0-9a-f]{64}", facts[name]), name
    assert facts["created"] > "2026"
    assert "python" in facts["versions"]
    for name in ("bothways.json", "run.json"):
        assert str(tmp_path) not in (out / name).read_text()


def test_the_dropout_of_a_run_is_not_that_of_the_model(base, tmp_path):
    finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "out", **FAST | {"dropout": 0.3})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0.1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1000.0), (-4000.0, -1000.0), (1e-3, 2e-3), (1e6, 1e6 + 10)])
def test_numbers_of_any_size_are_learned(base, tmp_path, low, high):
    rows = [{"text": row["text"], "score": high if row["label"] == "good" else low} for row in ROWS]
    finetune("classify", rows, rows, base=base, out=tmp_path / "out", **LEARNS)
    model = bothways.load(tmp_path / "out", engine="torch", precision="fp32")
    found = [answer.score for answer in model([row["text"] for row in rows])]
    np.testing.assert_allclose(found, [row["score"] for row in rows], atol=0.25 * (high - low))


def test_a_head_that_was_trained_on_numbers_goes_on_from_where_it_was(base, tmp_path):
    rows = [{"text": row["text"], "score": 1000.0 if row["label"] == "good" else 0.0} for row in ROWS]
    finetune("classify", rows, rows, base=base, out=tmp_path / "one", **LEARNS)
    finetune("classify", rows, rows, base=tmp_path / "one", out=tmp_path / "two", **FAST | {"learning_rate": 0.0})
    answers = [bothways.load(tmp_path / name)(["a great film"])[0].score for name in ("one", "two")]
    assert answers[1] == pytest.approx(answers[0], rel=1e-3)


def test_many_labels_are_weighed_in_bounded_memory():
    import tracemalloc

    from bothways.text.tokenizer import Encoded
    from bothways.training.finetune import class_weights

    nothing = np.zeros(1, np.int32)
    one = Encoded(nothing, nothing, nothing, nothing, nothing, 0, 0, target=np.zeros(10_000, np.float32))
    windows = [replace(one, example=number) for number in range(2000)]  # 80 MB, were they stacked
    tracemalloc.start()
    class_weights(windows, "multi", 10_000)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_a_repeated_run_has_the_same_id_and_the_same_file_and_another_run_another(base, tmp_path):
    for name, more in (("one", {}), ("two", {}), ("three", {"seed": 1})):
        finetune("classify", ROWS, ROWS, base=base, out=tmp_path / name, **FAST | more)
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two")
    ids = [json.loads((tmp_path / name / "run.json").read_text())["run"] for name in ("one", "two", "three")]
    assert ids[0] == ids[1] != ids[2]


def test_tensorboard_that_is_not_installed_is_told_before_the_texts_are_read(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name))
    with pytest.raises(MissingDependencyError, match=r"pip install 'bothways\[tensorboard\]'"):
        finetune("classify", tmp_path / "none.csv", out=tmp_path / "out", tensorboard=True)
