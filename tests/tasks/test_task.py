"""Claims about what all tasks share: settings are checked, and rows become examples or say why not."""

import pytest

from bothways.errors import OptionError
from bothways.tasks import Answer, Classify, Embed, Fill, Pairs, Tag, ZeroShot

NLI = ("contradiction", "neutral", "entailment")


# Settings


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (Classify, {"kind": "softmax"}, r"^kind is 'softmax', expected one of single, multi, regression$"),
        (Classify, {"long": "trim"}, r"^long is 'trim', expected one of window, cut$"),
        (Classify, {"threshold": 1.5}, r"^threshold is 1\.5, expected a value from 0 to 1$"),
        (Classify, {"threshold": "x"}, r"^threshold is 'x', expected float$"),
        (Classify, {"threshold": float("nan")}, r"^threshold is nan, expected float$"),
        (Classify, {"max_pieces": "12"}, r"^max_pieces is '12', expected int$"),
        (Classify, {"max_pieces": True}, r"^max_pieces is True, expected int$"),
        (Classify, {"overlap": -1}, r"^overlap is -1, expected a value from 0 to inf$"),
        (Classify, {"labels": "a,b"}, r"^labels is 'a,b', expected a sequence of strings$"),
        (Classify, {"labels": (1, 2)}, r"^labels is \(1, 2\), expected a sequence of strings$"),
        (Tag, {"labels": ("O",), "strategy": "avg"}, r"^strategy is 'avg', expected one of none, simple, first"),
        (Answer, {"longest": 0}, r"^longest is 0, expected a value from 1"),
        (Answer, {"top_k": 0}, r"^top_k is 0, expected a value from 1"),
        (Answer, {"align": "no"}, r"^align is 'no', expected bool$"),
        (Fill, {"top_k": 2.5}, r"^top_k is 2\.5, expected int$"),
        (Embed, {"pooling": "sum"}, r"^pooling is 'sum', expected one of mean, cls, pooler, none$"),
        (ZeroShot, {"labels": (), "nli": NLI, "template": 5}, r"^template is 5, expected str$"),
        (ZeroShot, {"labels": (), "nli": NLI, "kind": "softmax"}, r"^kind is 'softmax', expected one of"),
    ],
)
def test_a_setting_of_the_wrong_type_or_value_is_refused(task, settings, message):
    needed = {"labels": ("a", "b")} if issubclass(task, Classify) else {}
    with pytest.raises(OptionError, match=message):
        task(**(needed | settings))


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (Classify(("neg", "pos")), {"labels": ("positive", "negative")}),
        (Pairs(("neg", "pos")), {"labels": ("neg", "pos", "third")}),
        (Classify(("neg", "pos")), {"labels": ["pos", "neg"]}),
        (Classify(("neg", "pos")), {"kind": "multi"}),
        (Tag(("O", "B-PER", "I-PER")), {"scheme": "IO"}),
        (Answer(), {"empty": True}),
        (ZeroShot((), nli=NLI), {"nli": NLI[::-1]}),
    ],
)
def test_what_belongs_to_the_weights_cannot_be_changed(task, changes):
    (name,) = changes
    with pytest.raises(OptionError, match=rf"^{name} is fixed by the trained weights of this {task.name} model"):
        task.changed(**changes)


def test_the_other_settings_can_be_changed_and_the_same_value_is_no_change():
    made = Classify(("neg", "pos")).changed(labels=["neg", "pos"], threshold=0.3, long="cut")
    assert made == Classify(("neg", "pos"), threshold=0.3, long="cut")
    changed = ZeroShot((), nli=NLI).changed(labels=["sports"], kind="multi")
    assert (changed.labels, changed.kind) == (("sports",), "multi")
    with pytest.raises(OptionError, match=r"the task classify has no setting 'treshold'; choose from max_pieces, over"):
        made.changed(treshold=0.3)
    with pytest.raises(OptionError, match=r"^long is 'trim', expected"):
        made.changed(long="trim")


def test_settings_of_a_damaged_file_are_a_value_error():
    with pytest.raises(ValueError, match="max_pieces is '12', expected int"):
        Classify.from_json({"labels": ["a", "b"], "max_pieces": "12"})
