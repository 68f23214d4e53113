"""Zero-shot: labels and templates that can be asked, windows of one pair, and numbers that are none."""

import numpy as np
import pytest

from bothways.data.examples import Example
from bothways.errors import DataError, OptionError
from bothways.tasks import ZeroShot
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.packaged("bert-base-uncased")
NLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("labels", "message"), [(("a", "a"), "a label is given twice"), (("a", " "), "a label is empty")]
)
def test_labels_that_cannot_be_told_apart_are_refused_at_once(labels, message):
    with pytest.raises(OptionError, match=message):
        ZeroShot(labels=labels, nli=NLI)


@pytest.mark.parametrize("hypothesis_template", ["none", "", "{} and {}", "{0}", "{label}", "{{}}", "{} {x}"])
def test_a_template_has_one_place_for_the_label(hypothesis_template):
    with pytest.raises(OptionError, match="hypothesis_template"):
        ZeroShot(labels=("a",), nli=NLI, hypothesis_template=hypothesis_template)


def test_without_labels_there_is_one_error_not_one_for_each_text():
    task = ZeroShot(labels=(), nli=NLI)
    for ask in (lambda: task.problem(task.example("a text")), lambda: task.check([Example(("a",), reference="x")])):
        with pytest.raises(OptionError, match=r"there are no labels to choose from; give candidate_labels="):
            ask()
    assert task.problem(task.example(("a text", ["x"]))) is None


def test_a_reference_that_is_not_a_label_is_named():
    with pytest.raises(DataError, match="label 'x' is not one of the 2 known: a, b"):
        ZeroShot(labels=("a", "b"), nli=NLI).check([Example(("a",), reference="x")])


def test_a_label_with_braces_is_written_as_it_is():
    task = ZeroShot(labels=("{}", "a {b}"), nli=NLI)
    texts = [window.ids for window in task.encode([task.example("x")], TOKENIZER)]
    assert "this example is { }." in TOKENIZER.backend.decode(texts[0].tolist())


def test_windows_of_a_pair_count_each_token_once():
    """9 tokens in windows of 6 that begin at 0 and 3: the first owns 4 tokens, the second 5."""
    task = ZeroShot(labels=("a", "b"), nli=NLI, hypothesis_template="{}", max_length=10, stride=2, kind="multi")
    example = task.example("one two three four five six seven eight nine")
    windows = task.encode([example], TOKENIZER)
    assert [window.skipped for window in windows] == [0, 3, 0, 3]
    logits = [np.array([4.0, 0.0, 0.0]), np.zeros(3), np.zeros(3), np.array([1.0, 0.0, 0.0])]
    scores = task.decode(example, logits, windows, TOKENIZER).scores
    assert scores["a"] == pytest.approx(1 / (1 + np.exp(-4.0 * 4 / 9)))
    assert scores["b"] == pytest.approx(1 / (1 + np.exp(-1.0 * 5 / 9)))


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_number_that_is_none_is_an_error_of_its_text(kind):
    task = ZeroShot(labels=("a", "b"), nli=NLI, kind=kind)
    example = task.example("x")
    windows = task.encode([example], TOKENIZER)
    answer = task.decode(example, [np.full(3, np.nan), np.zeros(3)], windows, TOKENIZER)
    assert "NaN" in answer.error
    assert answer.as_json(all_scores=True)["score"] is None
