"""The records of ONNX models, and the files that are read only while they hold what was exported."""

import hashlib
import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bothways.errors import CheckpointError, OptionError
from bothways.inference.onnx.record import FOLDER, SHAPE_KEYS, ExportRecord, OnnxFile, OnnxModelRecord, mapped, shape_of
from bothways.inference.plan import TUNED, Plan, read_tuned, tuned_records, write_tuned
from bothways.model.config import EncoderConfig

TRAINING_KEYS = {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range"}
# What version 0.1 wrote for the shape of `bert-base-uncased`.
SHAPE_IN_0_1 = {
    **{"family": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "embedding_size": None},
    **{"attention_probs_dropout_prob": 0.1, "classifier_dropout": None, "max_position_embeddings": 512},
    **{"type_vocab_size": 2, "layer_norm_eps": 1e-12, "initializer_range": 0.02, "pad_token_id": 0},
    **{"num_hidden_groups": 1},
}


def test_every_setting_of_a_config_is_of_the_onnx_model_or_of_training():
    assert {item.name for item in fields(EncoderConfig)} == set(SHAPE_KEYS) | TRAINING_KEYS


@pytest.mark.parametrize("name", sorted(TRAINING_KEYS))
def test_settings_of_training_do_not_change_what_an_onnx_model_is_of(name):
    assert shape_of(EncoderConfig(**{name: 0.3})) == shape_of(EncoderConfig())


@pytest.mark.parametrize(
    "change",
    [{"num_hidden_layers": 7}, {"hidden_act": "relu"}, {"pad_token_id": 3}, {"layer_norm_eps": 1e-5}],
)
def test_settings_of_the_onnx_model_do(change):
    assert shape_of(EncoderConfig(**change)) != shape_of(EncoderConfig())


def test_a_stored_record_of_0_1_is_of_its_model_still(tmp_path):
    written = hashlib.sha256(json.dumps(SHAPE_IN_0_1, sort_keys=True).encode()).hexdigest()
    record = {"format": 1, "head": "classify", "outputs": 2, "config": written, "weights": "0", "parameters": 5}
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "export.json").write_text(json.dumps(record | {"graphs": {"int8": {"sha256": "0"}}}))
    export = ExportRecord.read(tmp_path)
    assert export is not None
    assert export.stale(EncoderConfig()) is None
    assert "belong to another model" in str(export.stale(EncoderConfig(num_hidden_layers=7)))
    assert replace(export, config=shape_of(EncoderConfig())).stale(EncoderConfig()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"format": "1"},
        {"outputs": "2"},
        {"outputs": True},
        {"head": None},
        {"parameters": 2.5},
        {"models": []},
        {"models": {"int8": {"sha256": 5}}},
        {"models": {"int8": {"sha256": "0", "rejected": 1}}},
        {"models": {"int8": {"more": 1}}},
        {"models": {"int8": {"sha256": "0", "metric": "accuracy", "value": "0.9", "reference": 0.9}}},
        {"models": {"int8": {"sha256": "0", "metric": "accuracy", "value": 0.9}}},
        {"models": {"int8": {"sha256": "0", "agreement": []}}},
        {"models": {"int8": {"sha256": "0", "examples": None}}},
    ],
)
def test_a_record_of_the_wrong_types_is_damaged(tmp_path, change):
    record: dict[str, Any] = {"format": 2, "head": "classify", "outputs": 2, "config": "0", "weights": "0"}
    record |= {"parameters": 5, "models": {"int8": {"sha256": "0"}}}
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "export.json").write_text(json.dumps(record | change))
    with pytest.raises(CheckpointError, match="damaged, or written by a newer bothways"):
        ExportRecord.read(tmp_path)


def graph_file(tmp_path: Path, content: bytes = b"first") -> OnnxFile:
    (tmp_path / "model.onnx").write_bytes(content)
    return OnnxFile(tmp_path / "model.onnx", hashlib.sha256(content).hexdigest())


def swapped(path: Path) -> None:
    """Replace a file by one of the same length, times included."""
    times = path.stat()
    path.with_name("other").write_bytes(b"other")
    os.utime(path.with_name("other"), ns=(times.st_atime_ns, times.st_mtime_ns))
    path.with_name("other").replace(path)


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"other"), swapped, Path.unlink])
def test_a_file_that_was_replaced_is_not_opened(tmp_path, change):
    file = graph_file(tmp_path)
    assert file.opened(Path.read_bytes) == b"first"
    change(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"(not the ONNX model that was exported here|cannot be read)"):
        file.opened(Path.read_bytes)


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(tmp_path):
    file = graph_file(tmp_path)

    def slow(path: Path) -> bytes:
        swapped(path)
        return path.read_bytes()

    with pytest.raises(CheckpointError, match="not the ONNX model that was exported here"):
        file.opened(slow)


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path, monkeypatch):
    file, hashed = graph_file(tmp_path), []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: hashed.append(1) or digest(*given))
    for _ in range(3):
        assert file.opened(Path.read_bytes) == b"first"
    assert len(hashed) == 1
    (tmp_path / "model.onnx").write_bytes(b"first")  # the same content again
    assert file.opened(Path.read_bytes) == b"first"
    assert len(hashed) == 2


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "2", True, None])
def test_a_plan_has_whole_numbers_from_1(wrong):
    with pytest.raises(OptionError, match="a plan with workers="):
        Plan("onnxruntime", "int8", wrong, 384)
    with pytest.raises(OptionError, match="a plan with max_tokens="):
        Plan("onnxruntime", "int8", 1, wrong)


@pytest.mark.parametrize("record", ["[]", "{", '{"k": 5}', '{"k": {"plan": [1]}}', '{"k": {"plan": {"engine": "x"}}}'])
def test_a_measured_plan_that_cannot_be_read_counts_as_none(tmp_path, record):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "tuned.json").write_text(record)
    assert read_tuned(tmp_path, "k") is None
    write_tuned(tmp_path, "k", Plan("torch", "fp32", 1, 5), {"version": "1"})
    assert read_tuned(tmp_path, "k") == Plan("torch", "fp32", 1, 5)
    assert tuned_records(tmp_path)["k"]["version"] == "1"


def test_a_plan_with_a_part_for_long_windows_is_remembered_whole(tmp_path):
    (tmp_path / FOLDER).mkdir()
    plan = Plan("torch", "fp32", 1, 5, long=Plan("onnxruntime", "int8", 2, 7), from_tokens=50)
    write_tuned(tmp_path, "k", plan, {"version": "1"}, {"version": "2"})
    assert read_tuned(tmp_path, "k") == plan
    record = tuned_records(tmp_path)["k"]
    assert (record["version"], record["long"]["version"], record["long"]["from_tokens"]) == ("1", "2", 50)
    assert record["plan"] == {"engine": "torch", "precision": "fp32", "workers": 1, "max_tokens": 5}


@pytest.mark.parametrize("long", ['"x"', "5", '{"plan": {}}', '{"from_tokens": "x", "plan": %s}', '{"plan": %s}'])
def test_a_broken_part_for_long_windows_makes_the_plan_count_as_none(tmp_path, long):
    (tmp_path / FOLDER).mkdir()
    plan = '{"engine": "onnxruntime", "precision": "int8", "workers": 1, "max_tokens": 5}'
    (tmp_path / FOLDER / TUNED).write_text(f'{{"k": {{"plan": {plan}, "long": {long.replace("%s", plan)}}}}}')
    assert read_tuned(tmp_path, "k") is None


@pytest.mark.parametrize("numbers", ['"workers": "2", "max_tokens": 5', '"workers": 2.5, "max_tokens": 5'])
def test_a_measured_plan_with_numbers_of_another_type_counts_as_none(tmp_path, numbers):
    (tmp_path / FOLDER).mkdir()
    plan = f'{{"k": {{"plan": {{"engine": "onnxruntime", "precision": "int8", {numbers}}}}}}}'
    (tmp_path / FOLDER / "tuned.json").write_text(plan)
    assert read_tuned(tmp_path, "k") is None


def test_what_the_check_found_is_said_in_a_few_words():
    assert OnnxModelRecord("hash").measured() == "not measured"
    onnx_model = OnnxModelRecord("hash", "accuracy", 0.91, 0.9, 0.99, 1200)
    assert onnx_model.measured() == "accuracy 0.9000, in fp32 0.9100, 99.0 % of 1,200 answers the same"


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b"[]", b'{"key": {"plan": {"engine": []}}}'])
def test_a_damaged_record_of_plans_counts_as_none(tmp_path, content):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / TUNED).write_bytes(content)
    assert read_tuned(tmp_path, "key") is None


def test_brackets_in_brackets_are_a_damaged_record(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "export.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="damaged, or written by a newer bothways"):
        ExportRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "workers=0, expected a whole number from 1 to 1,024"),
        ({"workers": 10**7}, "workers=10000000, expected a whole number from 1 to 1,024"),
        ({"max_tokens": True}, "max_tokens=True, expected a whole number"),
        ({"engine": None}, "engine=None, expected its name"),
        ({"from_tokens": 0}, "from_tokens=0, expected a whole number"),
        ({"long": "torch"}, "long='torch', expected a Plan"),
        ({"precision": ["int8"]}, r"precision=\['int8'\], expected its name"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        Plan(**({"engine": "onnxruntime", "precision": "int8", "workers": 1, "max_tokens": 384} | changes))


def test_files_that_models_share_are_hashed_and_read_without_a_copy(tmp_path):
    rows = np.arange(12, dtype=np.int8).reshape(3, 4)
    save_file({"rows": rows, "scales": np.ones(3, np.float32)}, tmp_path / "words.safetensors")
    found = mapped(tmp_path / "words.safetensors")
    assert isinstance(found["rows"], np.memmap)
    np.testing.assert_array_equal(found["rows"], rows)
    file = graph_file(tmp_path)
    shared = tmp_path / "words.safetensors"
    file.shared.append(OnnxFile(shared, hashlib.sha256(shared.read_bytes()).hexdigest(), "copy both again"))
    assert file.opened(Path.read_bytes) == b"first"
    shared.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"words\.safetensors: damaged.*copy both again"):
        file.opened(Path.read_bytes)
    shared.unlink()
    with pytest.raises(CheckpointError, match=r"words\.safetensors: cannot be read.*copy both again"):
        file.opened(Path.read_bytes)


@pytest.mark.parametrize("shared", [{"../a.safetensors": "0"}, {"a/b.safetensors": "0"}, {"a.bin": "0"}, {"a": 1}, []])
def test_a_shared_file_is_a_plain_name_of_weights(shared):
    with pytest.raises(TypeError):
        OnnxModelRecord("0", shared=shared)
