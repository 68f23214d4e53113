"""Vectors are those that are published for the same weights, and a long text loses nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import write_base

from bothways.errors import CheckpointError, ModelNotFoundError, OptionError
from bothways.model.catalogue import find_model
from bothways.predictor import load


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return find_model("minilm-l6")
    except ModelNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_equal_the_published_ones(minilm, shared_data, pooling):
    published = json.loads((shared_data / "reference" / "minilm_l6_v2.json").read_text())[pooling]["vectors"]
    model = load(minilm, task="embed", pooling=pooling, precision="fp32")
    for row, found in zip(published, model([row["text"] for row in published]), strict=True):
        np.testing.assert_allclose(found.vector, row["vector"], atol=3e-3)
        cosine = found.vector @ row["vector"] / np.linalg.norm(found.vector) / np.linalg.norm(row["vector"])
        assert cosine > 0.9999


def test_normalised_vectors_equal_the_published_ones(minilm, shared_data):
    published = json.loads((shared_data / "reference" / "minilm_l6_v2.json").read_text())["normalized_mean"]["vectors"]
    model = load(minilm, task="embed", normalise=True, precision="fp32")
    for row in published:
        (found,) = model([row["text"]])
        assert np.linalg.norm(found.vector) == pytest.approx(1.0)
        np.testing.assert_allclose(found.vector[:5], row["first_numbers"], atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler", "none"])
def test_a_long_text_is_read_to_its_end(tmp_path, pooling):
    base = write_base(tmp_path / "base")
    text = " ".join(f"w{number}" for number in range(300))
    short, long, other = load(base, task="embed", pooling=pooling)(["w0", text, text + " end"])
    assert short.windows == 1
    assert long.windows > 5
    assert not np.array_equal(long.vector[-32:], other.vector[-32:])
    if pooling == "none":
        assert len(long.vector) == len(load(base, task="embed").tokenizer.encode(text).ids)


def test_what_there_is_not_is_refused(tmp_path):
    base = write_base(tmp_path / "base")
    with pytest.raises(OptionError, match="expected one of mean, cls, pooler, none"):
        load(base, task="embed", pooling="sum")
    with pytest.raises(OptionError, match="no setting 'normalize'; it has pooling, normalise"):
        load(base, task="embed", normalize=True)
    with pytest.raises(CheckpointError, match="no trained head for fill"):
        load(base, task="fill")
