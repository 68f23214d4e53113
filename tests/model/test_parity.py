"""Tiny random models of every family against `transformers`: outputs, loss, gradients, files, both ways."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import mse_loss

from bothways.batch import make_batch
from bothways.model.checkpoint import load_model, model_tensors, write_safetensors
from bothways.model.config import EncoderConfig
from bothways.model.families import FAMILIES
from bothways.model.forward import forward
from bothways.model.heads import LOSSES, TaskModel
from bothways.model.names import tensor_names
from bothways.text.tokenizer import Encoded

LENGTHS = (5, 11, 3, 8, 1, 8)
LABELS = 3
COUNTS = torch.ones(len(LENGTHS), dtype=torch.int64)

TINY = {"vocab_size": 97, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS: dict[str, transformers.PreTrainedConfig] = {
    "bert": transformers.BertConfig(**TINY, **QUIET, max_position_embeddings=40),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=97, n_layers=3, n_heads=4, dim=32, hidden_dim=48, max_position_embeddings=40
    ),
    "roberta": transformers.RobertaConfig(**TINY, **QUIET, max_position_embeddings=42, type_vocab_size=1),
    "xlm-roberta": transformers.XLMRobertaConfig(**TINY, **QUIET, max_position_embeddings=42, type_vocab_size=1),
    "mpnet": transformers.MPNetConfig(**TINY, **QUIET, max_position_embeddings=42),
    "albert": transformers.AlbertConfig(**TINY, **QUIET, embedding_size=16, max_position_embeddings=40),
    "electra": transformers.ElectraConfig(**TINY, **QUIET, embedding_size=16, max_position_embeddings=40),
}


@pytest.fixture(params=sorted(FAMILIES))
def family(request) -> str:
    return request.param


def theirs(family: str, *, labels: int = LABELS, problem: str = "single_label_classification"):
    torch.manual_seed(7)
    config = type(CONFIGS[family])(**CONFIGS[family].to_dict())
    config.num_labels, config.problem_type = labels, problem
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():  # zero biases would hide a bias that is never read
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    return model.eval()


def ragged(family: str) -> list[Encoded]:
    rng = np.random.default_rng(3)
    windows = []
    for example, length in enumerate(LENGTHS):
        ids = rng.integers(5, 97, size=length).astype(np.int32)
        types = rng.integers(0, 2, size=length).astype(np.int32)
        if FAMILIES[family].position_offset or family == "distilbert":
            types = np.zeros(length, dtype=np.int32)
        nothing = np.zeros(length, dtype=np.int32)
        windows.append(
            Encoded(ids, types, np.zeros((length, 2), np.int32), nothing, nothing.astype(np.int8), example, 0)
        )
    return windows


def padded_inputs(family: str, config) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    batch = make_batch(ragged(family))
    ids, mask, types = (torch.from_numpy(part) for part in batch.padded(config.pad_token_id))
    inputs = {"input_ids": ids, "attention_mask": mask}
    if family != "distilbert":
        inputs["token_type_ids"] = types
    return inputs, batch.members


def ours_from(model, tmp_path: Path) -> TaskModel:
    model.save_pretrained(tmp_path)
    ours, report = load_model(tmp_path, "classify", model.config.num_labels, torch.Generator().manual_seed(0))
    assert report.new == ()
    assert report.left_over == ()
    assert report.unknown_keys == ()
    return ours


def test_hidden_pooled_and_logits_equal_transformers(family, tmp_path):
    model = theirs(family)
    ours = ours_from(model, tmp_path)
    inputs, _ = padded_inputs(family, model.config)
    with torch.inference_mode():
        expected = model.base_model(**inputs)
        hidden = ours.encoder.padded(
            inputs["input_ids"],
            inputs["attention_mask"],
            inputs.get("token_type_ids", torch.zeros_like(inputs["input_ids"])),
        )
        real = inputs["attention_mask"].bool()
        torch.testing.assert_close(hidden[real], expected.last_hidden_state[real], atol=1e-5, rtol=1e-5)
        if ours.encoder.pooler is not None:
            torch.testing.assert_close(ours.encoder.pool(hidden[:, 0]), expected.pooler_output, atol=1e-5, rtol=1e-5)
        logits = forward(ours, make_batch(ragged(family)))
        torch.testing.assert_close(logits, model(**inputs).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "problem", "labels"),
    [
        ("single", "single_label_classification", 3),
        ("multi", "multi_label_classification", 3),
        ("regression", "regression", 1),
    ],
)
def test_loss_and_every_gradient_equal_transformers(family, kind: str, problem: str, labels: int, tmp_path):
    model = theirs(family, labels=labels, problem=problem)
    ours = ours_from(model, tmp_path)
    inputs, _ = padded_inputs(family, model.config)
    rng = np.random.default_rng(5)
    if kind == "single":
        targets = torch.from_numpy(rng.integers(0, labels, size=len(LENGTHS)))
    else:
        shape = (len(LENGTHS), labels) if kind == "multi" else (len(LENGTHS),)
        targets = torch.from_numpy(rng.integers(0, 2, size=shape).astype(np.float32))
    expected = model(**inputs, labels=targets).loss
    expected.backward()
    loss = LOSSES[kind](forward(ours, make_batch(ragged(family))), targets, COUNTS, None).mean()
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    gradients = dict(model.named_parameters())
    prefix = ours.config.rules.prefix
    for name, parameter in ours.named_parameters():
        names = tensor_names(ours.config, name, ours.head_name)
        parts = [gradients[part if name.startswith("head.") else prefix + part].grad for part in names]
        torch.testing.assert_close(
            parameter.grad, torch.cat(parts), atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_padded_equals_packed(family, tmp_path):
    ours = ours_from(theirs(family), tmp_path)
    inputs, _ = padded_inputs(family, ours.config)
    types = inputs.get("token_type_ids", torch.zeros_like(inputs["input_ids"]))
    with torch.inference_mode():
        padded = ours.padded(inputs["input_ids"], inputs["attention_mask"], types)
        packed = forward(ours, make_batch(ragged(family)))
    torch.testing.assert_close(padded, packed, atol=1e-6, rtol=1e-5)


def test_a_batch_answers_as_each_text_alone(family, tmp_path):
    ours = ours_from(theirs(family), tmp_path)
    windows = ragged(family)
    with torch.inference_mode():
        batch = make_batch(windows)
        together = forward(ours, batch)
        for place, member in enumerate(batch.members):
            alone = forward(ours, make_batch([windows[member]]))
            torch.testing.assert_close(together[place : place + 1], alone, atol=1e-6, rtol=1e-5)


def test_what_we_save_transformers_loads_with_equal_logits(family, tmp_path):
    model = theirs(family)
    ours = ours_from(model, tmp_path / "theirs")
    directory = tmp_path / "ours"
    write_safetensors(directory / "model.safetensors", model_tensors(ours), {"format": "pt"})
    config = ours.config.to_json() | {"id2label": {str(i): f"class {i}" for i in range(LABELS)}}
    (directory / "config.json").write_text(__import__("json").dumps(config))
    again, info = transformers.AutoModelForSequenceClassification.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    inputs, _ = padded_inputs(family, model.config)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(**inputs).logits, model(**inputs).logits, atol=1e-6, rtol=1e-5)


def test_our_parameter_count_equals_the_module_and_transformers(family, tmp_path):
    model = theirs(family)
    ours = ours_from(model, tmp_path)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in ours.parameters()) == expected
    assert ours.config.count_parameters(labels=LABELS) == expected
    base = sum(parameter.numel() for parameter in transformers.AutoModel.from_config(model.config).parameters())
    assert ours.config.count_parameters() == base


def test_config_survives_the_round_trip(family):
    config, unknown = EncoderConfig.from_json(CONFIGS[family].to_dict())
    assert unknown == []
    assert EncoderConfig.from_json(config.to_json()) == (config, [])


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_robertas_positions_equal_transformers_whatever_the_pad_id(pad, tmp_path):
    torch.manual_seed(7)
    config = transformers.RobertaConfig(
        **TINY, **QUIET, max_position_embeddings=12 + pad, type_vocab_size=1, pad_token_id=pad
    )
    model = transformers.RobertaModel(config).eval()
    torch.nn.init.normal_(model.embeddings.position_embeddings.weight)
    model.save_pretrained(tmp_path)
    ours, _ = load_model(tmp_path, "hidden", 0, torch.Generator().manual_seed(0))
    inputs, _ = padded_inputs("roberta", config)
    with torch.inference_mode():
        hidden = ours.encoder.padded(*inputs.values())
    real = inputs["attention_mask"].bool()
    expected = model(**inputs).last_hidden_state
    torch.testing.assert_close(hidden[real], expected[real], atol=1e-5, rtol=1e-5)
    assert ours.config.max_length == max(LENGTHS)


def test_regression_loss_is_the_squared_error():
    logits, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 5.0])
    torch.testing.assert_close(
        LOSSES["regression"](logits, targets, COUNTS, None).mean(), mse_loss(logits[:, 0], targets)
    )
