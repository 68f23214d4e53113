"""config.json: family defaults, positions, and values that cannot be a model's."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from bothways.errors import CheckpointError
from bothways.model.config import EncoderConfig
from bothways.model.families import FAMILIES

SMALL = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def read(tmp_path: Path, config: Any) -> EncoderConfig:
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    return EncoderConfig.read(tmp_path)[0]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_a_config_leaves_out_is_what_transformers_takes(family):
    theirs = transformers.AutoConfig.for_model(family).to_dict()
    told, left_out = (EncoderConfig.from_json(raw)[0] for raw in (theirs, {"model_type": family}))
    assert left_out == told
    assert EncoderConfig.from_json(told.to_json())[0] == told


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_config_made_in_python_reads_back_as_it_computes(family):
    made = EncoderConfig(family=family, hidden_size=24, num_attention_heads=4, intermediate_size=8)
    if not made.rules.segments:
        made = made.replace(type_vocab_size=0)
    again = EncoderConfig.from_json(made.to_json())[0]
    assert again.count_parameters() == made.count_parameters()
    assert (again.head_dropout, again.hidden_act) == (made.head_dropout, made.hidden_act)


def test_distilbert_may_be_written_with_berts_names(tmp_path):
    config = read(tmp_path, SMALL | {"model_type": "distilbert", "n_layers": 1})
    assert (config.hidden_size, config.num_hidden_layers) == (8, 1)


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("BertForSequenceClassification", "bert"),
        ("BertModel", "bert"),
        ("DistilBertForMaskedLM", "distilbert"),
        ("RobertaForTokenClassification", "roberta"),
        ("MPNetForMaskedLM", "mpnet"),
        ("XLMRobertaModel", "xlm-roberta"),
        ("AlbertForPreTraining", "albert"),
        ("ElectraForPreTraining", "electra"),
    ],
)
def test_without_model_type_the_architecture_names_the_family(architecture, family, tmp_path):
    raw = {key: value for key, value in SMALL.items() if key != "model_type"}
    assert read(tmp_path, raw | {"architectures": [architecture]}).family == family


@pytest.mark.parametrize("architectures", [None, [], ["BertweetThing"], ["GPT2Model"], "BertModel", [7]])
def test_a_config_of_no_known_family_says_what_to_add(architectures, tmp_path):
    raw = {key: value for key, value in SMALL.items() if key != "model_type"} | {"architectures": architectures}
    with pytest.raises(
        CheckpointError, match=r'config.json: model_type is None, expected .*; add "model_type": "bert"'
    ):
        read(tmp_path, raw)


@pytest.mark.parametrize(("pad", "offset"), [(0, 1), (1, 2), (3, 4)])
def test_robertas_positions_begin_behind_the_pad_id(pad, offset, tmp_path):
    config = read(tmp_path, SMALL | {"model_type": "roberta", "pad_token_id": pad})
    assert config.position_offset == offset
    assert config.max_length == 16 - offset
    assert read(tmp_path, SMALL | {"pad_token_id": pad}).position_offset == 0


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_mpnets_positions_begin_at_two_whatever_the_pad_id(pad, tmp_path):
    config = read(tmp_path, SMALL | {"model_type": "mpnet", "pad_token_id": pad})
    assert (config.position_offset, config.max_length, config.type_vocab_size) == (2, 14, 0)
    assert config.to_json()["relative_attention_num_buckets"] == 32


def test_a_missing_pad_id_is_the_familys(tmp_path):
    assert read(tmp_path, SMALL | {"model_type": "xlm-roberta"}).position_offset == 2
    assert read(tmp_path, SMALL | {"pad_token_id": None}).pad_token_id == 0
    with pytest.raises(CheckpointError, match="pad_token_id is None, expected a whole number"):
        read(tmp_path, SMALL | {"model_type": "roberta", "pad_token_id": None})


WHOLE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@pytest.mark.parametrize("key", [*WHOLE, "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, 10**9, 10**40, "12", 12.0, 1e400, True, None, [12], {"a": 12}])
def test_sizes_that_are_no_sizes_are_named(key, value, tmp_path):
    with pytest.raises(CheckpointError, match=rf"config.json: {key} is .*, expected a whole number from 1 to"):
        read(tmp_path, SMALL | {key: value})


@pytest.mark.parametrize("key", ["layer_norm_eps", "hidden_dropout_prob", "initializer_range"])
@pytest.mark.parametrize("value", ["1e-12", -0.1, 11, float("nan"), float("inf"), None, True, [0.1]])
def test_numbers_that_are_no_numbers_are_named(key, value, tmp_path):
    with pytest.raises(CheckpointError, match=rf"config.json: {key} is .*, expected a number from 0 to"):
        read(tmp_path, SMALL | {key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": ["bert"]}, "model_type is \\['bert'\\], expected one of bert"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2', expected one of .*is this the directory of an encoder"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish', expected one of gelu"),
        ({"hidden_act": ["gelu"]}, "hidden_act is \\['gelu'\\], expected one of gelu"),
        ({"hidden_act": None}, "hidden_act is None, expected one of gelu"),
        ({"num_attention_heads": 3}, "hidden_size 8 is not divisible by num_attention_heads 3"),
        ({"pad_token_id": 50}, "pad_token_id is 50, expected less than vocab_size 50"),
        ({"pad_token_id": -1}, "pad_token_id is -1, expected a whole number from 0"),
        ({"type_vocab_size": -2}, "type_vocab_size is -2"),
        ({"model_type": "distilbert", "dim": "8"}, "dim is '8', expected a whole number"),
        ({"model_type": "albert", "num_hidden_groups": 3}, "num_hidden_groups is 3, expected at most num_hid"),
        ({"model_type": "roberta", "pad_token_id": 20}, "max_position_embeddings 16 leaves no room for text"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"model_type": "mpnet", "relative_attention_num_buckets": 64}, "relative_attention_num_buckets is 64, .*32"),
        (
            {"hidden_size": 65536, "num_hidden_layers": 1000, "intermediate_size": 10**6},
            "found sizes of [0-9,]+ parameters, expected at most 20,000,000,000",
        ),
    ],
)  # fmt: skip
def test_impossible_values_are_named(changes, message, tmp_path):
    with pytest.raises(CheckpointError, match=f"config.json: {message}"):
        read(tmp_path, SMALL | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"config.json:1: broken JSON"),
        ("[]", "expected a JSON object, found a list"),
        ('{"vocab_size": ' + "9" * 5000 + "}", "broken JSON"),
        ('{"a": ' + "[" * 200_000, "broken JSON"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 700\n", "a git-lfs pointer.*git lfs pull"),
        (" " * (2**26 + 1), "found 67,108,865 bytes, expected at most 67,108,864"),
    ],
    ids=["empty", "list", "long number", "deep", "pointer", "huge"],
)  # fmt: skip
def test_a_damaged_config_is_named(text, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, text)


def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path):
    assert read(tmp_path, "\ufeff" + json.dumps(SMALL)).hidden_size == 8
