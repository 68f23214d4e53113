"""The labels that a config.json of transformers names."""

import pytest

from bothways.errors import CheckpointError
from bothways.tasks.task import labels_of_config


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"id2label": {"1": "pos", "0": "neg"}}, ("neg", "pos")),
        ({"id2label": ["neg", "pos"]}, ("neg", "pos")),
        ({"id2label": {str(n): n for n in range(12)}}, tuple(map(str, range(12)))),
        ({}, ("LABEL_0", "LABEL_1")),
        ({"id2label": None, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"id2label": {}, "_num_labels": 1}, ("LABEL_0",)),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 2, "_num_labels": 5}, ("a", "b")),
    ],
)  # fmt: skip
def test_labels_are_read_in_the_order_of_their_numbers(config, labels):
    assert labels_of_config(config) == labels


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": "neg,pos"}, "id2label is 'neg,pos', expected names by their numbers"),
        ({"id2label": 2}, "id2label is 2, expected names"),
        ({"id2label": {"LABEL_0": "neg", "LABEL_1": "pos"}}, r"has the keys \['LABEL_0', 'LABEL_1'\], expected 0 to 1"),
        ({"id2label": {"1": "neg", "2": "pos"}}, r"has the keys \['1', '2'\], expected 0 to 1, each once"),
        ({"id2label": {"0": "neg", "2": "pos"}}, "expected 0 to 1"),
        ({"id2label": {"0": "neg", "-1": "pos"}}, "expected 0 to 1"),
        ({"id2label": {"0": "neg", "1.0": "pos"}}, "expected 0 to 1"),
        ({"id2label": {"0": "neg", "1": None}}, "has the name None, expected a text"),
        ({"id2label": {"0": "neg", "1": ["pos"]}}, r"has the name \['pos'\], expected a text"),
        ({"id2label": {"0": "pos", "1": "pos"}}, "names two outputs 'pos'"),
        ({"id2label": {"0": "neg", "1": "pos"}, "num_labels": 5}, "id2label names 2 labels, num_labels is 5"),
        ({"num_labels": 0}, "num_labels is 0, expected a whole number from 1"),
        ({"num_labels": "5"}, "num_labels is '5'"),
        ({"_num_labels": True}, "num_labels is True"),
        ({"num_labels": 10**12}, "num_labels is 1000000000000"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_read_are_named(config, message):
    with pytest.raises(CheckpointError, match=f"config.json: (id2label .*)?{message}"):
        labels_of_config(config)
