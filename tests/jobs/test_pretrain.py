"""Pretraining as a whole: keywords, overwriting, stopping, what is written down."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from bothways.errors import CheckpointError, InterruptedRunError, OptionError
from bothways.jobs import pretrain as job
from bothways.jobs.directory import claimed
from bothways.jobs.pretrain import pretrain
from bothways.text.vocabulary import train_vocabulary
from bothways.training.pretrain import Pretraining
from tests.tiny import TINY

FAST = {"steps": 4, "batch_size": 4, "max_length": "32", "eval_steps": 2, "learning_rate": 1e-3, "precision": "fp32"}
WORDS = ["the", "cat", "sat", "on", "a", "warm", "mat", "and", "saw", "nine", "small", "birds", "in", "old", "trees"]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict:
    """A corpus of two hundred documents, its vocabulary, its shards and a tiny shape."""
    folder = tmp_path_factory.mktemp("given")
    sentence = [" ".join(WORDS[(place + step) % 14] for step in range(6)) + "." for place in range(14)]
    documents = ["\n".join(sentence[(number + line) % 14].capitalize() for line in range(6)) for number in range(200)]
    (folder / "corpus.txt").write_text("\n\n".join(documents))
    train_vocabulary([folder / "corpus.txt"], folder / "vocab", size=100)
    (folder / "shape.json").write_text(json.dumps(TINY.to_json()))
    options = {"vocab": folder / "vocab", "size": folder / "shape.json", "shards": folder / "shards"}
    return {"corpus": [folder / "corpus.txt"], **options, **FAST}


def weights_of(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


def test_fields_of_the_recipe_are_keywords(given, tmp_path):
    run = pretrain(**given | {"dropout": 0.0}, out=tmp_path / "out")
    facts = json.loads((run.directory / "run.json").read_text())
    assert facts["recipe"]["steps"] == facts["steps"] == 4
    assert json.loads((run.directory / "config.json").read_text())["hidden_dropout_prob"] == 0.1
    with pytest.raises(OptionError, match="unknown option 'max_steps'; did you mean 'steps'"):
        pretrain(given["corpus"], out=tmp_path / "other", max_steps=4)


def test_parts_carry_one_run_id_and_facts_hold_no_paths(given, tmp_path):
    out = tmp_path / "out"
    pretrain(**given, out=out)
    text = (out / "run.json").read_text()
    facts = json.loads(text)
    with safe_open(out / "model.safetensors", "np") as file:
        assert file.metadata()["run"] == facts["run"]
    assert {"created", "sha256", "tokenizer_sha256", "versions"} <= set(facts)
    next_out = tmp_path / "next"
    pretrain(given["corpus"], base=out, out=next_out, **FAST)
    text += (next_out / "run.json").read_text()
    assert str(tmp_path) not in text
    assert str(given["vocab"].parent) not in text
    assert re.fullmatch("[0-9a-f]{64}", json.loads((next_out / "run.json").read_text())["base_sha256"])


def test_overwriting_keeps_the_old_model_until_the_new_one_is_complete(given, tmp_path, monkeypatch):
    out = tmp_path / "out"
    pretrain(**given, out=out)
    old = weights_of(out)
    again = given | {"seed": 1}
    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "evaluate", lambda _: os.kill(os.getpid(), signal.SIGTERM) or {})
        with pytest.raises(InterruptedRunError):
            pretrain(**again, out=out, overwrite=True)
    assert weights_of(out) == old
    assert json.loads((out / "run.json").read_text())["recipe"]["seed"] == 0
    with pytest.raises(CheckpointError, match=r"seed was 1, now 2"):
        pretrain(**given | {"seed": 2}, out=out, resume=True)
    pretrain(**again, out=out, resume=True)
    assert weights_of(out) != old
    assert not (out / ".new").exists()
    assert not (out / "resume.safetensors").exists()
    assert json.loads((out / "run.json").read_text())["recipe"]["seed"] == 1


def test_a_directory_in_use_is_refused(given, tmp_path):
    with claimed(tmp_path / "out"), pytest.raises(OptionError, match="another process is writing a run there"):
        pretrain(**given, out=tmp_path / "out")


def test_a_report_that_fails_does_not_lose_the_model(given, tmp_path, monkeypatch, caplog):
    def failing(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(job, "write_curves", failing)
    run = pretrain(**given, out=tmp_path / "out")
    assert "the report could not be written (no fonts)" in caplog.text
    assert (run.directory / "config.json").is_file()


@pytest.mark.slow
def test_a_terminated_process_saves(given, tmp_path):
    command = [sys.executable, "-m", "bothways", "pretrain", given["corpus"][0], "--vocab", given["vocab"]]
    command += ["--size", given["size"], "--shards", given["shards"], "--out", tmp_path / "out", "--steps", "100000"]
    command += ["--batch-size", "4", "--max-length", "32", "--eval-steps", "5"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    log = tmp_path / "out" / "metrics.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_text().count("\n") > 1):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == 130, message
    assert "--resume to continue" in message
    assert (tmp_path / "out" / "resume.safetensors").is_file()
