"""Weights of a checkpoint under our names, without PyTorch, are those of the modules."""

import numpy as np
import pytest
import torch

from bothways.errors import CheckpointError
from bothways.model.checkpoint import model_tensors
from bothways.model.names import own_weights
from tests.inference.onnx.test_build import CASES, model_of


@pytest.mark.parametrize(("family", "head"), CASES)
def test_weights_of_a_checkpoint_are_those_of_the_modules(family, head):
    model = model_of(family, head)
    saved = {name: value.numpy() for name, value in model_tensors(model).items()} | {"of.another.head": np.ones(1)}
    found = own_weights(model.config, head, saved)
    expected = dict(model.named_parameters())
    assert set(found) == set(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name].detach().numpy())


def test_a_missing_weight_is_named():
    model = model_of("bert", "classify")
    saved = {name: value.numpy() for name, value in model_tensors(model).items() if "layer.1.output.dense" not in name}
    with pytest.raises(CheckpointError, match=r"no encoder\.layer\.1\.output\.dense\.weight"):
        own_weights(model.config, "classify", saved)


def test_a_pooler_that_is_not_read_is_left_out():
    model = model_of("bert", "classify")
    saved = {name: value.numpy() for name, value in model_tensors(model).items()}
    assert "encoder.pooler.weight" in own_weights(model.config, "classify", saved)
    saved["classifier.weight"] = torch.zeros(5, 32).numpy()
    assert "encoder.pooler.weight" not in own_weights(model.config, "tokens", saved)
