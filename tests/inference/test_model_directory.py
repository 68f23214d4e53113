"""A model directory is read as one model: parts of others, other formats and settings of the weights are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import bothways
from bothways.errors import CheckpointError, OptionError
from bothways.inference.model_directory import ModelDirectory, continued
from bothways.inference.predictor import load
from bothways.model.checkpoint import read_safetensors, write_safetensors
from bothways.tasks import Classify, Tag
from bothways.text.tokenizer import Tokenizer
from tests.tiny import BAD, GOOD, ROWS, TINY, write_trained

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_trained(tmp_path_factory.mktemp("model_directory"))


@pytest.fixture
def copy(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("labels", [("good", "bad"), ("positive", "negative"), ["a"], ("a", "b", "c"), ()])
def test_labels_of_a_fitted_classifier_cannot_be_renamed(model, labels):
    with pytest.raises(OptionError, match="labels is fixed by the trained weights"):
        load(model, labels=labels)
    assert load(model, labels=("bad", "good")).labels == ("bad", "good")  # those it has


def test_labels_of_a_classifier_of_transformers_cannot_be_renamed(copy):
    (copy / "bothways.json").unlink()
    assert load(copy).predict(["great film"]) == ["good"]
    with pytest.raises(OptionError, match="labels is fixed"):
        load(copy, labels=("positive", "negative"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "multi"}, "kind is fixed"),
        ({"aggregation_strategy": "first"}, "has no setting 'aggregation_strategy'"),
        ({"truncation": "longest_first"}, "truncation"),
        ({"threshold": "x"}, "threshold"),
        ({"threshold": 2.0}, "threshold"),
        ({"max_length": 16.5}, "max_length"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": 33}, "the model reads at most 32"),
        ({"stride": -1}, "stride"),
    ],
)
def test_settings_are_checked(model, settings, message):
    with pytest.raises(OptionError, match=message):
        load(model, **settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 99},
        {"format": "1"},
        {"task": "dance"},
        {"task": ["classify"]},
        {"settings": {"labels": "ab"}},
        {"settings": {"labels": ["a", "b"], "max_length": "12"}},
        {"settings": []},
        {"facts": 5},
    ],
)
def test_a_record_of_another_version_or_type_is_said_in_one_line(copy, changes):
    edit(copy / "bothways.json", **changes)
    with pytest.raises(CheckpointError, match=r"bothways\.json: damaged, or written by a newer bothways"):
        load(copy)


def test_weights_of_another_run_are_refused(copy):
    tensors, metadata = read_safetensors(copy / WEIGHTS)
    facts = json.loads((copy / "bothways.json").read_text())["facts"]
    write_safetensors(copy / WEIGHTS, tensors, metadata | {"run": "first"})
    edit(copy / "bothways.json", facts=facts | {"run": "first"})
    assert load(copy).predict(["great film"]) == ["good"]
    write_safetensors(copy / WEIGHTS, tensors, metadata | {"run": "second"})
    with pytest.raises(CheckpointError, match=r"of the run second, bothways\.json of the run first"):
        load(copy)
    write_safetensors(copy / WEIGHTS, tensors, {"format": "pt"})  # without a run, as others write it
    assert ModelDirectory.read(copy).task.name == "classify"


def test_a_record_of_another_model_beside_an_onnx_model_alone_is_refused(copy):
    (copy / WEIGHTS).unlink()
    assert load(copy).predict(["great film"]) == ["good"]
    edit(copy / "bothways.json", weights="0" * 64)
    with pytest.raises(CheckpointError, match=r"belong to other weights than bothways\.json"):
        load(copy)


def test_labels_that_differ_between_the_two_records_are_refused(copy):
    edit(copy / "config.json", id2label={"0": "good", "1": "bad"}, label2id={"good": 0, "bad": 1})
    with pytest.raises(CheckpointError, match=r"its labels are bad, good, those of config\.json are good, bad"):
        load(copy)


def test_a_tokenizer_of_another_model_is_refused(copy):
    raw = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(raw))  # spelled otherwise, the same
    assert load(copy).predict(["great film"]) == ["good"]
    raw["normalizer"]["lowercase"] = not raw["normalizer"]["lowercase"]
    (copy / "tokenizer.json").write_text(json.dumps(raw))
    config = json.loads((copy / "tokenizer_config.json").read_text())
    edit(copy / "tokenizer_config.json", do_lower_case=not config.get("do_lower_case", True))
    with pytest.raises(CheckpointError, match="the tokenizer is not the one that the model was trained with"):
        load(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "bothways.json", "onnx/export.json", "tokenizer.json"])
def test_a_directory_that_is_replaced_while_it_is_loaded_is_refused(copy, monkeypatch, name):
    from bothways.inference import predictor

    opened = predictor.open_engine

    def replaced_meanwhile(*given: Any, **named: Any) -> Any:
        content = (copy / name).read_bytes()
        (copy / "new").write_bytes(content)
        (copy / "new").replace(copy / name)
        return opened(*given, **named)

    monkeypatch.setattr(predictor, "open_engine", replaced_meanwhile)
    with pytest.raises(CheckpointError, match="replaced while it was loaded; load it again"):
        load(copy)


def test_a_head_is_taken_over_for_the_same_labels_alone(model, copy, tmp_path):
    task = Classify(labels=("bad", "good"))
    assert continued(task, copy) == (task, True)
    names = {"0": "good", "1": "bad"}
    edit(copy / "config.json", id2label=names)
    assert continued(task, copy) == (Classify(labels=("good", "bad")), True)
    edit(copy / "config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"})
    assert continued(task, copy) == (task, False)
    edit(copy / "config.json", id2label={"0": "good", "1": "bad", "2": "so so"})
    assert continued(task, copy) == (task, False)
    tags = Tag(labels=("O", "B-X", "I-X"))
    edit(copy / "config.json", id2label={"0": "B-X", "1": "I-X", "2": "O"})
    assert continued(tags, copy) == (tags, False)
    number = Classify(labels=("score",), kind="regression")
    edit(copy / "config.json", id2label={"0": "LABEL_0"})
    assert continued(number, copy) == (number, True)


@pytest.mark.parametrize("names", [{"0": "good", "1": "bad"}, {"0": "bad", "1": "good"}])
def test_a_base_with_labels_in_another_order_keeps_what_it_learned(copy, tmp_path, names):
    """With a learning rate of almost nothing, the new model answers as the base does."""
    (copy / "bothways.json").unlink()
    edit(copy / "config.json", id2label=names)
    before = load(copy, precision="fp32").predict([*GOOD, *BAD])
    recipe = bothways.Recipe(epochs=1, max_length=16, stride=4, precision="fp32", learning_rate=1e-9)
    bothways.finetune("classify", ROWS, ROWS, base=copy, out=tmp_path / "next", recipe=recipe, export=False)
    found = load(tmp_path / "next", precision="fp32")
    assert found.labels == tuple(names.values())
    assert found.predict([*GOOD, *BAD]) == before


def test_a_record_of_brackets_in_brackets_is_said_in_one_line(copy):
    (copy / "bothways.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"bothways\.json: damaged, or written by a newer bothways"):
        load(copy)


@pytest.mark.parametrize("pad", [0, 1, 2, 3, 4])
def test_robertas_padding_is_a_token_of_no_text(tmp_path, pad):
    config = TINY.replace(family="roberta", vocab_size=50265, type_vocab_size=1, pad_token_id=pad)
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    Tokenizer.packaged("roberta-base").save(tmp_path)
    if pad in (1, 3):  # <pad>, and <unk>, which byte-level BPE never makes
        assert ModelDirectory.read(tmp_path, "embed").config.position_offset == pad + 1
    else:  # <s>, </s>, "."
        with pytest.raises(CheckpointError, match=f"pad_token_id is {pad}, expected 1 as in the tokenizer"):
            ModelDirectory.read(tmp_path, "embed")
