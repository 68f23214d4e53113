"""What is timed: enough texts, whatever the sample."""

from __future__ import annotations

from bothways.data.examples import Example
from bothways.evaluation import measure as module


def test_a_small_sample_is_timed_with_copies_that_are_other_texts_of_the_same_words():
    examples = [Example(("a question", "a short text")), Example(("", "another"))]
    timed = module._copied(examples)
    assert timed[:2] == examples
    assert len({example.texts for example in timed}) == len(timed)  # equal ones would be predicted once
    assert sum(len(text) for example in timed for text in example.texts) >= module.ENOUGH_CHARACTERS
    assert {(first, second.rstrip()) for first, second in (example.texts for example in timed)} == {
        example.texts for example in examples
    }


def test_a_large_sample_is_timed_as_it_is():
    examples = [Example(("x" * module.ENOUGH_CHARACTERS,))]
    assert module._copied(examples) == examples
