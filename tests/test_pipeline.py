"""pipeline() against that of `transformers` where it still has the task, on tiny random models; and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from bothways import pipeline
from bothways.errors import ModelNotFoundError, OptionError
from bothways.pipelines import KINDS
from bothways.predictor import load
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
    model.save_pretrained(directory)
    Tokenizer.packaged(VOCABULARIES[family]).save(directory)
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
        for entity in expected:  # theirs is put together from lower-cased pieces
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


def test_one_label_alone_is_judged_by_itself(models):
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
    with pytest.raises(Exception, match="zero-shot needs a model of inference"):
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


def test_a_target_is_one_piece_however_it_is_written(models):
    fill = pipeline("fill-mask", models["fill"])
    same(fill("the [MASK]", targets=["River"]), fill("the [MASK]", targets="river"))
    with pytest.raises(OptionError, match="the target 'unaffable' is not one piece of the vocabulary"):
        fill("the [MASK]", targets="unaffable")


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
    """softmax over passage and [CLS], start times end, no longer than max_answer_len pieces."""
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
    same(ask([{"question": question, "context": context}]), [found])
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


HOSTILE = ["", "   ", "👩‍👩‍👧", "x" * 100_000, "שלום עולם", "a\0b", "\ud800", "word " * 20_000]


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
    assert found[-1].windows > 100
    assert found[-1].truncated == 0
    for one in found:
        written = json.loads(json.dumps(one.as_json(every_score=True)))
        assert {"windows", "truncated"} <= set(written)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("ner", {"batch_size": 8}, "takes no 'batch_size' .batches are made by tokens"),
        ("ner", {"aggregation_strategy": "best"}, "expected one of none, simple"),
        ("text-classification", {"function_to_apply": "relu"}, "expected one of softmax"),
        ("question-answering", {"top_k": 0}, "top_k is 0, expected at least 1"),
        ("question-answering", {"max_answer_len": 0}, "max_answer_len is 0, expected at least 1"),
        ("fill-mask", {"top_k": 0}, "top_k is 0, expected at least 1, or None for all"),
        ("translation", {}, "no pipeline 'translation'"),
        ("ner", {"device": "cuda"}, "computes on the processor"),
        ("ner", {"tokenizer": "x"}, "takes no 'tokenizer' .a model's own"),
        ("ner", {"ignore_labels": "O"}, "expected a list of labels"),
        ("text-classification", {"max_length": 129}, "found windows of 129 pieces, expected at most the model's 128"),
        ("text-classification", {"max_length": "long"}, "max_length is 'long', expected a number of pieces"),
        ("question-answering", {"max_seq_len": 500}, "found windows of 500 pieces"),
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


def test_a_missing_model_is_said():
    with pytest.raises(ModelNotFoundError, match="no model was given for ner"):
        pipeline("ner")


def test_an_untrained_head_does_not_answer(tmp_path):
    with pytest.raises(Exception, match="no trained head"):
        pipeline("ner", write_base(tmp_path / "base"))


LONG = "word " * 20_000
PIPELINES = {
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


@pytest.mark.parametrize("name", KINDS)
def test_results_say_how_much_was_read_and_why_nothing_was(models, name):
    model, options, inputs = PIPELINES[name]
    long, empty, short = pipeline(name, models[model])(inputs, **options)
    assert (long.windows > 100, long.truncated, long.error) == (True, 0, None)
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


@pytest.mark.parametrize("name", KINDS)
def test_the_table_in_the_docs_lists_every_argument(name):
    pages = (Path(__file__).parents[1] / "docs" / "pipelines.md").read_text(encoding="utf-8")
    (section,) = [one for one in pages.split("\n## ") if name in one.partition("\n")[0]]
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", section, re.MULTILINE)
    refused = {one for names, state in rows if state.startswith("an error") for one in re.findall(r"`(\w+)`", names)}
    taken = {one for names, _ in rows for one in re.findall(r"`(\w+)`", names)} - refused
    options = set(KINDS[name].options)
    assert taken == options if rows else all(f"`{option}`" in section for option in options)
    assert not refused & options
