"""Vectors are those that are published for the same weights, and a long text loses nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import bothways
from bothways.data.examples import Example
from bothways.errors import CheckpointError, ModelNotFoundError, OptionError
from bothways.inference.predictor import load
from bothways.model.catalogue import find_model
from bothways.tasks.embed import Embed
from bothways.text.tokenizer import Tokenizer
from tests.tiny import TINY, write_base


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return find_model("minilm-l6")
    except ModelNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_equal_the_published_ones(minilm, shared_data, pooling):
    published = json.loads((shared_data / "reference" / "minilm_l6_v2.json").read_text())[pooling]["vectors"]
    model = load(minilm, task="embed", pooling=pooling, normalize=False, precision="fp32")
    for row, found in zip(published, model([row["text"] for row in published]), strict=True):
        np.testing.assert_allclose(found.vector, row["vector"], atol=3e-3)
        cosine = found.vector @ row["vector"] / np.linalg.norm(found.vector) / np.linalg.norm(row["vector"])
        assert cosine > 0.9999


def test_the_directorys_own_vectors_equal_the_published_ones(minilm, shared_data):
    published = json.loads((shared_data / "reference" / "minilm_l6_v2.json").read_text())["normalized_mean"]["vectors"]
    model = load(minilm, task="embed", precision="fp32")
    assert model.task == Embed(pooling="mean", normalize=True, max_length=256, truncation=True)
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
    with pytest.raises(OptionError, match="truncation is 'longest_first', expected bool"):
        load(base, task="embed", truncation="longest_first")
    with pytest.raises(OptionError, match="normalize is 'yes', expected bool"):
        load(base, task="embed", normalize="yes")
    with pytest.raises(OptionError, match="no setting 'normalise'; choose from pooling, normalize"):
        load(base, task="embed", normalise=True)
    with pytest.raises(CheckpointError, match="no trained head for fill"):
        load(base, task="fill")


# Long texts


@pytest.mark.parametrize("stride", [0, 3, 9])
def test_the_mean_of_a_long_text_counts_every_token_once(stride):
    tokenizer = Tokenizer.packaged("bert-base-uncased")
    task = Embed(max_length=16, stride=stride)
    example = Example((" ".join("abcdefghijklmnopqrstuvw"[n % 23] for n in range(47)),))
    windows = task.encode([example], tokenizer)
    assert len(windows) > 3
    whole = tokenizer.encode(example.texts[0]).ids
    read = np.concatenate([window.ids[window.head_positions] for window in windows])
    assert read.tolist() == whole.tolist()
    rows = [np.stack([window.ids[window.head_positions]] * 2, axis=1).astype(np.float32) for window in windows]
    parts = [task.reduce(row, window) for row, window in zip(rows, windows, strict=True)]
    found = task.decode(example, parts, windows, tokenizer)
    np.testing.assert_allclose(found.vector, whole.mean(), rtol=1e-6)
    assert found.windows == len(windows)


def test_the_mean_of_a_long_text_is_the_mean_of_its_token_vectors(tmp_path):
    base, text = write_base(tmp_path / "base"), " ".join(f"w{number}" for number in range(70))
    (mean,), (tokens,) = (load(base, task="embed", pooling=pooling)([text]) for pooling in ("mean", "none"))
    np.testing.assert_allclose(mean.vector, tokens.vector.mean(0), atol=1e-6)


def test_every_token_is_read_where_most_is_around_it():
    tokenizer = Tokenizer.packaged("bert-base-uncased")
    windows = Embed(max_length=12, stride=4).encode([Example(("a b c d e f g h i j k l m n",))], tokenizer)
    assert [tokenizer.convert_ids_to_tokens(window.ids[window.head_positions]) for window in windows] == [
        ["[CLS]", *"abcdefg"],
        [*"hijklmn", "[SEP]"],
    ]


# Directories of sentence-transformers

LEGACY = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
TEXTS = ["A short text.", "Ein Text " * 40, "NAÏVE Café", "[CLS] a [SEP]"]


def sentence_directory(
    folder: Path, *, modules=("Transformer", "Pooling"), pooling=None, settings=None, **files
) -> Path:
    """A tiny base with what sentence-transformers writes beside it."""
    base = write_base(folder)
    own = "sentence_transformers.models."
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
    listed = [
        {"idx": n, "name": str(n), "path": paths.get(kind, f"{n}_{kind}"), "type": kind if "." in kind else own + kind}
        for n, kind in enumerate(modules)
    ]
    written = {"modules": listed} | files
    for name, content in written.items():
        (base / f"{name}.json").write_text(json.dumps(content))
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {}))
    if settings is not None:
        (base / "sentence_bert_config.json").write_text(json.dumps(settings))
    return base


def reference(directory: Path, texts, pooling: str, length: int, *, normalize: bool, lowercase: bool = False):
    """What sentence-transformers computes, in PyTorch and transformers."""
    from transformers import AutoTokenizer, BertModel

    tokenizer, model = AutoTokenizer.from_pretrained(directory), BertModel.from_pretrained(directory).eval()
    vectors = []
    for text in texts:
        inputs = tokenizer(text.lower() if lowercase else text, truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state[0]
        vector = hidden.mean(0) if pooling == "mean" else hidden[0]
        vectors.append((vector / vector.norm() if normalize else vector).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("form", ["legacy", "alone", "new", "list"])
def test_a_sentence_transformers_directory_is_followed(mode, form, normalize, tmp_path):
    pooling = {
        "legacy": {key: name == mode for name, key in LEGACY.items()} | {"word_embedding_dimension": 32},
        "alone": {LEGACY[mode]: True},
        "new": {"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": True},
        "list": {"pooling_mode": [mode]},
    }[form]
    modules = ("Transformer", "Pooling", *(["Normalize"] if normalize else []))
    base = sentence_directory(tmp_path / "b", modules=modules, pooling=pooling, settings={"max_seq_length": 20})
    model = load(base, task="embed", precision="fp32")
    predictions = model(TEXTS)
    expected = reference(base, TEXTS, mode, 20, normalize=normalize)
    np.testing.assert_allclose(np.stack([one.vector for one in predictions]), expected, atol=1e-5)
    assert [one.windows for one in predictions] == [1] * 4
    assert [one.truncated > 0 for one in predictions] == [False, True, False, False]


def test_classes_of_sentence_transformers_6_are_followed(tmp_path):
    own = "sentence_transformers."
    modules = (
        f"{own}base.modules.transformer.Transformer",
        f"{own}sentence_transformer.modules.pooling.Pooling",
        f"{own}sentence_transformer.modules.normalize.Normalize",
    )
    base = sentence_directory(tmp_path / "b", modules=modules, pooling={"pooling_mode": "cls"})
    rows = json.loads((base / "modules.json").read_text())
    for row, path in zip(rows, ("", "1_Pooling", "2_Normalize"), strict=True):
        row["path"] = path
    (base / "modules.json").write_text(json.dumps(rows))
    (base / "sentence_bert_config.json").write_text(
        '{"transformer_task": "feature-extraction", "processing_kwargs": {}}'
    )
    assert load(base, task="embed").task == Embed("cls", normalize=True, max_length=32, truncation=True)


@pytest.mark.parametrize(
    ("settings", "tokenizer", "length"),
    [
        ({"max_seq_length": 12}, 20, 12),
        ({"max_seq_length": None}, 20, 20),
        ({}, 1e30, 32),
        ({"max_seq_length": 512}, None, 32),
        (None, None, 32),
    ],
)
def test_the_length_is_that_of_the_directory_and_at_most_the_models(settings, tokenizer, length, tmp_path):
    base = sentence_directory(tmp_path / "b", settings=settings)
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": tokenizer}))
    assert load(base, task="embed").task.max_length == length


def test_a_model_of_long_texts_is_not_cut_at_512(tmp_path):
    base = write_base(tmp_path / "b", TINY.replace(max_position_embeddings=900))
    (base / "sentence_bert_config.json").write_text('{"max_seq_length": 800}')
    assert load(base, task="embed").task.max_length == 800


def test_texts_are_lowercased_if_the_directory_says_so(tmp_path):
    base = sentence_directory(tmp_path / "b", settings={"max_seq_length": 20, "do_lower_case": True})
    Tokenizer.packaged("bert-base-cased").save(base)
    (base / "config.json").write_text(
        json.dumps(json.loads((base / "config.json").read_text()) | {"vocab_size": 30522})
    )
    model = Tokenizer.from_directory(base)
    text = "The NAÏVE Café in İzmir"
    plain = Tokenizer.packaged("bert-base-cased")
    assert model.encode(text).ids.tolist() == plain.encode(text.lower()).ids.tolist()
    assert model.encode(text).offsets[-2].tolist()[1] == len(text)
    model.save(tmp_path / "saved")
    assert Tokenizer.from_directory(tmp_path / "saved").fingerprint() == model.fingerprint()


def test_lowercasing_comes_before_the_rules_of_other_tokenizers(tmp_path):
    Tokenizer.packaged("roberta-base").save(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    found, plain = Tokenizer.from_directory(tmp_path), Tokenizer.packaged("roberta-base")
    assert found.encode("The CAT").ids.tolist() == plain.encode("the cat").ids.tolist()


def test_settings_of_the_call_come_before_those_of_the_directory(tmp_path):
    base = sentence_directory(
        tmp_path / "b", modules=("Transformer", "Pooling", "Normalize"), pooling={"pooling_mode": "cls"}
    )
    changed = load(base, task="embed", pooling="mean", normalize=False, truncation=False, max_length=16).task
    assert changed == Embed(max_length=16)
    for pooling in ("none", "pooler"):  # what the encoder itself gives
        assert load(base, task="embed", pooling=pooling).task == Embed(pooling, max_length=32)


def test_an_encoder_in_a_folder_of_its_own_is_followed(tmp_path):
    root = tmp_path / "model"
    base = write_base(root / "0_Transformer")
    types = ["Transformer", "Pooling"]
    paths = ["0_Transformer", "1_Pooling"]
    rows = [
        {"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in zip(types, paths, strict=True)
    ]
    (root / "modules.json").write_text(json.dumps(rows))
    (root / "1_Pooling").mkdir()
    (root / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (base / "sentence_bert_config.json").write_text('{"max_seq_length": 10}')
    with pytest.raises(CheckpointError, match=r"no config.json there; the encoder is in .*0_Transformer, give that"):
        load(root, task="embed")
    assert load(base, task="embed").task == Embed("cls", max_length=10, truncation=True)


DENSE = ("Transformer", "Pooling", "Dense")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modules": DENSE}, "modules.json: has the module Dense, bothways computes .*remove Dense"),
        ({"modules": ("Transformer", "Pooling", "LayerNorm")}, "has the module LayerNorm"),
        ({"modules": ("Transformer", "WeightedLayerPooling", "Pooling")}, "has the module WeightedLayerPooling"),
        ({"modules": ("Transformer", "Pooling", "custom_st.Normalize")}, r"has the module custom_st.Normalize"),
        ({"modules": ("Transformer",)}, "has the modules Transformer, expected Transformer, Pooling, Normalize"),
        ({"modules": ("Transformer", "Normalize", "Pooling")}, "expected Transformer, Pooling, Normalize"),
        ({"pooling": {"pooling_mode_max_tokens": True}}, "1_Pooling/config.json: pooling is max, bothways computes"),
        ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}, "pooling is cls and mean"),
        ({"pooling": {"pooling_mode_lasttoken": True}}, "pooling is lasttoken"),
        ({"pooling": {"pooling_mode": "weightedmean"}}, "pooling is weightedmean"),
        ({"pooling": {"pooling_mode": ["mean", "max"]}}, "pooling is mean and max"),
        ({"pooling": {"pooling_mode": 7}}, "pooling is 7"),
        ({"settings": {"max_seq_length": "32"}}, "max_seq_length is '32', expected a number"),
        ({"settings": {"max_seq_length": 0}}, "max_seq_length is 0, expected a number of tokens from 3"),
        ({"settings": {"do_lower_case": "yes"}}, "do_lower_case is 'yes', expected true or false"),
        ({"settings": {"transformer_task": "fill-mask"}}, "was made for fill-mask, expected feature-extraction"),
        ({"settings": {"processing_kwargs": {"text": {"max_length": 5}}}}, "processing_kwargs is"),
        (
            {"config_sentence_transformers": {"default_prompt_name": "q", "prompts": {"q": "query: "}}},
            "default_prompt_name is 'q', so texts get a prompt",
        ),
        ({"config_sentence_transformers": {"truncate_dim": 64}}, "truncate_dim is 64"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_by_name(given, message, tmp_path):
    base = sentence_directory(tmp_path / "b", **given)
    with pytest.raises(CheckpointError, match=message):
        load(base, task="embed")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "expected a JSON list of modules"),
        ("[]", "expected a JSON list of modules"),
        ("[1]", "expected a JSON list of modules"),
        ("[", "broken JSON"),
        ('[{"type": "sentence_transformers.models.Pooling", "path": "../../x"}]', "path of Pooling is '../../x'"),
    ],
)
def test_damaged_modules_are_named(content, message, tmp_path):
    base = sentence_directory(tmp_path / "b")
    (base / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load(base, task="embed")


def test_prompts_that_nobody_uses_by_default_change_nothing(tmp_path):
    prompts = {"prompts": {"query": "query: ", "": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    assert load(sentence_directory(tmp_path / "b", config_sentence_transformers=prompts), task="embed")(["a"])


def test_another_pooling_may_be_chosen_where_the_directorys_cannot_be_computed(tmp_path):
    base = sentence_directory(tmp_path / "b", pooling={"pooling_mode": "max"})
    assert load(base, task="embed", pooling="mean").task.pooling == "mean"


def test_sentence_similarity_follows_the_directory(tmp_path):
    base = sentence_directory(tmp_path / "b", pooling={"pooling_mode": "cls"}, settings={"max_seq_length": 20})
    found = bothways.pipeline("sentence-similarity", base, precision="fp32")(
        {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    )
    vectors = reference(base, TEXTS, "cls", 20, normalize=True)
    np.testing.assert_allclose(found, vectors[1:] @ vectors[0], atol=1e-5)
