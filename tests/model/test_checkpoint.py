"""Files of weights: what is read as it is, and what is refused by name."""

import json
from pathlib import Path

import pytest
import torch

from bothways.errors import CheckpointError
from bothways.inference.engines.torch import open_torch_engine
from bothways.inference.predictor import load
from bothways.model.checkpoint import LoadReport, load_model, read_safetensors, read_tensors, write_safetensors
from bothways.progress import Reporter
from tests.tiny import TINY, write_base

WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture
def base(tmp_path) -> Path:
    return write_base(tmp_path / "base")


def rewrite(directory: Path, change) -> Path:
    """The directory with every (name, tensor) of its weights changed by `change`."""
    tensors, metadata = read_safetensors(directory / "model.safetensors")
    changed = dict(change(name, tensor.clone()) for name, tensor in tensors.items())
    write_safetensors(directory / "model.safetensors", changed, metadata)
    return directory


def loaded(directory: Path, head: str = "hidden", outputs: int = 0) -> LoadReport:
    return load_model(directory, head, outputs, torch.Generator().manual_seed(0))[1]


def hidden(directory: Path) -> torch.Tensor:
    return torch.from_numpy(load(directory, task="embed", precision="fp32", engine="torch")(["a text"])[0].vector)


@pytest.mark.parametrize("prefix", ["module.", "module.bert.", "bert.", "_orig_mod.", "_orig_mod.bert."])
def test_prefixes_of_wrappers_change_nothing(base, prefix):
    expected = hidden(base)
    assert torch.equal(hidden(rewrite(base, lambda name, tensor: (prefix + name, tensor))), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(base, dtype):
    expected = hidden(base)
    torch.testing.assert_close(
        hidden(rewrite(base, lambda name, tensor: (name, tensor.to(dtype)))), expected, atol=0.02, rtol=0.02
    )


def test_old_names_of_norms_are_read(base):
    expected = hidden(base)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def renamed(name, tensor):
        return next((name.replace(new, former) for new, former in old.items() if name.endswith(new)), name), tensor

    assert torch.equal(hidden(rewrite(base, renamed)), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [WORDS, "encoder.layer.1.output.LayerNorm.bias", "pooler.dense.bias"])
def test_numbers_that_are_none_are_refused_by_name(base, bad, name):
    def damage(each, tensor):
        if each == name:
            tensor.view(-1)[3] = bad
        return each, tensor

    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        loaded(rewrite(base, damage), "pooled")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.float8_e4m3fn, torch.bool])
def test_quantized_weights_are_refused(base, dtype):
    directory = rewrite(base, lambda name, tensor: (name, tensor.to(dtype)))
    with pytest.raises(CheckpointError, match=r"is (int8|int32|float8_e4m3fn|bool), so quantized; expected fp32, fp16"):
        loaded(directory)


def test_a_git_lfs_pointer_is_named(base):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064d}\nsize 90000000\n"
    (base / "model.safetensors").write_text(pointer)
    with pytest.raises(CheckpointError, match=r"model.safetensors: found a git-lfs pointer.*run git lfs pull"):
        loaded(base)


def test_sharded_weights_are_named(base):
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    shards = {WORDS: "model-00001-of-00002.safetensors", "pooler.dense.bias": "model-00002-of-00002.safetensors"}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(CheckpointError, match=r"the weights are sharded into 2 files .*max_shard_size"):
        loaded(base)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
def test_a_pickle_is_refused_with_the_reason(base, name):
    (base / "model.safetensors").rename(base / name)
    with pytest.raises(CheckpointError, match=f"{name}: loading a pickle can run any code"):
        read_tensors(base)


def test_a_file_cut_short_is_named(base):
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        loaded(base)


def test_a_tensor_that_is_there_twice_is_refused(base):
    tensors, _ = read_safetensors(base / "model.safetensors")
    write_safetensors(base / "model.safetensors", tensors | {f"bert.{WORDS}": torch.zeros(2, 2)}, {})
    with pytest.raises(CheckpointError, match=rf"{WORDS} is there twice, with and without 'bert.'"):
        loaded(base)


def test_a_config_of_a_much_larger_model_is_refused_before_it_is_made(base):
    raw = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(raw | {"hidden_size": 8192, "num_hidden_layers": 12}))
    with pytest.raises(CheckpointError, match=r"has [0-9,]+ bytes, config.json describes [0-9,]+ parameters"):
        loaded(base)


def test_a_config_of_another_shape_is_refused(base):
    raw = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(raw | {"intermediate_size": 60}))
    with pytest.raises(CheckpointError, match=r"config.json means \(60, 32\).*belong to different models"):
        loaded(base)


def with_head(base: Path, rows: int, **config: object) -> Path:
    tensors, metadata = read_safetensors(base / "model.safetensors")
    generator = torch.Generator().manual_seed(2)
    head = {"classifier.weight": torch.randn(rows, 32, generator=generator), "classifier.bias": torch.zeros(rows)}
    write_safetensors(
        base / "model.safetensors", {f"bert.{name}": one for name, one in tensors.items()} | head, metadata
    )
    raw = json.loads((base / "config.json").read_text())
    raw |= {"architectures": ["BertForSequenceClassification"]} | config
    (base / "config.json").write_text(json.dumps(raw))
    return base


@pytest.mark.parametrize("config", [{"id2label": {"0": "a", "1": "b"}}, {}, {"num_labels": 3}])
def test_a_head_with_other_outputs_than_labels_is_not_called_untrained(base, config):
    with pytest.raises(
        CheckpointError, match=r"classifier.weight has shape \(5, 32\), expected \([23], 32\) .*id2label"
    ):
        load(with_head(base, 5, **config))


def test_a_missing_head_is_called_untrained(base):
    raw = json.loads((base / "config.json").read_text()) | {"architectures": ["BertForSequenceClassification"]}
    (base / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="not in the checkpoint, so the head is untrained"):
        load(base)


def test_for_fine_tuning_a_head_with_other_outputs_is_new(base):
    report = loaded(with_head(base, 5), "classify", 3)
    assert report.new == ("head.output.weight", "head.output.bias")
    assert report.head_is_new


def untrained_pooler(name, tensor):
    return name, tensor * (name != "pooler.dense.bias")


def test_a_pooler_that_was_never_trained_is_recognized(base):
    assert not loaded(base, "pooled").untrained_pooler
    report = loaded(rewrite(base, untrained_pooler), "pooled")
    assert report.untrained_pooler
    assert not report.head_is_new  # it is in the file
    assert any("the pooler in the file was never trained" in line for line in report.lines())
    assert not loaded(base, "hidden").untrained_pooler


def test_under_a_new_head_a_pooler_that_was_never_trained_begins_anew(base):
    rewrite(base, untrained_pooler)
    before = read_tensors(base)["pooler.dense.weight"]
    model, report = load_model(base, "classify", 2, torch.Generator().manual_seed(0))
    assert report.new == ("head.output.weight", "head.output.bias", "encoder.pooler.weight", "encoder.pooler.bias")
    assert report.left_over == ()
    assert f"loaded {len(read_tensors(base)) - 2} tensors" in report.lines()[0]
    assert any(line.endswith("its bias is exactly zero; it is initialized again") for line in report.lines())
    assert not torch.equal(model.encoder.pooler.weight, before)
    spread = float(model.encoder.pooler.weight.detach().std())
    assert abs(spread - TINY.initializer_range) < 0.1 * TINY.initializer_range
    again, _ = load_model(base, "classify", 2, torch.Generator().manual_seed(0))
    assert torch.equal(model.encoder.pooler.weight, again.encoder.pooler.weight)
    model, report = load_model(with_head(base, 2), "classify", 2, torch.Generator().manual_seed(0))
    assert report.new == ()
    assert torch.equal(model.encoder.pooler.weight, before), "a head that was trained over it reads it as it is"


def test_an_untrained_pooler_gives_no_vectors(base):
    assert load(base, task="embed", pooling="pooler")(["a"])[0].vector.shape == (32,)
    with pytest.raises(CheckpointError, match=r"the pooler was never trained .*choose the pooling mean or cls"):
        load(rewrite(base, untrained_pooler), task="embed", pooling="pooler")


def test_a_classifier_over_an_untrained_pooler_answers_without_a_word(base, caplog):
    with_head(rewrite(base, untrained_pooler), 2)
    open_torch_engine(base, "classify", 2, "fp32", Reporter(quiet=True))
    assert caplog.messages == []


def test_the_vocabulary_must_fit_the_table():
    for tokens in (TINY.vocab_size, TINY.vocab_size - 1000):
        TINY.check_vocabulary(tokens, Path("there"))
    for tokens in (TINY.vocab_size + 1, TINY.vocab_size - 1001):
        with pytest.raises(CheckpointError, match="there: the vocabulary has"):
            TINY.check_vocabulary(tokens, Path("there"))
