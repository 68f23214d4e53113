"""Every head of every family against `transformers`: outputs, loss, gradients, files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from bothways.batch import make_batch
from bothways.errors import CheckpointError
from bothways.model.checkpoint import load_model, model_tensors, read_safetensors, write_safetensors
from bothways.model.config import EncoderConfig
from bothways.model.families import ARCHITECTURES, FAMILIES
from bothways.model.forward import forward
from bothways.model.heads import LOSSES, TaskModel
from bothways.model.names import tensor_names
from tests.model.test_parity import CONFIGS, padded_inputs, ragged

HEADS = [(family, head) for family in sorted(FAMILIES) for head in FAMILIES[family].heads if head != "classify"]
OUTPUTS = {"tokens": 5, "spans": 2, "next": 2}


def theirs(family: str, head: str):
    torch.manual_seed(11)
    config = type(CONFIGS[family])(**CONFIGS[family].to_dict())
    config.num_labels = OUTPUTS.get(head, 2)
    config.qa_dropout = config.seq_classif_dropout = 0.0
    config.dropout = config.attention_dropout = config.classifier_dropout_prob = 0.0
    stem = FAMILIES[family].class_stem
    name = stem + ARCHITECTURES[head]
    if head == "next" and family == "albert":
        name = "AlbertForPreTraining"
    made = getattr(transformers, name)(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    made.tie_weights()
    return made.eval()


def windows(family: str, head: str):
    """Windows whose head reads some tokens; spans read [CLS] and a part of the rest."""
    rng = np.random.default_rng(1)
    made = []
    for window in ragged(family):
        reads = np.arange(len(window.ids))
        if head in ("tokens", "masked"):
            reads = np.flatnonzero(rng.random(len(window.ids)) < 0.6)
        elif head in ("next", "pooled"):
            reads = reads[:1]
        made.append(
            window.__class__(**{name: getattr(window, name) for name in window.__slots__} | {"head_positions": reads})
        )
    return made


def expected_rows(model, head: str, family: str, batch) -> torch.Tensor:
    inputs, _ = padded_inputs(family, model.config)
    output = model(**inputs)
    every = {
        "tokens": lambda: output.logits,
        "spans": lambda: torch.stack([output.start_logits, output.end_logits], -1),
        "masked": lambda: output.logits,
        "next": lambda: (output.sop_logits if family == "albert" else output.logits)[:, None],
        "hidden": lambda: output.last_hidden_state,
        "pooled": lambda: output.pooler_output[:, None],
    }[head]()
    starts = np.cumsum(batch.lengths) - batch.lengths
    owner = np.repeat(np.arange(len(starts)), batch.counts)
    return every[owner, batch.head_positions - starts[owner]]


@pytest.mark.parametrize(("family", "head"), HEADS)
def test_logits_and_gradients_equal_transformers(family, head, tmp_path: Path):
    if head == "pooled" and not FAMILIES[family].pooler:
        with pytest.raises(CheckpointError, match="have no 'pooled' head"):
            TaskModel(EncoderConfig.from_json(CONFIGS[family].to_dict())[0], head, 0)
        return
    model = theirs(family, head)
    model.save_pretrained(tmp_path)
    ours, report = load_model(tmp_path, head, OUTPUTS.get(head, 0), torch.Generator().manual_seed(0))
    assert report.new == ()
    batch = make_batch(windows(family, head))
    rows = forward(ours, batch)
    wanted = expected_rows(model, head, family, batch)
    torch.testing.assert_close(rows, wanted, atol=2e-5, rtol=1e-4)
    weights = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2))
    (rows * weights).sum().backward()
    (wanted * weights).sum().backward()
    gradients = dict(model.named_parameters(remove_duplicate=False))
    prefix = "" if head in ("hidden", "pooled") else ours.config.rules.prefix
    for name, parameter in ours.named_parameters():
        names = tensor_names(ours.config, name, head)
        found = [gradients[part if name.startswith("head.") else prefix + part].grad for part in names]
        torch.testing.assert_close(
            parameter.grad, torch.cat(found), atol=2e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize(("family", "head"), HEADS)
def test_transformers_loads_what_we_save(family, head, tmp_path: Path):
    if head in ("pooled", "hidden") or (head == "next" and family == "albert"):
        pytest.skip("a bare encoder is saved by no task, and ALBERT's sentence order has no class of its own")
    model = theirs(family, head)
    model.save_pretrained(tmp_path / "theirs")
    ours, _ = load_model(tmp_path / "theirs", head, OUTPUTS.get(head, 0), torch.Generator().manual_seed(0))
    directory = tmp_path / "ours"
    write_safetensors(directory / "model.safetensors", model_tensors(ours), {"format": "pt"})
    raw = ours.config.to_json() | {"id2label": {str(place): str(place) for place in range(OUTPUTS.get(head, 2))}}
    (directory / "config.json").write_text(json.dumps(raw))
    again, info = type(model).from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = make_batch(windows(family, head))
    with torch.inference_mode():
        torch.testing.assert_close(
            expected_rows(again.eval(), head, family, batch), expected_rows(model, head, family, batch)
        )


def test_an_untied_output_layer_is_refused(tmp_path: Path):
    model = theirs("bert", "masked")
    model.save_pretrained(tmp_path)
    tensors, metadata = read_safetensors(tmp_path / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = torch.zeros_like(tensors["bert.embeddings.word_embeddings.weight"])
    write_safetensors(tmp_path / "model.safetensors", tensors, metadata)
    with pytest.raises(CheckpointError, match="computes only tied output layers"):
        load_model(tmp_path, "masked", 0, torch.Generator())


def test_a_family_without_a_head_is_refused():
    config, _ = EncoderConfig.from_json(CONFIGS["roberta"].to_dict())
    with pytest.raises(CheckpointError, match="family roberta have no 'next' head"):
        TaskModel(config, "next", 2)


def test_token_and_span_losses_are_those_of_transformers_over_the_tokens_that_are_read():
    generator = torch.Generator().manual_seed(4)
    counts = torch.tensor([3, 5, 2])
    logits = torch.randn(10, 4, generator=generator)
    targets = torch.randint(0, 4, (10,), generator=generator)
    windows = LOSSES["tokens"](logits, targets, counts, None)
    torch.testing.assert_close((windows * counts).sum() / 10, cross_entropy(logits, targets))
    spans, ends = torch.randn(10, 2, generator=generator), torch.tensor([0, 2, 1, 4, 0, 0])
    wide = torch.full((3, 5, 2), -1e9)
    wide[0, :3], wide[1, :5], wide[2, :2] = spans[:3], spans[3:8], spans[8:]
    start, end = ends.view(-1, 2).T
    expected = (
        cross_entropy(wide[..., 0], start) + cross_entropy(wide[..., 1], end)
    ) / 2  # as in BertForQuestionAnswering
    torch.testing.assert_close(LOSSES["spans"](spans, ends, counts, None).mean(), expected)
