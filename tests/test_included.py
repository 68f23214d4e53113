"""The included models (package bothways-models) answer the examples that readers of BERT tutorials know."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bothways
from bothways import pipeline
from bothways.errors import CheckpointError, ModelNotFoundError
from bothways.inference.onnx.record import ExportRecord
from bothways.model.catalogue import INCLUDED, find_model
from bothways.model.checkpoint import load_for_pretraining

if importlib.util.find_spec("bothways_models") is None:
    pytest.skip("the included models are not installed: pip install ./models", allow_module_level=True)

TOWER = (
    "The Eiffel Tower is located in Paris, France. It was designed by the engineer Gustave Eiffel and was built "
    "between 1887 and 1889."
)
APPLE = "Apple CEO Tim Cook announced a new product at their Cupertino headquarters."


@pytest.mark.parametrize("name", INCLUDED)
def test_every_included_model_is_whole_and_was_checked(name):
    directory = find_model(name)
    export = ExportRecord.read(directory)
    onnx_model = export.models["int8"]
    assert onnx_model.rejected is None
    assert onnx_model.agreement is not None
    assert onnx_model.agreement >= 0.9
    assert onnx_model.examples >= 500
    assert (directory / "README.md").stat().st_size > 1000
    assert bothways.load(name).engine.describe().startswith("ONNX Runtime")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I absolutely loved this film!", "POSITIVE"),
        ("This was the worst movie I have ever seen.", "NEGATIVE"),
    ],
)
def test_clear_reviews_are_clear(text, label):
    (found,) = pipeline("sentiment-analysis")(text)
    assert found["label"] == label
    assert found["score"] > 0.9


def test_a_lukewarm_review_has_a_low_score():
    (found,) = pipeline("sentiment-analysis")("It's okay, nothing special.")
    assert found["score"] < 0.9
    assert found["score"] < pipeline("sentiment-analysis")("I absolutely loved this film!")[0]["score"]


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("Elon Musk founded Tesla in California.", [("PER", "Elon Musk"), ("ORG", "Tesla"), ("LOC", "California")]),
        (APPLE, [("ORG", "Apple"), ("PER", "Tim Cook"), ("LOC", "Cupertino")]),
    ],
)
def test_entities_of_the_examples(text, entities):
    found = pipeline("ner", aggregation_strategy="simple")(text)
    assert [(one["entity_group"], one["word"]) for one in found] == entities
    assert all(text[one["start"] : one["end"]] == one["word"] for one in found)


@pytest.mark.parametrize(
    ("question", "passage", "answers"),
    [
        ("Who is the CEO of Apple?", APPLE, {"Tim Cook"}),
        ("Where is the Eiffel Tower located?", TOWER, {"Paris, France", "Paris"}),
        ("Where is it located?", TOWER, {"Paris, France", "Paris"}),
        ("Who designed it?", TOWER, {"Gustave Eiffel", "the engineer Gustave Eiffel"}),
        ("Who designed the Eiffel Tower?", TOWER, {"Gustave Eiffel", "the engineer Gustave Eiffel"}),
        ("When was it built?", TOWER, {"between 1887 and 1889", "1887 and 1889"}),
    ],
)
def test_questions_of_the_examples(question, passage, answers):
    found = pipeline("question-answering")(question=question, context=passage)
    assert found["answer"] in answers
    assert found["answer"] == passage[found["start"] : found["end"]]


def test_a_question_that_the_passage_does_not_answer_is_refused():
    ask = pipeline("question-answering", handle_impossible_answer=True)
    assert ask(question="How much does a ticket cost?", context=TOWER)["answer"] == ""
    assert ask(question="Who designed it?", context=TOWER)["answer"].endswith("Gustave Eiffel")


@pytest.mark.parametrize(
    ("text", "labels", "best"),
    [
        (
            "The government announced new economic policies today.",
            ["politics", "technology", "sports", "entertainment"],
            "politics",
        ),
        ("The striker scored twice in the second half.", ["politics", "technology", "sports", "cooking"], "sports"),
        ("The new phone has a faster chip and a better camera.", ["politics", "technology", "sports"], "technology"),
    ],
)
def test_labels_of_the_examples(text, labels, best):
    found = pipeline("zero-shot-classification")(text, candidate_labels=labels)
    assert found["labels"][0] == best
    assert found["scores"] == sorted(found["scores"], reverse=True)


def test_masked_words_are_sensible():
    found = [one["token_str"] for one in pipeline("fill-mask")("The cat [MASK] on the mat.")]
    assert set(found) & {"sits", "sat", "lies", "lay", "sleeps", "slept"}


def test_the_next_sentence_is_told_from_another():
    follows = pipeline("next-sentence-prediction", top_k=None)
    first = "The cat sat on the mat."
    scores = {
        second: {one["label"]: one["score"] for one in follows((first, second))}["is_next"]
        for second in ("It was a lazy afternoon.", "The stock market crashed.")
    }
    assert scores["It was a lazy afternoon."] > 0.5 > scores["The stock market crashed."]


def test_models_that_share_weights_answer_as_the_base_does():
    """fill-mask and next-sentence are the base in int8; of each the best answers are those of PyTorch in fp32."""
    if importlib.util.find_spec("bothways_base") is None:
        pytest.skip("the base model is not installed: pip install ./models/base")
    base = bothways.load("bothways-base", task="fill", engine="torch", precision="fp32")
    texts = ["The cat [MASK] on the mat.", "Paris is the [MASK] of France.", "She went to the [MASK] to buy bread."]
    served = bothways.load("fill-mask")
    for one, other in zip(served(texts), base(texts), strict=True):
        expected = {guess.token_str: guess.score for guess in other.masks[0]}
        found = {guess.token_str: guess.score for guess in one.masks[0]}
        assert len(set(found) & set(expected)) >= 4
        assert all(abs(found[word] - expected[word]) < 0.05 for word in set(found) & set(expected))


def test_the_base_has_every_weight():
    if importlib.util.find_spec("bothways_base") is None:
        pytest.skip("the base model is not installed: pip install ./models/base")
    import torch

    _, report = load_for_pretraining(find_model("bothways-base"), torch.Generator().manual_seed(0), pairs=True)
    assert report.new == ()
    assert report.left_over == ()


def test_a_copy_without_the_shared_file_says_what_is_missing(tmp_path):
    shutil.copytree(find_model("sentiment"), tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"word_embeddings\.safetensors: cannot be read .*copy both again"):
        bothways.load(tmp_path / "own")
    shutil.copy(find_model("sentiment").parent / "word_embeddings.safetensors", tmp_path)
    assert bothways.load(tmp_path / "own")(["fine"])[0].label == "POSITIVE"
    content = bytearray((tmp_path / "word_embeddings.safetensors").read_bytes())
    content[5000] ^= 1
    (tmp_path / "word_embeddings.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        bothways.load(tmp_path / "own")


def test_the_zero_shot_model_also_judges_pairs():
    assert bothways.load("zero-shot").task.name == "zero_shot"
    judge = bothways.load("zero-shot", task="pairs")
    (found,) = judge([("A man is playing a guitar on stage.", "A person makes music.")])
    assert found.label == "entailment"
    (found,) = judge([("A man is playing a guitar on stage.", "The man is asleep at home.")])
    assert found.label == "contradiction"


def test_included_models_need_neither_pytorch_nor_a_download(tmp_path):
    """In a process that cannot import torch and whose hub is nowhere."""
    code = """
import sys
sys.modules["torch"] = None
import bothways
print(bothways.pipeline("sentiment-analysis")("I absolutely loved this film!")[0]["label"])
print(bothways.pipeline("ner", aggregation_strategy="simple")("Elon Musk founded Tesla.")[0]["word"])
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split("\n")[:2] == ["POSITIVE", "Elon Musk"]


def test_a_directory_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentiment").mkdir()
    assert find_model("sentiment") == Path("sentiment")


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("bothways.model.catalogue._in_package", lambda _: None)
    with pytest.raises(
        ModelNotFoundError, match=r"no model was given for 'ner' .*pip install bothways-models"
    ) as error:
        pipeline("ner")
    assert "\n" not in str(error.value)


def test_scores_do_not_depend_on_the_batch():
    texts = ["Great.", "A long review. " * 60, "Not bad at all!", "It's okay, nothing special."]
    together = bothways.load("sentiment").predict_proba(texts)
    alone = np.concatenate([bothways.load("sentiment").predict_proba([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_an_included_model_is_no_base_to_train(tmp_path):
    rows = [{"text": "a good film", "label": "x"}, {"text": "a bad film", "label": "y"}]
    with pytest.raises(CheckpointError, match=r"no model\.safetensors there; its ONNX models cannot be trained"):
        bothways.finetune("classify", rows, rows, base="sentiment", out=tmp_path / "run")
