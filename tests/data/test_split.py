"""Claims about setting a dev set aside: every class may be in it, and nothing is tested on what it was trained on."""

import pytest

from bothways.data.examples import Example
from bothways.data.split import contradictions, set_aside, shared
from bothways.errors import DataError
from bothways.tasks import Pairs


def rows(**counts):
    return [Example((f"{label} {n}",), label) for label, count in counts.items() for n in range(count)]


@pytest.mark.parametrize("name", ["alone", "once", "None", "", "()"])
def test_a_class_of_any_name_has_its_share_of_dev(name):
    examples = [Example((f"{label} {n}",), label) for label in (name, "family") for n in range(50)]
    _, aside = set_aside(examples, 0.1, seed=0)
    assert [example.reference for example in aside].count(name) == 5
    assert len(aside) == 10


def test_sets_of_labels_that_occur_once_are_one_stratum_beside_a_class_called_alone():
    once = [Example((f"text {n}",), (f"a{n}", "every")) for n in range(50)]
    twice = [Example((f"more {n}",), ("alone",)) for n in range(50)]
    kept, aside = set_aside([*once, *twice], 0.1, seed=0)
    assert [example.reference for example in aside].count(("alone",)) == 5
    assert len(kept) + len(aside) == 100


def test_texts_of_one_place_stay_together():
    pairs = [Example((f"premise {n // 3}", f"hypothesis {n}"), "xyz"[n % 3]) for n in range(300)]
    kept, aside = set_aside(pairs, 0.1, seed=0, split_by=0)
    assert {one.texts[0] for one in kept}.isdisjoint(one.texts[0] for one in aside)
    assert len(aside) == pytest.approx(30, abs=3)
    apart, single = set_aside(pairs, 0.1, seed=0)
    assert not {one.texts[0] for one in apart}.isdisjoint(one.texts[0] for one in single)
    assert Pairs.split_by == 0


def test_case_and_space_do_not_make_another_text():
    examples = [Example((text,), "ab"[n % 2]) for n in range(100) for text in (f"A text {n}", f"a  TEXT {n} ")]
    kept, aside = set_aside(examples, 0.1, seed=0)
    plain = [{" ".join(one.texts[0].lower().split()) for one in some} for some in (kept, aside)]
    assert plain[0].isdisjoint(plain[1])


def test_a_text_with_a_label_that_occurs_once_is_never_on_both_sides():
    rare = [Example((f"both {n}",), label) for n in range(20) for label in ("a", f"only {n}")]
    kept, aside = set_aside([*rare, *rows(a=100, b=100)], 0.3, seed=0)
    assert {one.texts for one in kept}.isdisjoint(one.texts for one in aside)
    assert {one.reference for one in aside} <= {one.reference for one in kept}


def test_too_few_rows_are_refused():
    with pytest.raises(
        DataError, match=r"^3 rows are too few to set a tenth aside for dev; give a dev file with --dev"
    ):
        set_aside(rows(a=2, b=1), 0.1, seed=0)


def test_dev_texts_that_are_also_in_train_are_counted():
    train = rows(a=5, b=5)
    assert shared(train, rows(a=5, b=5))[0].startswith(
        "10 of 10 dev texts are also in train, so the dev scores are too"
    )
    dev = [Example(("A  0",), "a"), Example(("new",), "b")]
    assert shared(train, dev)[0].startswith("1 of 2 dev texts")
    assert shared(train, [Example(("new",), "a"), Example(("newer",), "b")]) == []
    swapped = [Example(("p", "h"), "a")], [Example(("h", "p"), "a")]
    assert shared(*swapped) == []


def test_texts_with_different_labels_are_counted():
    same = [Example(("Great film",), "good", "a.csv:2"), Example(("great  film",), "bad", "a.csv:9")]
    assert contradictions([*same, *rows(a=3)]) == [
        "texts with different labels: 1, for example 'good' at a.csv:2 and 'bad' at a.csv:9"
    ]
    assert contradictions([*rows(a=3), *rows(a=3)]) == []
    assert contradictions([Example(("a",), ("x",)), Example(("a",), ("x", "y"))])
