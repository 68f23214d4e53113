"""pipeline() against that of `transformers` where it still has the task, on tiny random models; and what it refuses."""

import inspect
import io
import json
import math
import re
from dataclasses import fields
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import transformers
from transformers.pipelines.text_classification import ClassificationFunction
from transformers.pipelines.token_classification import AggregationStrategy

from bothways import pipeline
from bothways.errors import DataError, ModelNotFoundError, OptionError
from bothways.inference.predictor import load
from bothways.pipelines import _HINTS, _OLD, PIPELINES
from bothways.tasks import TASKS
from bothways.text.tokenizer import Tokenizer
from tests.tiny import TINY, write_base

TEXTS = [
    "Elon Musk founded Tesla in California .",
    "a short one",
    "Nothing to see here, unaffable people of Geneva !",
]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SHAPE = {
    "hidden_size": TINY.hidden_size,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
LIKE = {"Bert": {}, "Roberta": {"vocab_size": 50_265, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}}
VOCABULARIES = {"Bert": "bert-base-uncased", "Roberta": "roberta-base"}


def made(directory: Path, name: str, labels: list[str] | None = None) -> Path:
    """A random model of `transformers` with its family's vocabulary, large weights so that its answers differ."""
    family = "Roberta" if name.startswith("Roberta") else "Bert"
    config = getattr(transformers, f"{family}Config")(**SHAPE, **LIKE[family])
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: place for place, label in enumerate(labels)}
    torch.manual_seed(5)
    model = getattr(transformers, name)(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.15)
    model.tie_weights()
    Tokenizer.packaged(VOCABULARIES[family]).save(directory)
    if hasattr(model, "classifier"):  # else a random model gives one label to everything
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        logits = [model.eval()(**tokenizer(text, return_tensors="pt")).logits.detach() for text in TEXTS]
        model.classifier.bias.data -= torch.cat([one.reshape(-1, one.shape[-1]) for one in logits]).mean(0)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "classify": made(folder / "c", "BertForSequenceClassification", ["bad", "fair", "good"]),
        "nli": made(folder / "n", "BertForSequenceClassification", ["entailment", "neutral", "contradiction"]),
        "tag": made(folder / "t", "BertForTokenClassification", TAGS),
        "answer": made(folder / "q", "BertForQuestionAnswering"),
        "fill": made(folder / "m", "BertForMaskedLM"),
        "next": made(folder / "p", "BertForPreTraining"),
        "embed": made(folder / "e", "BertModel"),
        "bytes": made(folder / "r", "RobertaForMaskedLM"),
        "rerank": made(folder / "x", "BertForSequenceClassification", ["LABEL_0"]),
    }


def same(ours, expected, tolerance=1e-4):
    """Equal up to the rounding of scores."""
    if isinstance(expected, dict):
        assert set(ours) == set(expected)
        for key, value in expected.items():
            same(ours[key], value)
    elif isinstance(expected, list | tuple):
        assert len(ours) == len(expected)
        for one, other in zip(ours, expected, strict=True):
            same(one, other)
    elif isinstance(expected, float | np.floating):
        assert ours == pytest.approx(float(expected), abs=tolerance)
    else:
        assert ours == expected


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": None}, {"top_k": 2}, {"function_to_apply": "sigmoid"}])
@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS, {"text": "one text", "text_pair": "another"}])
def test_text_classification(models, options, inputs):
    theirs = transformers.pipeline("text-classification", str(models["classify"]))
    task = {"model": models["classify"], "precision": "fp32"}
    if isinstance(inputs, dict):
        task = {"model": load(models["classify"], task="pairs", precision="fp32")}
    same(pipeline("sentiment-analysis", **task)(inputs, **options), theirs(inputs, **options))


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS])
def test_token_classification(models, strategy, inputs):
    theirs = transformers.pipeline("ner", str(models["tag"]), aggregation_strategy=strategy)(inputs)
    ours = pipeline("ner", models["tag"], aggregation_strategy=strategy, precision="fp32")(inputs)
    ours, theirs = (one if isinstance(inputs, list) else [one] for one in (ours, theirs))
    texts = inputs if isinstance(inputs, list) else [inputs]
    for text, found, expected in zip(texts, ours, theirs, strict=True):
        for entity in found:
            if strategy != "none":
                assert entity["word"] == text[entity["start"] : entity["end"]]
                entity["word"] = entity["word"].lower()
        for entity in expected:  # theirs is put together from lower-cased tokens
            entity["score"] = float(entity["score"])
            if strategy != "none":
                entity["word"] = text[entity["start"] : entity["end"]].lower()
        same(found, expected)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS])
def test_zero_shot_classification(models, multi_label, inputs):
    options = {"candidate_labels": ["people", "sport", "a long label of words"], "multi_label": multi_label}
    theirs = transformers.pipeline("zero-shot-classification", str(models["nli"]))(inputs, **options)
    same(pipeline("zero-shot-classification", models["nli"], precision="fp32")(inputs, **options), theirs)


def test_one_label_alone_is_checked_by_itself(models):
    theirs = transformers.pipeline("zero-shot-classification", str(models["nli"]))(TEXTS, candidate_labels=["sport"])
    same(
        pipeline("zero-shot-classification", models["nli"], precision="fp32")(TEXTS, candidate_labels=["sport"]), theirs
    )


def test_candidate_labels_need_no_name_and_nothing_else_may_lack_it(models):
    zero = pipeline("zero-shot-classification", models["nli"])
    same(zero(TEXTS[0], ["x", "y"]), zero(TEXTS[0], candidate_labels="x, y"))
    with pytest.raises(OptionError, match="token-classification got 2 arguments without a name"):
        pipeline("ner", models["tag"])(TEXTS[0], TEXTS[1])


def test_a_label_given_twice_is_an_error_of_its_text_alone(models):
    zero = pipeline("zero-shot-classification", models["nli"])
    twice, once = zero(TEXTS[:2], candidate_labels=[["x", "x"], ["x", "y"]])
    assert (twice["labels"], twice["error"]) == ([], "a label is given twice")
    assert sorted(once["labels"]) == ["x", "y"]


def test_zero_shot_classes_are_found_by_name_and_each_text_may_have_its_own(models):
    zero = pipeline("zero-shot-classification", models["nli"], precision="fp32")
    apart = [zero(text, candidate_labels=labels) for text, labels in zip(TEXTS[:2], (["x", "y"], ["z"]), strict=True)]
    same(zero(TEXTS[:2], candidate_labels=[["x", "y"], ["z"]]), apart)
    with pytest.raises(Exception, match="zero-shot needs an NLI model"):
        pipeline("zero-shot-classification", models["classify"])


@pytest.mark.parametrize(
    "inputs", ["Paris is the [MASK] of France.", "[MASK] is the [MASK] of it", ["a [MASK]", "the [MASK] b"]]
)
@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"targets": ["capital", "river"]}])
def test_fill_mask(models, inputs, options):
    theirs = transformers.pipeline("fill-mask", str(models["fill"]))(inputs, **options)
    ours = pipeline("fill-mask", models["fill"], precision="fp32")(inputs, **options)

    def without_sequence(found):
        if isinstance(found, dict):
            return {key: value for key, value in found.items() if key != "sequence"}
        return [without_sequence(one) for one in found]

    same(without_sequence(ours), without_sequence(theirs))


@pytest.mark.parametrize("options", [{"top_k": 40}, {"targets": [" capital", "river", "É"]}])
def test_fill_mask_of_bytes_spells_guesses_as_they_stand_in_the_text(models, options):
    inputs = "Paris is the <mask> of é France."
    theirs = transformers.pipeline("fill-mask", str(models["bytes"]))(inputs, **options)
    ours = pipeline("fill-mask", models["bytes"], precision="fp32")(inputs, **options)
    same(ours, theirs)


def test_of_a_target_of_several_tokens_the_first_is_used_with_a_note(models, caplog):
    fill = pipeline("fill-mask", models["fill"], precision="fp32")
    same(fill("the [MASK]", targets=["River"]), fill("the [MASK]", targets="river"))
    assert not notes(caplog)
    found = fill("the [MASK]", targets=["unaffable", "river"])
    assert notes(caplog) == ["the target 'unaffable' is several tokens; its first, 'una', is used"]
    same(
        [{**one, "sequence": 0} for one in found],
        [
            {**one, "sequence": 0}
            for one in transformers.pipeline("fill-mask", str(models["fill"]))(
                "the [MASK]", targets=["unaffable", "river"]
            )
        ],
    )
    fill("the [MASK]", targets=["unaffable"])
    assert sum("several tokens" in line for line in caplog.messages) == 1


def test_a_guess_that_continues_a_word_is_joined_to_it(models):
    (guess,) = pipeline("fill-mask", models["fill"])("They were walk [MASK] home", targets="##ing")
    assert (guess["token_str"], guess["sequence"]) == ("##ing", "They were walking home")


def test_the_filled_text_keeps_all_but_the_mask(models):
    (first, *_) = pipeline("fill-mask", models["fill"])("PARIS is  the [MASK], é.", targets="river")
    assert first["sequence"] == "PARIS is  the river, é."


def test_feature_extraction(models):
    theirs = transformers.pipeline("feature-extraction", str(models["embed"]))
    ours = pipeline("feature-extraction", models["embed"], precision="fp32")
    np.testing.assert_allclose(ours(TEXTS[0]), theirs(TEXTS[0]), atol=1e-4)
    for one, other in zip(ours(TEXTS), theirs(TEXTS), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_next_sentence_prediction_is_that_of_the_checkpoint(models):
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[0])]
    model = transformers.BertForNextSentencePrediction.from_pretrained(models["next"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["next"])
    ours = pipeline("next-sentence-prediction", models["next"], precision="fp32")
    for pair, found in zip(pairs, ours(pairs), strict=True):
        with torch.inference_mode():
            shares = model(**tokenizer(*pair, return_tensors="pt")).logits.softmax(-1)[0]
        assert found["label"] == ("is_next", "not_next")[int(shares.argmax())]
        assert found["score"] == pytest.approx(float(shares.max()), abs=1e-4)
    same(ours(pairs[0]), ours(pairs)[0])


def test_sentence_similarity_is_the_cosine(models):
    similar = pipeline("sentence-similarity", models["embed"], precision="fp32")
    scores = similar({"source_sentence": TEXTS[0], "sentences": [TEXTS[0], TEXTS[1]]})
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores[1] < 1 - 1e-5


def test_question_answering_is_what_transformers_4_computed(models):
    """softmax over passage and [CLS], start times end, no longer than max_answer_len tokens."""
    question, context = "Who founded Tesla?", "Elon Musk founded Tesla in California, and it grew unaffably."
    model = transformers.BertForQuestionAnswering.from_pretrained(models["answer"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["answer"])
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        output = model(**encoded)
    passage = [place for place, sequence in enumerate(encoded.sequence_ids()) if sequence == 1]
    read = [0, *passage]
    start, end = (logits[0, read].softmax(-1).numpy() for logits in (output.start_logits, output.end_logits))
    best = max(
        (start[i] * end[j], offsets[read[i]][0], offsets[read[j]][1])
        for i in range(1, len(read))
        for j in range(i, min(len(read), i + 15))
    )
    ask = pipeline("question-answering", models["answer"], precision="fp32", align_to_words=False)
    found = ask(question=question, context=context)
    assert set(found) == {"answer", "score", "start", "end"}
    assert (found["start"], found["end"]) == best[1:]
    assert found["score"] == pytest.approx(float(best[0]), rel=1e-3)
    assert found["answer"] == context[found["start"] : found["end"]]
    same(ask({"question": question, "context": context}), found)
    same(ask([{"question": question, "context": context}]), found)
    same(ask(question, context), found)
    same(ask(question=[question], context=context), found)
    same(ask([{"question": question, "context": context, "id": 7}] * 2), [found, found])
    same(ask({"question": question, "context": context}, {"question": question, "context": context}), [found] * 2)
    same(ask(question=[question, "Where?"], context=context)[0], found)
    several = ask(question=question, context=context, top_k=3)
    same(several[0], found)
    assert len(several) == 3


def test_no_answer_is_given_only_where_asked_for(models):
    ask = pipeline("question-answering", models["answer"])
    inputs = {"question": "Who?", "context": "Elon Musk founded Tesla in California."}
    assert all(one["answer"] for one in ask(inputs, top_k=50))
    assert any(one["answer"] == "" for one in ask(inputs, top_k=200, handle_impossible_answer=True))


@pytest.mark.parametrize("name", ["classify", "tag", "answer", "fill", "nli", "embed"])
def test_streams_give_what_lists_give_and_read_no_more_than_they_need(models, name):
    task = {
        "classify": "text-classification",
        "tag": "ner",
        "answer": "question-answering",
        "fill": "fill-mask",
        "nli": "zero-shot-classification",
        "embed": "feature-extraction",
    }[name]
    options = {"candidate_labels": ["a", "b"]} if name == "nli" else {}
    texts = [f"{text} [MASK]" for text in TEXTS]
    inputs = [{"question": "who?", "context": text} for text in texts] if name == "answer" else texts
    pipe = pipeline(task, models[name], **options)
    stream = pipe(one for one in inputs)
    assert not isinstance(stream, list)
    same(list(stream), pipe(inputs), 1e-2)


HOSTILE = ["", "   ", "👩‍👩‍👧", "x" * 100_000, "שלום עולם", "a\0b", "\ud800", "word " * 3_000]


@pytest.mark.parametrize("name", ["classify", "tag", "answer", "fill", "nli", "embed", "next"])
def test_no_text_stops_the_others(models, name):
    task = {"nli": "zero_shot", "embed": "embed", "next": "next_sentence"}.get(name)
    settings = {"labels": ("a", "b")} if name == "nli" else {}
    model = load(models[name], task=task, **settings)
    texts = [f"{text} [MASK]" if text.strip() and name == "fill" else text for text in HOSTILE]
    inputs = [("who?", text) for text in texts] if name in ("answer", "next") else texts
    found = model(inputs)
    assert len(found) == len(HOSTILE)
    errors = [one.error for one in found]
    assert errors[2:] == [None] * 6
    if name != "next":  # of a pair, one text may be empty
        assert all("empty" in error for error in errors[:2])
    assert found[-1].windows > 20
    assert found[-1].truncated == 0
    for one in found:
        written = json.loads(json.dumps(one.as_json(all_scores=True)))
        assert {"windows", "truncated"} <= set(written)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("ner", {"aggregation_strategy": "best"}, "expected one of none, simple"),
        ("text-classification", {"function_to_apply": "relu"}, "expected one of softmax"),
        ("question-answering", {"top_k": 0}, "top_k is 0, expected at least 1"),
        ("question-answering", {"max_answer_len": 0}, "max_answer_len is 0, expected at least 1"),
        ("fill-mask", {"top_k": 0}, "top_k is 0, expected at least 1, or None for all"),
        ("translation", {}, "no pipeline 'translation'"),
        ("ner", {"device": "graphics"}, "device is 'graphics', expected 'cpu' or -1, or a GPU such as 0 or 'cuda:0'"),
        ("ner", {"device": True}, "device is True, expected"),
        ("ner", {"device": -2}, "device is -2, expected"),
        ("ner", {"tokenizer": "x"}, "takes no 'tokenizer' .a model's own"),
        ("ner", {"ignore_labels": "O"}, "expected a list of labels"),
        ("text-classification", {"max_length": 129}, "found windows of 129 tokens, expected at most the model's 128"),
        ("text-classification", {"max_length": "long"}, "max_length is 'long', expected a number of tokens"),
        ("question-answering", {"max_seq_len": 500}, "found windows of 500 tokens"),
    ],
)
def test_what_is_not_supported_is_refused(models, task, options, message):
    model = models[{"ner": "tag", "question-answering": "answer", "fill-mask": "fill"}.get(task, "classify")]
    with pytest.raises(OptionError, match=message):
        pipeline(task, model, **options)


def test_a_model_of_another_task_is_refused(models):
    with pytest.raises(OptionError, match="loaded for the task answer, expected tag"):
        pipeline("ner", load(models["answer"]))


def test_the_processor_may_be_named_as_in_torch(models):
    pipeline("ner", models["tag"], device=torch.device("cpu"))


def test_shorter_windows_share_less_where_nobody_says_how_much(models):
    (found,) = pipeline("text-classification", models["classify"], max_length=20)("word " * 100)
    assert found["label"]
    (found,) = pipeline("text-classification", models["classify"], max_length=20, truncation=True)("word " * 100)
    assert (found["label"] is not None, found.windows, found.truncated) == (True, 1, 82)
    answer = pipeline("question-answering", models["answer"], max_seq_len=20)(question="who?", context="word " * 100)
    assert answer.windows > 5


def test_a_missing_model_is_said(monkeypatch):
    monkeypatch.setattr("bothways.model.catalogue._in_package", lambda _: None)
    with pytest.raises(ModelNotFoundError, match=r"no model was given for 'ner' .* pip install bothways-models"):
        pipeline("ner")


def test_an_untrained_head_does_not_answer(tmp_path):
    with pytest.raises(Exception, match="no trained head"):
        pipeline("ner", write_base(tmp_path / "base"))


LONG = "word " * 3_000
CASES_BY_PIPELINE = {
    "text-classification": ("classify", {}, [LONG, "", "a"]),
    "token-classification": ("tag", {}, [LONG, "", "a"]),
    "question-answering": ("answer", {}, [{"question": "who?", "context": text} for text in (LONG, "", "a")]),
    "zero-shot-classification": ("nli", {"candidate_labels": ["x", "y"]}, [LONG, "", "a"]),
    "fill-mask": ("fill", {}, [f"{LONG} [MASK]", "no mask", "[MASK]"]),
    "feature-extraction": ("embed", {}, [LONG, "", "a"]),
    "next-sentence-prediction": ("next", {}, [("who?", LONG), ("", " "), ("a", "b")]),
    "sentence-similarity": (
        "embed",
        {},
        [{"source_sentence": text, "sentences": [text, "b"]} for text in (LONG, "", "a")],
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_results_say_how_much_was_read_and_why_nothing_was(models, name):
    model, options, inputs = CASES_BY_PIPELINE[name]
    long, empty, short = pipeline(name, models[model])(inputs, **options)
    assert (long.windows > 20, long.truncated, long.error) == (True, 0, None)
    assert "empty" in empty.error or "no mask" in empty.error
    assert (short.windows, short.error) == (1, None)


def test_an_empty_sentence_has_no_cosine_and_the_others_have(models):
    similar = pipeline("sentence-similarity", models["embed"])
    found = similar({"source_sentence": "a", "sentences": ["", "b"]})
    assert found[0] is None
    assert found[1] is not None
    assert found.error == "the text is empty"
    with pytest.raises(OptionError, match=r"expected \{.source_sentence"):
        similar({"source_sentence": "a", "sentences": "b c"})


PAGE = (Path(__file__).parents[1] / "docs" / "pipelines.md").read_text(encoding="utf-8")


def table(title: str) -> list[tuple[str, str]]:
    """(names, state) of each row of the table below a heading of the page."""
    (section,) = [one for one in PAGE.split("\n## ") if title in one.partition("\n")[0]]
    return re.findall(r"^\| (`.+?) \| (.+) \|$", section, re.MULTILINE)


def names_of(rows: list[tuple[str, str]]) -> set[str]:
    return {one for names, _ in rows for one in re.findall(r"`(\w+)`", names)}


@pytest.mark.parametrize(
    "name", [one for one in PIPELINES if one not in ("next-sentence-prediction", "sentence-similarity")]
)
def test_the_table_in_the_docs_lists_every_argument(name):
    rows = table(name)
    refused = [row for row in rows if row[1].startswith("an error")]
    old = [row for row in rows if row[1].startswith("accepted with a note")]
    assert names_of(rows) - names_of(refused) - names_of(old) == set(PIPELINES[name].options)
    assert names_of(old) == {option for option, (new, _) in _OLD.items() if new in PIPELINES[name].options} - (
        {"topk", "return_all_scores"} - names_of(old)
    )
    for option in names_of(refused):
        with pytest.raises(OptionError, match=f"takes no '{option}'"):
            pipeline(name, "anywhere", **{option: "x"})


def test_the_docs_list_what_is_accepted_and_refused_everywhere():
    rows = table("Arguments of every pipeline")
    accepted = names_of([row for row in rows if row[1].startswith("accepted with a note")])
    assert accepted == {*_HINTS, "tokenizer", "config"}
    for option in names_of([row for row in rows if row[1].startswith("an error")]) | {"tokenizer", "config"}:
        with pytest.raises(OptionError, match=f"takes no '{option}'"):
            pipeline("ner", "anywhere", **{option: "x"})
    parameters = set(inspect.signature(pipeline).parameters) - {"task", "options"}
    assert parameters == names_of([row for row in rows if not row[1].startswith("an error")]) - accepted


def test_the_docs_name_settings_and_options_that_there_are():
    (section,) = [one for one in PAGE.split("\n## ") if one.startswith("Names of settings")]
    rows = re.findall(r"^\| `(\w+)` \((\w+)\) \| `(\w+)` \|", section, re.MULTILINE)
    assert len(rows) == 17
    for ours, task, theirs in rows:
        assert ours in {item.name for item in fields(TASKS[task])}
        assert any(theirs in kind.options for kind in PIPELINES.values() if kind.task == task)
    assert all(f"`{option}`" in PAGE for kind in PIPELINES.values() for option in kind.options)


# Parity with transformers where texts, options and models are less tame.

RAW = ["Elon Musk, who founded Tesla, isn't in California.", "(Geneva!) U.S.-based; half-time", "a"]


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": None}, {"top_k": 2}])
@pytest.mark.parametrize("where", ["pipeline", "call"])
@pytest.mark.parametrize("inputs", [RAW[0], RAW, {"text": RAW[0], "text_pair": RAW[1]}])
@pytest.mark.parametrize("name", ["classify", "rerank"])
def test_classes_have_the_shape_and_the_scores_of_transformers(models, name, options, where, inputs):
    """One output gives a sigmoid; a classifier of transformers reads texts and pairs."""
    first, later = (options, {}) if where == "pipeline" else ({}, options)
    theirs = transformers.pipeline("text-classification", str(models[name]), **first)(inputs, **later)
    same(pipeline("text-classification", models[name], precision="fp32", **first)(inputs, **later), theirs)


def test_texts_and_pairs_may_be_mixed_for_a_checkpoint_of_transformers(models):
    inputs = [{"text": "a", "text_pair": "b"}, "a", {"text": "a"}, {"text": "a", "text_pair": None}]
    ours = pipeline("text-classification", models["classify"], precision="fp32")
    theirs = transformers.pipeline("text-classification", str(models["classify"]))
    same(ours(inputs), [theirs(inputs[0]), *theirs(["a", "a", "a"])])
    pairs = pipeline("text-classification", load(models["classify"], task="pairs", precision="fp32"))
    same(pairs(inputs), ours(inputs))
    with pytest.raises(DataError, match=r"input 0 \(from 0\): found \['a', 'b'\], expected a text"):
        ours([["a", "b"]])


def test_one_output_trained_for_a_number_stays_a_number(models, tmp_path):
    for path in models["rerank"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"problem_type": "regression"}))
    theirs = transformers.pipeline("text-classification", str(tmp_path))(RAW)
    same(pipeline("text-classification", tmp_path, precision="fp32")(RAW), theirs)
    assert load(tmp_path)(["a"])[0].as_json().keys() == {"score", "windows", "truncated"}


@pytest.mark.parametrize("function", ["softmax", "SIGMOID", "none", *ClassificationFunction])
@pytest.mark.parametrize("name", ["classify", "rerank"])
def test_a_function_is_a_word_or_the_enum_of_transformers(models, name, function):
    theirs = transformers.pipeline("text-classification", str(models[name]), function_to_apply=function)(RAW)
    same(pipeline("text-classification", models[name], precision="fp32", function_to_apply=function)(RAW), theirs)


@pytest.mark.parametrize("truncation", [True, "longest_first", "only_first"])
def test_truncation_reads_the_first_window_as_in_transformers(models, truncation):
    text, options = "unaffable words of a long text " * 60, {"truncation": truncation, "max_length": 24}
    theirs = transformers.pipeline("text-classification", str(models["classify"]))(text, **options)
    ours = pipeline("text-classification", models["classify"], precision="fp32")
    same(ours(text, **options), theirs)
    for whole in (False, "do_not_truncate"):
        assert ours(text, truncation=whole, max_length=24).truncated == 0
    with pytest.raises(OptionError, match="truncation is 'yes', expected True, False or one of longest_first"):
        ours(text, truncation="yes")


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max", *AggregationStrategy])
def test_entities_of_words_with_punctuation_attached(models, strategy):
    """transformers' words are those of BERT's tokenizer, so only strategies of tokens give the same there."""
    ours = pipeline("ner", models["tag"], aggregation_strategy=strategy, precision="fp32")(RAW)
    if str(getattr(strategy, "value", strategy)) in ("none", "simple"):
        theirs = transformers.pipeline("ner", str(models["tag"]), aggregation_strategy=strategy)(RAW)
        for found, expected in zip(ours, theirs, strict=True):
            for one, other in zip(found, expected, strict=True):
                same(one | {"word": ""}, other | {"word": "", "score": float(other["score"])})
    else:
        for text, entities in zip(RAW, ours, strict=True):
            assert all(one["word"] == text[one["start"] : one["end"]] for one in entities)


@pytest.mark.parametrize("ignored", [[], ["O", "B-PER"], {"O"}, np.array(["O", "I-LOC"])])
def test_ignored_labels_are_those_of_transformers(models, ignored):
    theirs = transformers.pipeline("ner", str(models["tag"]), ignore_labels=list(ignored))(RAW)
    ours = pipeline("ner", models["tag"], precision="fp32", ignore_labels=ignored)(RAW)
    for found, expected in zip(ours, theirs, strict=True):
        same(found, [other | {"score": float(other["score"])} for other in expected])


def test_without_ignored_labels_what_is_no_entity_is_grouped_too(models):
    options = {"ignore_labels": [], "aggregation_strategy": "simple"}
    (found,) = pipeline("ner", models["tag"], precision="fp32", **options)(RAW[:1])
    (theirs,) = transformers.pipeline("ner", str(models["tag"]), **options)(RAW[:1])
    names = [(one["entity_group"], one["start"], one["end"]) for one in theirs]
    assert {"O", "LOC"} <= {name for name, *_ in names}
    assert [(one["entity_group"], one["start"], one["end"]) for one in found] == names


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("align", [True, False])
def test_answers_have_the_shape_of_transformers_4(models, top_k, align):
    """A dict for one answer, also in a list of one and where top_k is more; else a list."""
    options = {"top_k": top_k, "align_to_words": align, "max_answer_len": 4}
    ask = pipeline("question-answering", models["answer"], precision="fp32", **options)
    one = {"question": "Who?", "context": "Elon Musk founded Tesla."}
    single = {"question": "Who?", "context": "a"}
    assert isinstance(ask(one), dict if top_k == 1 else list)
    same(ask([one]), ask(one))
    assert isinstance(ask(single, max_answer_len=1), dict)
    assert len(ask([one, single])) == 2
    assert isinstance(ask(one, top_k=None), dict if top_k == 1 else list)
    if align:
        assert all(re.search(rf"\b{re.escape(answer['answer'])}(?!\w)", one["context"]) for answer in ask(one, top_k=3))


def test_windows_of_transformers_that_do_not_fit_are_refused_in_its_names(models):
    ask = pipeline("question-answering", models["answer"])
    inputs = {"question": "who " * 200, "context": "Ann slept. " * 50}
    assert ask(inputs, max_seq_len=64, doc_stride=16)["answer"]
    with pytest.raises(OptionError, match=r"^doc_stride=62 must be from 0 to \d+ if max_seq_len=64$"):
        ask(inputs, max_seq_len=64, doc_stride=62)
    with pytest.raises(OptionError, match=r"^stride=30 must be from 0 to \d+ if max_length=24$"):
        pipeline("text-classification", models["classify"], max_length=24, stride=30)


@pytest.mark.parametrize(
    "labels",
    [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        pd.Series(["a", "b"], index=[7, 8]),
        pd.Index(["a", "b"]),
        pd.Series(["a", "b", "a"]).unique(),
        {"a", "b"},
        {"a": 1, "b": 2}.keys(),
        {"a": 1, "b": 2},
        "a, b",
        "a,b,",
        pa.array(["a", "b"]),
        pd.Categorical(["a", "b"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_candidate_labels_may_be_any_collection(models, labels):
    zero = pipeline("zero-shot-classification", models["nli"], precision="fp32")
    expected = zero(RAW[0], candidate_labels=["a", "b"])
    for found in (
        zero(RAW[0], candidate_labels=labels),
        zero(RAW[0], labels),
        zero(sequences=RAW[0], candidate_labels=labels),
    ):
        same(found, expected)
        assert all(type(label) is str for label in found["labels"])


def test_a_generator_of_labels_serves_more_than_one_call(models):
    zero = pipeline("zero-shot-classification", models["nli"], candidate_labels=(one for one in "ab"), precision="fp32")
    same(zero(RAW), zero(RAW))
    same(zero(RAW[0]), zero(RAW[0], (one for one in ["a", "b"])))


def test_candidate_labels_that_are_numbers_come_back_as_numbers(models):
    options = {"candidate_labels": [1, 2]}
    theirs = transformers.pipeline("zero-shot-classification", str(models["nli"]))(RAW[0], **options)
    found = pipeline("zero-shot-classification", models["nli"], precision="fp32")(RAW[0], **options)
    same(found, theirs)
    assert all(type(label) is int for label in found["labels"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "candidate_labels: found none"),
        ("", "candidate_labels: found none"),
        (iter(()), "found none"),
        (["a", "a"], "a label is given twice"),
        ([1, "1"], "a label is given twice"),
        (["a", " "], "a label is empty"),
        ([None], "found the candidate label None"),
        ([math.nan], "found the candidate label nan"),
        (["a", ["b"]], r"found the candidate label \['b'\]"),
        (5, "candidate_labels is 5, expected a list of labels"),
        (None, "expected candidate_labels"),
    ],
)
def test_candidate_labels_that_cannot_be_asked_are_one_error(models, labels, message):
    zero = pipeline("zero-shot-classification", models["nli"])
    with pytest.raises(OptionError, match=message):
        zero(RAW, candidate_labels=labels)


def test_each_text_may_have_its_own_labels_also_in_a_stream(models):
    zero = pipeline("zero-shot-classification", models["nli"], precision="fp32")
    own = [["x", "y"], np.array(["z"]), {"x", "y"}]
    same(list(zero(iter(RAW), candidate_labels=own)), zero(RAW, candidate_labels=own))
    for texts in (RAW[:2], iter(RAW[:2])):
        with pytest.raises(OptionError, match="found 2 texts and 3 lists of candidate_labels"):
            list(zero(texts, candidate_labels=own))
    with pytest.raises(OptionError, match="found more texts than the 3 lists"):
        list(zero(iter(RAW * 2), candidate_labels=own))
    bad, good = list(zero(iter(RAW[:2]), candidate_labels=[[], ["x"]]))
    assert (bad["error"], good["labels"]) == ("there are no labels to choose from", ["x"])


@pytest.mark.parametrize("hypothesis_template", ["no braces", "About {}: {}", "{0} x", "{x} {}", 5, "{{}} {}"])
def test_a_template_has_one_place_for_the_label(models, hypothesis_template):
    with pytest.raises(OptionError, match="hypothesis_template"):
        pipeline("zero-shot-classification", models["nli"], hypothesis_template=hypothesis_template)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_template_and_hyphens_are_read_as_in_transformers(models, multi_label):
    options = {"hypothesis_template": "Is it about {}?", "candidate_labels": "non-fiction, arts & culture"}
    options |= {"multi_label": multi_label}
    theirs = transformers.pipeline("zero-shot-classification", str(models["nli"]), **options)(RAW)
    same(pipeline("zero-shot-classification", models["nli"], precision="fp32", **options)(RAW), theirs)


COLLECTIONS = [
    list,
    tuple,
    np.array,
    lambda texts: pd.Series(texts, index=range(7, 7 + len(texts))),
    pd.Index,
    pa.array,
    lambda texts: datasets.Dataset.from_dict({"text": texts}),
    lambda texts: datasets.Dataset.from_dict({"text": texts})["text"],
    lambda texts: pd.DataFrame({"text": texts, "id": 7}),
    lambda texts: pa.table({"text": texts}),
    lambda texts: dict.fromkeys(texts).keys(),
    lambda texts: Keyed(texts),
]


class Keyed:
    """A torch Dataset: a length and items, no iterator."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, place):
        return self.texts[place] if place < 10 else None


@pytest.mark.parametrize("make", COLLECTIONS)
@pytest.mark.parametrize("name", ["text-classification", "ner", "zero-shot-classification", "feature-extraction"])
def test_what_has_a_length_gives_a_list(models, name, make):
    model = {"text-classification": "classify", "ner": "tag", "feature-extraction": "embed"}.get(name, "nli")
    options = {"candidate_labels": ["a", "b"]} if model == "nli" else {}
    pipe = pipeline(name, models[model], precision="fp32", **options)
    found = pipe(make(RAW))
    assert isinstance(found, list)
    same(found, pipe(RAW))


def test_a_set_gives_a_list_and_what_has_no_length_an_iterator(models):
    pipe = pipeline("ner", models["tag"], precision="fp32")
    texts = set(RAW)
    same(pipe(texts), pipe(list(texts)))
    rows = datasets.Dataset.from_dict({"text": RAW}).to_iterable_dataset()
    for stream in (iter(RAW), (text for text in RAW), rows, map(str, RAW)):
        found = pipe(stream)
        assert not isinstance(found, list)
        same(list(found), pipe(RAW))


@pytest.mark.parametrize("inputs", [np.array("one text"), np.str_("one text"), pa.scalar("one text")])
def test_a_text_of_numpy_or_pyarrow_is_one_text(models, inputs):
    pipe = pipeline("text-classification", models["classify"], precision="fp32")
    same(pipe(inputs), pipe("one text"))


@pytest.mark.parametrize("inputs", [None, 5, b"text", float("nan"), object()])
def test_what_is_no_text_is_refused(models, inputs):
    for name, model in (("ner", "tag"), ("fill-mask", "fill")):
        with pytest.raises(OptionError, match=r"found .* as the input of .*, expected texts"):
            pipeline(name, models[model])(inputs)


@pytest.mark.parametrize(
    "bad", [None, float("nan"), pd.NA, 5, b"x", np.float32(1), {"txt": "a"}, {"text": None}, ["a", 1]]
)
@pytest.mark.parametrize("name", list(PIPELINES))
def test_a_wrong_input_is_named_in_a_list_and_an_error_of_its_own_in_a_stream(models, name, bad):
    model, options, (_, _, good) = CASES_BY_PIPELINE[name]
    pipe = pipeline(name, models[model], **options)
    with pytest.raises((DataError, OptionError), match=r"^input 1 \(from 0\): (found|expected) "):
        pipe([good, bad, good])
    first, error, last = pipe(one for one in [good, bad, good])
    same(first, last)
    assert (first.error, error.windows) == (None, 0)
    assert re.match("(found|expected) ", error.error)


@pytest.mark.parametrize("name", list(PIPELINES))
def test_a_stream_reads_no_more_than_it_needs(models, name):
    model, options, (_, _, good) = CASES_BY_PIPELINE[name]
    pulled = 0

    def endless():
        nonlocal pulled
        while True:
            pulled += 1
            yield good

    stream = pipeline(name, models[model], **options)(islice(endless(), 200_000))
    assert pulled == 0
    next(stream)
    assert pulled < 10_000
    stream.close()


@pytest.mark.parametrize("strategy", ["none", "simple", "first"])
def test_results_of_equal_inputs_share_nothing(models, strategy):
    first, second = pipeline("ner", models["tag"], aggregation_strategy=strategy)([RAW[0], RAW[0]])
    expected = [dict(one) for one in second]
    for one in first:
        one["score"] = "changed"
    first.clear()
    assert [dict(one) for one in second] == expected


HINTS = {
    "batch_size": 8,
    "num_workers": 2,
    "padding": True,
    "framework": "pt",
    "torch_dtype": torch.float16,
    "device": 0,
    "dtype": "auto",
    "device_map": "auto",
    "use_fast": True,
    "trust_remote_code": True,
    "token": "x",
    "use_auth_token": True,
}


def notes(caplog):
    return [line for line in caplog.messages if not line.startswith("no ONNX model")]


@pytest.mark.parametrize("option", HINTS)
def test_what_changes_no_answer_is_accepted_with_one_note(models, option, caplog):
    pipe = pipeline("ner", models["tag"], **{option: HINTS[option]})
    assert len(notes(caplog)) == 1
    assert re.match(f"{option}=.* has no effect: ", notes(caplog)[0])
    expected = pipe(RAW)
    same(pipe(RAW, **{option: HINTS[option]}), expected)
    assert len(notes(caplog)) == 1
    assert set(HINTS) == {*_HINTS, "device"}


@pytest.mark.parametrize("device", [0, "0", "cuda", "cuda:1", "mps", torch.device("cuda"), np.int64(0)])
def test_a_gpu_that_is_not_there_is_accepted_with_a_note(models, device, caplog, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    pipeline("ner", models["tag"], device=device)
    assert re.search("no effect: (PyTorch finds no GPU here|bothways computes on the CPU, or on the)", caplog.text)


@pytest.mark.parametrize(
    ("device", "engine", "expected"),
    [(0, None, "cuda"), ("cuda", "torch", "cuda"), (-1, None, "cpu"), ("auto", None, None), (0, "onnxruntime", None)],
)
def test_a_gpu_that_is_there_runs_the_model(models, device, engine, expected, caplog, monkeypatch):
    asked = []

    def loading(*given, **options):
        asked.append(options["device"])
        return load(*given, **options | {"device": None, "engine": None})

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with monkeypatch.context() as patched:
        patched.setattr("bothways.pipelines.load", loading)
        patched.setattr("bothways.model.forward.device_of", lambda _: torch.device("cpu"))
        patched.setattr("bothways.inference.engines.torch.device_of", lambda _: torch.device("cpu"))
        pipeline("ner", models["tag"], device=device, engine=engine)
    assert asked == [expected]
    assert ("an ONNX model runs, on the CPU" in caplog.text) == (engine == "onnxruntime")


@pytest.mark.parametrize("device", [None, -1, "cpu", "cpu:0", torch.device("cpu")])
def test_the_processor_needs_no_note(models, device, caplog):
    pipeline("ner", models["tag"], device=device)
    assert not notes(caplog)


@pytest.mark.parametrize(
    "option", ["tokenizer", "config", "revision", "model_kwargs", "return_tensors", "delimiter", "nonsense"]
)
def test_what_would_change_answers_is_refused_unless_it_is_none(models, option):
    pipeline("ner", models["tag"], **{option: None})
    with pytest.raises(OptionError, match=f"pipeline token-classification takes no '{option}'"):
        pipeline("ner", models["tag"], **{option: "x"})
    with pytest.raises(OptionError, match=f"pipeline token-classification takes no '{option}'"):
        pipeline("ner", models["tag"])(RAW[0], **{option: "x"})


def test_the_tokenizer_of_the_model_itself_may_be_named(models, caplog):
    pipeline("ner", models["tag"], tokenizer=models["tag"])
    assert "the model's own is always used" in notes(caplog)[0]


def test_old_options_of_transformers_4_keep_their_meaning(models, caplog):
    classify = pipeline("text-classification", models["classify"], precision="fp32")
    everything = {one["label"]: one["score"] for one in classify(RAW[0], top_k=None)}
    (found,) = classify(RAW[0], return_all_scores=True)
    assert [one["label"] for one in found] == ["bad", "fair", "good"]
    same({one["label"]: one["score"] for one in found}, everything)
    same(classify(RAW[0], return_all_scores=False), classify(RAW[0]))
    ner = pipeline("ner", models["tag"], precision="fp32")
    same(ner(RAW, grouped_entities=True), ner(RAW, aggregation_strategy="simple"))
    ask = pipeline("question-answering", models["answer"], topk=2, precision="fp32")
    question = {"question": "Who?", "context": "Elon Musk founded Tesla"}
    same(ask(data=question), ask(X=question))
    assert len(ask(data=question)) == 2
    choose = pipeline("zero-shot-classification", models["nli"], precision="fp32")
    same(choose(RAW[0], ["a", "b"], multi_class=True), choose(RAW[0], ["a", "b"], multi_label=True))
    assert {line.partition("=")[0] for line in notes(caplog)} == set(_OLD)


def test_options_inside_tokenize_kwargs_are_options(models):
    extract = pipeline("feature-extraction", models["embed"], tokenize_kwargs={"truncation": True, "max_length": 12})
    assert len(extract("word " * 50)[0]) == 12
    with pytest.raises(OptionError, match="takes no 'add_special_tokens'"):
        pipeline("fill-mask", models["fill"], tokenizer_kwargs={"add_special_tokens": False})


def test_what_chooses_the_engine_is_refused_for_a_loaded_model_and_its_reporter_is_used(models):
    from bothways.progress import Reporter

    loaded = load(models["tag"])
    for option in ({"engine": "openvino"}, {"precision": "int8"}, {"engine": "torch"}):
        with pytest.raises(OptionError, match=r"engine and precision apply when a model is loaded.*give them to load"):
            pipeline("ner", loaded, **option)
    stream = io.StringIO()
    pipeline("ner", loaded, batch_size=2, reporter=Reporter(stream=stream))
    assert "batch_size=2 has no effect" in stream.getvalue()


def test_a_model_object_of_transformers_is_refused_with_what_to_do(models):
    model = transformers.BertForTokenClassification.from_pretrained(models["tag"])
    with pytest.raises(
        OptionError, match=r"model is a BertForTokenClassification, expected a directory.*save_pretrained"
    ):
        pipeline("ner", model)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("classify", "text-classification"),
        ("tag", "token-classification"),
        ("answer", "question-answering"),
        ("fill", "fill-mask"),
    ],
)
def test_without_a_task_the_model_tells_it(models, name, task):
    assert pipeline(model=models[name]).name == task
    assert pipeline(model=load(models[name])).name == task


def test_settings_of_a_loaded_model_hold_where_transformers_has_the_same_default(models):
    loaded = load(models["nli"], task="zero_shot", hypothesis_template="About {}.", kind="multi", precision="fp32")
    own = pipeline("zero-shot-classification", loaded)(RAW, ["a", "b"])
    options = {"hypothesis_template": "About {}.", "multi_label": True, "candidate_labels": ["a", "b"]}
    same(own, pipeline("zero-shot-classification", models["nli"], precision="fp32", **options)(RAW))


@pytest.mark.parametrize("inputs", ["the [MASK]", ["the [MASK]"], ["the [MASK]", "a [MASK]"], ["[MASK] [MASK]"]])
@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"targets": ["river", "capital", "river"], "top_k": 9}])
@pytest.mark.parametrize("where", ["pipeline", "call"])
def test_guesses_have_the_shape_of_transformers(models, inputs, options, where):
    first, later = (options, {}) if where == "pipeline" else ({}, options)
    theirs = transformers.pipeline("fill-mask", str(models["fill"]), **first)(inputs, **later)
    ours = pipeline("fill-mask", models["fill"], precision="fp32", **first)(inputs, **later)
    same(_tokens(ours), _tokens(theirs))


def _tokens(found):
    return [_tokens(one) for one in found] if isinstance(found, list) else (found["token"], found["score"])


@pytest.mark.parametrize(
    "targets",
    [
        np.array(["river", "capital"]),
        {"river", "capital"},
        ("river", "capital"),
        pd.Series(["river", "capital"], index=[7, 8]),
        (one for one in ["river", "capital"]),
        {"river": 1, "capital": 2}.keys(),
    ],
)
def test_targets_may_be_any_collection(models, targets):
    fill = pipeline("fill-mask", models["fill"], precision="fp32", targets=targets)
    same(fill(["the [MASK]", "a [MASK]"]), fill(["the [MASK]", "a [MASK]"], targets=["river", "capital"]))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "targets is empty"),
        ([""], "found the target ''"),
        ([5], "found the target 5"),
        (5, "targets is 5, expected a list of words"),
        ([None], "found the target None"),
        (["🙂"], "is not a single token in the vocabulary"),
    ],
)
def test_targets_that_cannot_be_guessed_are_refused(models, targets, message):
    with pytest.raises(OptionError, match=message):
        pipeline("fill-mask", models["fill"])("the [MASK]", targets=targets)


@pytest.mark.parametrize("target", ["Paris", " Paris", "\u0120Paris", " capital", "unaffable place"])
def test_targets_of_bytes_are_those_of_transformers(models, target):
    inputs = "It is <mask>, in France."
    theirs = transformers.pipeline("fill-mask", str(models["bytes"]))(inputs, targets=[target])
    same(pipeline("fill-mask", models["bytes"], precision="fp32")(inputs, targets=[target]), theirs)


def test_a_mask_of_another_family_is_not_found_and_the_right_one_is_named(models):
    assert pipeline("fill-mask", models["bytes"])("the [MASK]").error == "there is no mask in the text (<mask>)"


def test_a_pipeline_has_a_short_name_for_notebooks(models):
    text = repr(
        pipeline("zero-shot-classification", models["nli"], candidate_labels=[f"label {n}" for n in range(1000)])
    )
    assert text.startswith("<bothways pipeline 'zero-shot-classification': ")
    assert len(text) < 250
