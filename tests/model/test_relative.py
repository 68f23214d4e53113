"""Relative positions are those of MPNet in transformers, for every distance and however sequences are laid."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from bothways.batch import make_batch
from bothways.model.checkpoint import load_model
from bothways.model.config import EncoderConfig
from bothways.model.encoder import relative_biases
from bothways.model.forward import forward
from bothways.model.heads import TaskModel
from bothways.model.relative import distance_buckets
from bothways.text.tokenizer import Tokenizer
from bothways.training.optimizer import parameter_groups
from tests.model.test_parity import CONFIGS, TINY

LENGTHS = (300, 20, 150, 129, 7, 64)  # of several rectangles, with distances in all ranges


@pytest.mark.parametrize("length", [1, 2, 9, 600])
def test_the_range_of_every_distance_is_that_of_transformers(length):
    expected = MPNetEncoder.relative_position_bucket(torch.arange(1 - length, length))
    assert distance_buckets(length, 32).tolist() == expected.tolist()


def test_biases_lie_by_queries_and_keys():
    table = torch.nn.Embedding(32, 2)
    wide, narrow = relative_biases(table, [12, 5])
    buckets = MPNetEncoder.relative_position_bucket(torch.arange(12)[None] - torch.arange(12)[:, None])
    assert torch.equal(wide, table.weight[buckets].permute(2, 0, 1))
    assert torch.equal(narrow, wide[:, :5, :5])


def test_windows_of_all_lengths_in_one_batch_equal_transformers_one_by_one(tmp_path):
    torch.manual_seed(5)
    theirs = transformers.MPNetModel(transformers.MPNetConfig(**TINY, max_position_embeddings=320)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    theirs.save_pretrained(tmp_path)
    ours, _ = load_model(tmp_path, "hidden", 0, torch.Generator())
    tokenizer, rng = Tokenizer.packaged("mpnet-base"), np.random.default_rng(0)
    windows = [
        replace(
            tokenizer.encode("a " * (length - 2)),
            ids=rng.integers(5, TINY["vocab_size"], length).astype(np.int32),
            head_positions=np.arange(length),
        )
        for length in LENGTHS
    ]
    batch = make_batch(windows)
    with torch.inference_mode():
        rows = torch.split(forward(ours, batch), batch.counts.tolist())
        for row, member in zip(rows, batch.members, strict=True):
            ids = torch.from_numpy(windows[member].ids).long()[None]
            torch.testing.assert_close(row, theirs(ids).last_hidden_state[0], atol=2e-5, rtol=1e-4)


def test_the_biases_learn_as_the_lowest_layer():
    model = TaskModel(EncoderConfig.from_json(CONFIGS["mpnet"].to_dict())[0], "classify", 2)
    factors = {name: group.lr_factor for group in parameter_groups(model, 0.5, 0.01) for name in group.names}
    assert factors["encoder.relative.weight"] == factors["encoder.layers.0.inner.weight"] == 0.5**3
    assert factors["encoder.embeddings.word.weight"] == 0.5**4
