"""Verdicts hold what they say: differences are of the same examples, and one who learned nothing is not better."""

import hashlib

import numpy as np
import pytest

from bothways.data.examples import Example
from bothways.errors import BothwaysError, DataError, ModelNotFoundError, OptionError
from bothways.evaluation import compare as module
from bothways.evaluation.compare import BASELINE, LEFT_OUT, MAX_LABELS, base_of, compare_on, short_names
from bothways.evaluation.verdicts import Contender, cautions, caveat, collapsed, verdict
from bothways.inference.model_directory import ModelDirectory
from bothways.metrics import mcnemar
from bothways.progress import Reporter
from bothways.tasks import Answer, Classify, Pairs, Tag
from bothways.tasks.answer import AnswerPrediction, ReferenceAnswer
from bothways.tasks.classify import LabelPrediction
from bothways.tasks.tag import TagPrediction
from tests.tiny import write_base

TWO = Classify(("bad", "good"))
SEVERAL = Classify(("bad", "good", "odd"), "multi")
NUMBER = Classify(("score",), "regression")
TAGS = Tag(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
QUESTIONS = Answer(handle_impossible_answer=True)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labeled(labels, score=0.9):
    return [LabelPrediction(label, score, {label: score}) for label in labels]


def several(sets):
    return [LabelPrediction("bad", 0.4, {}, tuple(labels)) for labels in sets]


def numbers(values):
    return [LabelPrediction("score", float(value), {"score": float(value)}) for value in values]


def tagged(rows):
    return [TagPrediction(tags=tuple(row)) for row in rows]


def answered(texts):
    return [AnswerPrediction(answers=({"answer": text, "score": 0.5, "start": 0, "end": len(text)},)) for text in texts]


def contender(task, name, predictions, references, against=None, **facts):
    scores = task.score(predictions, references, rng=rng(), resamples=100)
    p = None
    if against is not None and task.loss in ("single", "spans"):
        p = mcnemar(
            *([task.is_correct(x, g) for x, g in zip(each, references, strict=True)] for each in (predictions, against))
        )
    return Contender(name, name, scores, tuple(predictions), p, 100.0, 1000, 1000, 1000, facts=facts)


def said(task, references, first, second, *, dev=False, names=("one", "two"), **facts):
    """The verdict about the second predictions against the first."""
    rows = (contender(task, names[0], first, references), contender(task, names[1], second, references, first, **facts))
    return verdict(task, *rows, references, 0, dev=dev)


def wrong_at(references, places, other):
    return [other if place in places else reference for place, reference in enumerate(references)]


REFERENCES = ["good", "bad"] * 100


def test_a_better_a_worse_and_an_undecided_classifier_are_called_so():
    right = labeled(REFERENCES)
    poor = labeled(wrong_at(REFERENCES, range(0, 200, 3), "odd"))
    near = labeled(wrong_at(REFERENCES, (3,), "odd"))
    better = said(TWO, REFERENCES, poor, right)
    assert better.startswith("two is better than one: accuracy 100.0 % against 66.5 %, difference +33.5 points (95 % ")
    assert "McNemar's test of accuracy: p < 0.001" in better
    assert "macro F1 100.0 % against" in better
    assert said(TWO, REFERENCES, right, poor).startswith("two is worse than one: accuracy 66.5 %")
    assert said(TWO, REFERENCES, right, poor).endswith(" Use one.")
    undecided = said(TWO, REFERENCES, right, near)
    assert undecided.startswith("two is not shown to be better than one:")
    assert undecided.endswith("A larger labeled test set would settle it.")
    for text in (better, undecided):
        assert "baseline" not in text


def majority(share):
    return ["good"] * int(1000 * share) + ["bad"] * (1000 - int(1000 * share))


def test_a_classifier_that_always_gives_the_frequent_label_is_never_better():
    references = majority(0.69)
    chance = rng(1)
    baseline = labeled(
        [reference if chance.random() < 0.65 else "good" if reference == "bad" else "bad" for reference in references]
    )
    text = said(TWO, references, baseline, labeled(["good"] * 1000), names=(BASELINE, "runs/cola"))
    assert text.startswith("runs/cola always answers 'good', so it is not usable; compared with ")
    assert "Matthews correlation 0.000 against 0." in text
    assert "better" not in text
    assert text.endswith("Train it longer, or with another learning rate or base.")


@pytest.mark.parametrize(("n", "others"), [(1000, 1), (1000, 5), (1000, 20), (3000, 9)])
def test_nor_is_one_that_nearly_always_gives_it(n, others):
    references = ["good"] * (8 * n // 10) + ["bad"] * (2 * n // 10)
    chance = rng(1)
    first = labeled(
        [reference if chance.random() < 0.75 else "good" if reference == "bad" else "bad" for reference in references]
    )
    text = said(TWO, references, first, labeled(["good"] * (n - others) + ["bad"] * others))
    assert "is better" not in text
    assert "two has higher accuracy but lower macro F1 than one: it finds rare labels less often" in text
    back = said(TWO, references, labeled(["good"] * (n - others) + ["bad"] * others), first)
    assert "two has lower accuracy but higher macro F1 than one: it finds rare labels more often" in back


def test_the_majority_label_is_no_fault_where_every_example_has_it():
    assert collapsed(TWO, labeled(["good"] * 5), ["good"] * 5) is None


@pytest.mark.parametrize(
    ("task", "predictions", "references", "text"),
    [
        (TWO, labeled(["good"] * 4), ["good", "bad"] * 2, "always answers 'good'"),
        (Pairs(("no", "yes")), labeled(["no"] * 4), ["no", "yes"] * 2, "always answers 'no'"),
        (TWO, [TWO.failure("the text is empty")] * 2, ["good", "bad"], "answers no example"),
        (SEVERAL, several([()] * 4), [("good",), ("bad",)] * 2, "none reaches the threshold of 0.5"),
        (SEVERAL, several([("bad", "odd")] * 4), [("good",), ("bad",)] * 2, "always answers 'bad, odd'"),
        (NUMBER, numbers([2.5, 2.5, 2.5]), [1.0, 2.0, 4.0], "always answers about 2.5"),
        (NUMBER, numbers([2.501, 2.499, 2.5]), [1.0, 2.0, 4.0], "always answers about 2.5"),
        (TAGS, tagged([["O", "O"]] * 2), [("B-PER", "O"), ("O", "O")], "finds no entity"),
        (QUESTIONS, answered(["", ""]), [(ReferenceAnswer("x", 0, True),), ()], "never gives an answer"),
    ],
)
def test_a_model_that_gives_one_answer_to_all_is_called_what_it_is(task, predictions, references, text):
    assert text in collapsed(task, predictions, references)
    assert "is not usable" in said(task, references, predictions, predictions)


@pytest.mark.parametrize(
    ("task", "predictions", "references"),
    [
        (TWO, labeled(["good", "bad"]), ["good", "bad"]),
        (SEVERAL, several([(), ("bad",)]), [("good",), ("bad",)]),
        (SEVERAL, several([(), ()]), [(), ()]),
        (NUMBER, numbers([1.0, 2.0]), [1.0, 2.0]),
        (NUMBER, numbers([3.0, 3.0]), [3.0, 3.0]),
        (TAGS, tagged([["B-PER", "O"]]), [("B-PER", "O")]),
        (TAGS, tagged([["O", "O"]]), [("O", "O")]),
        (QUESTIONS, answered(["x", ""]), [(ReferenceAnswer("x", 0, True),), ()]),
        (QUESTIONS, answered([""]), [()]),
    ],
)
def test_a_model_that_tells_examples_apart_is_not(task, predictions, references):
    assert collapsed(task, predictions, references) is None


def test_a_baseline_that_always_gives_one_label_is_named_in_the_verdict():
    text = said(TWO, REFERENCES, labeled(["bad"] * 200), labeled(REFERENCES))
    assert text.startswith("two is better than one (which always answers 'bad'): accuracy 100.0 %")


def test_numbers_are_compared_on_the_same_examples_and_not_by_two_intervals():
    random = rng(3)
    references = random.standard_normal(1500)
    shared = random.standard_normal(1500)
    first = numbers(references + 0.75 * shared)
    second = numbers(references + 0.68 * shared)
    text = said(NUMBER, references.tolist(), first, second)
    rows = [contender(NUMBER, "x", each, references.tolist()) for each in (first, second)]
    assert rows[1].metrics["spearman"].low < rows[0].metrics["spearman"].high  # the two intervals overlap
    assert text.startswith("two is better than one: Spearman correlation 0.")
    assert "difference +0.0" in text
    assert "McNemar" not in text


def test_entities_answers_and_sets_of_labels_are_compared_by_their_headline():
    tags = [("B-PER", "O"), ("O", "B-LOC")] * 60
    some = tagged([("B-PER", "O"), ("O", "O")] * 60)
    text = said(TAGS, tags, some, tagged(tags))
    assert text.startswith("two is better than one: entity F1 100.0 % against 66.7 %")
    assert "McNemar" not in text  # it would be about whole sentences
    assert said(TAGS, tags, tagged(tags), some).startswith("two is worse than one: entity F1 66.7 %")
    references = [(ReferenceAnswer("red fox", 0, True),)] * 60
    text = said(Answer(), references, answered(["red"] * 40 + ["fox"] * 20), answered(["red fox"] * 60))
    assert text.startswith("two is better than one: F1 100.0 % against 66.7 %, difference +33.3 points (95 % interval ")
    assert "McNemar's test of exact match" in text
    sets = [("good",), ("bad", "odd")] * 60
    text = said(SEVERAL, sets, several([("good",), ("bad",)] * 60), several(sets))
    assert text.startswith("two is better than one: micro F1 100.0 %")
    assert "McNemar" not in text  # it would be about whole sets


@pytest.mark.parametrize("n", [1, 3, 9])
def test_a_handful_of_examples_shows_nothing(n):
    references = (["good", "bad"] * n)[:n] if n > 1 else ["good"]
    wrong = labeled(["odd" if place else "strange" for place in range(n)])
    assert "not shown to be better" in said(TWO, references, wrong, labeled(references)) or n == 1


def test_a_model_of_few_steps_is_to_be_trained_longer():
    right, poor = labeled(REFERENCES), labeled(wrong_at(REFERENCES, range(0, 200, 3), "odd"))
    worse = said(TWO, REFERENCES, right, poor, steps=27, best_step=20)
    assert worse.endswith("It was trained for 27 steps only; train it longer (--epochs, --time-budget).")
    assert "Use one" not in worse
    rising = said(TWO, REFERENCES, right, poor, steps=2700, best_step=2700)
    assert "its last checkpoint was its best; train it longer" in rising
    assert "longer" not in said(TWO, REFERENCES, right, poor, steps=2700, best_step=900)
    assert "longer" not in said(TWO, REFERENCES, poor, right, steps=27, best_step=27)


def test_a_verdict_on_dev_tells_that_dev_chose_the_checkpoint():
    right, poor = labeled(REFERENCES), labeled(wrong_at(REFERENCES, range(0, 200, 3), "odd"))
    text = said(TWO, REFERENCES, poor, right, dev=True)
    assert text.startswith("two is better than one on the dev set: accuracy")
    rows = [contender(TWO, name, right, REFERENCES) for name in (BASELINE, "run")]
    note = caveat(TWO, rows, exported=True)
    assert "choose the checkpoint and the ONNX model" in note
    assert f"those of {BASELINE} are not" in note
    assert "the checkpoint and the threshold" in caveat(QUESTIONS, rows[1:], exported=False)
    assert BASELINE not in caveat(QUESTIONS, rows[1:], exported=False)


def test_what_limits_the_figures_is_listed():
    references = ["good"] * 12
    lines = cautions(TWO, [*labeled(references[1:]), TWO.failure("the text is empty")], references)
    assert "12 example(s) give wide" in lines[0]
    assert "1 of 12 examples could not be answered and count as wrong (the text is empty)" in lines[1]
    assert "1 of 2 labels do not occur in these examples" in lines[2]
    assert lines[2].endswith(": bad.")
    assert cautions(TWO, labeled(REFERENCES), REFERENCES) == []
    (line,) = cautions(TAGS, tagged([["B-PER"]] * 40), [("B-PER",)] * 40)
    assert "1 of 2 labels" in line
    assert line.endswith(": LOC.")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Directories whose models answer as they are told, without any model: name -> predictions."""
    answers = {BASELINE: labeled([*REFERENCES[:-1], "good"])}
    requests = []
    facts = {}
    task = TWO

    def read(directory, *_):
        return ModelDirectory(directory, None, task, None, facts)

    def in_process(request, test):
        requests.append(request)
        settings = request.get("baseline")
        name = EMBEDDINGS if settings and "base" in settings else BASELINE
        name = name if settings else request["model"].rsplit("/", 1)[-1]
        if name not in answers:
            raise BothwaysError(f"{name} cannot be run")
        costs = {"texts_per_second": 10.0, "parameters": 5, "disk": 6, "memory": 7, "engine": f"engine of {name}"}
        return costs | {"predictions": answers[name]}

    monkeypatch.setattr(module.ModelDirectory, "read", staticmethod(read))
    monkeypatch.setattr(module, "in_process", in_process)
    return answers, requests, facts


EMBEDDINGS = "base embeddings + linear model"
EXAMPLES = [Example((str(number),), reference) for number, reference in enumerate(REFERENCES)]


def test_models_are_held_against_the_baseline_and_against_the_first_model(models, tmp_path):
    answers, _, _ = models
    answers |= {"a": labeled(wrong_at(REFERENCES, range(60), "odd")), "b": labeled(REFERENCES)}
    comparison = compare_on(EXAMPLES, [tmp_path / "a", tmp_path / "b"], EXAMPLES)
    assert [row.title for row in comparison.rows] == [BASELINE, "a", "b"]
    starts = [f"a is worse than {BASELINE}", f"b is not shown to be better than {BASELINE}", "b is better than a: "]
    assert [text[: len(start)] for text, start in zip(comparison.verdicts, starts, strict=True)] == starts
    assert comparison.tested == "accuracy"
    assert [row.p is None for row in comparison.rows] == [True, False, False]
    assert comparison.as_json()["against"] == BASELINE
    assert comparison.as_json()["rows"][1]["engine"] == "engine of a"


@pytest.mark.parametrize("how", ["a", "path"])
def test_a_model_can_be_what_the_others_are_held_against(models, tmp_path, how):
    answers, _, _ = models
    answers |= {"a": labeled(wrong_at(REFERENCES, range(60), "odd")), "b": labeled(REFERENCES)}
    against = str(tmp_path / "a") if how == "path" else "a"
    comparison = compare_on(EXAMPLES, [tmp_path / "a", tmp_path / "b"], EXAMPLES, against=against)
    assert comparison.against.title == "a"
    assert [text[:18] for text in comparison.verdicts] == [f"{BASELINE} is better than a"[:18], "b is better than a"]
    assert [row.p is None for row in comparison.rows] == [False, True, False]
    with pytest.raises(OptionError, match="'c' is not one of the compared models"):
        compare_on(EXAMPLES, [tmp_path / "a", tmp_path / "b"], EXAMPLES, against="c")


def test_two_classifiers_are_compared_without_a_baseline_and_one_is_not(models, tmp_path):
    answers, _, _ = models
    answers |= {"a": labeled(wrong_at(REFERENCES, range(60), "odd")), "b": labeled(REFERENCES)}
    comparison = compare_on(EXAMPLES, [tmp_path / "a", tmp_path / "b"])
    assert [row.title for row in comparison.rows] == ["a", "b"]
    assert [text[:18] for text in comparison.verdicts] == ["b is better than a"]
    with pytest.raises(OptionError, match=r"one model needs a baseline, .* give --train FILE"):
        compare_on(EXAMPLES, [tmp_path / "a"])
    with pytest.raises(OptionError, match="'baseline' is not one of"):
        compare_on(EXAMPLES, [tmp_path / "a", tmp_path / "b"], against="baseline")


def test_the_baseline_weighs_labels_as_the_model_did(models, tmp_path):
    answers, requests, facts = models
    answers["a"] = labeled(REFERENCES)
    compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES)
    facts["recipe"] = {"class_weights": "balanced"}
    compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES)
    assert [request["baseline"]["balanced"] for request in requests if "baseline" in request] == [False, True]


@pytest.mark.parametrize(("wrong", "best"), [(range(100), BASELINE), (range(20), EMBEDDINGS)])
def test_models_are_held_against_the_best_baseline(models, tmp_path, wrong, best):
    answers, requests, _ = models
    answers |= {"a": labeled(REFERENCES), BASELINE: labeled(wrong_at(REFERENCES, range(50), "odd"))}
    answers[EMBEDDINGS] = labeled(wrong_at(REFERENCES, wrong, "odd"))
    comparison = compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES, base=tmp_path / "base", dev=True)
    assert [row.title for row in comparison.rows] == [BASELINE, EMBEDDINGS, "a"]
    assert comparison.against.title == best
    assert [text.split(":")[0] for text in comparison.verdicts] == [f"a is better than {best} on the dev set"]
    assert [row.title for row in comparison.rows if row.p is None] == [best]
    assert "those of the baselines are not" in comparison.notes[0]
    assert requests[1]["baseline"]["base"] == tmp_path / "base"
    assert requests[1]["baseline"]["train"] == EXAMPLES
    assert compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES, base=tmp_path / "base", against="baseline").against_row == [
        BASELINE,
        EMBEDDINGS,
    ].index(best)
    against_model = compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES, base=tmp_path / "base", against="a")
    assert [text.split(" is ")[0] for text in against_model.verdicts] == [BASELINE, EMBEDDINGS]


def test_embeddings_that_cannot_be_computed_are_left_out_with_a_note(models, tmp_path):
    answers, requests, facts = models
    answers["a"] = labeled(REFERENCES)
    comparison = compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES, base=tmp_path / "base")
    assert [row.title for row in comparison.rows] == [BASELINE, "a"]
    assert f"{LEFT_OUT}: {EMBEDDINGS} cannot be run." in comparison.notes
    del requests[:]
    facts["base"] = "gone"
    comparison = compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES)
    assert any(note.startswith(f"{LEFT_OUT}: no model 'gone': not a directory here") for note in comparison.notes)
    assert len(requests) == 2
    del answers["a"]
    with pytest.raises(BothwaysError, match="a cannot be run"):
        compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES)


def test_embeddings_are_left_out_where_there_are_too_many_labels(models, tmp_path, monkeypatch):
    answers, requests, _ = models
    answers["a"] = labeled(REFERENCES)
    monkeypatch.setattr(module, "MAX_LABELS", 1)
    comparison = compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES, base=tmp_path / "base")
    assert f"{LEFT_OUT}: it is for at most 1 labels." in comparison.notes
    assert len(requests) == 2
    assert MAX_LABELS > 200


def test_a_note_tells_that_embeddings_are_of_a_part_of_the_training_texts(models, tmp_path, monkeypatch):
    answers, requests, _ = models
    answers |= {"a": labeled(REFERENCES), EMBEDDINGS: labeled(REFERENCES)}
    monkeypatch.setattr("bothways.evaluation.features.MAX_EMBEDDED", 50)
    comparison = compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES, base=tmp_path / "base")
    assert f"{EMBEDDINGS} is fitted on 50 of the 200 training examples, drawn at random." in comparison.notes
    assert [len(request["baseline"]["train"]) for request in requests if "baseline" in request] == [200, 50]


def test_the_base_of_a_model_is_found_by_its_facts_and_its_hash(tmp_path, monkeypatch):
    base = write_base(tmp_path / "base")
    with (base / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    monkeypatch.chdir(tmp_path)
    assert base_of({"base": "base", "base_sha256": digest}).resolve() == base
    for facts, message in (
        ({}, "does not name its base"),
        ({"base": "base", "base_sha256": "0" * 64}, "not those that the model was fine-tuned from"),
        ({"base": "hf:nobody/nothing", "base_revision": "1" * 40}, f"'hf:nobody/nothing@{'1' * 40}' not found"),
    ):
        with pytest.raises(ModelNotFoundError, match=message):
            base_of(facts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match=r"has no model\.safetensors"):
        base_of({"base": "empty"})


def test_notes_are_told_and_a_reference_that_learned_nothing_is_named(models, tmp_path, caplog):
    answers, _, _ = models
    answers |= {BASELINE: labeled(["bad"] * 200), "a": labeled(REFERENCES)}
    caplog.set_level("INFO", "bothways")
    comparison = compare_on(EXAMPLES, [tmp_path / "a"], EXAMPLES, dev=True, reporter=Reporter(quiet=True))
    assert "The dev set was also used to choose the checkpoint" in comparison.notes[0]
    assert comparison.notes[-1] == f"{BASELINE} always answers 'bad'."
    logged = {record.message: record.levelname for record in caplog.records}
    assert logged["measuring a"] == "INFO"
    assert logged[comparison.notes[0]] == "WARNING"


def test_reference_labels_that_the_model_does_not_know_are_refused(models, tmp_path):
    with pytest.raises(DataError, match="label 'odd' is not one of the 2 known"):
        compare_on([Example(("x",), "odd")], [tmp_path / "a"], EXAMPLES)


def test_short_names_tell_directories_apart(tmp_path):
    assert short_names([tmp_path / "run"]) == ["run"]
    assert short_names([tmp_path / "a" / "best", tmp_path / "b" / "best"]) == ["a/best", "b/best"]
    assert short_names([tmp_path / "run", tmp_path / "run"]) == ["run", "run"]
