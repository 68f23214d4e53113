"""Masked tokens: which window guesses, what a guess looks like in its text, and what cannot be guessed."""

import numpy as np
import pytest

from bothways.errors import OptionError
from bothways.tasks.fill import Fill
from bothways.text.tokenizer import Tokenizer

BERT = Tokenizer.packaged("bert-base-uncased")
ROBERTA = Tokenizer.packaged("roberta-base")


def filled(task, text, tokenizer, best):
    """The answer to a text if the logit of the token `best` is the highest at each mask."""
    example = task.example(text)
    windows = task.encode([example], tokenizer)
    rows = [np.zeros((len(window.head_positions), tokenizer.vocab_size), np.float32) for window in windows]
    for row in rows:
        row[:, best] = 5.0
    parts = [task.reduce(row, window) for row, window in zip(rows, windows, strict=True)]
    return task.decode(example, parts, windows, tokenizer)


@pytest.mark.parametrize(
    ("tokenizer", "text", "token", "filled_text"),
    [
        (BERT, "PARIS is  the [MASK], é.", "river", "PARIS is  the river, é."),
        (BERT, "They walk [MASK] home", "##ing", "They walking home"),
        (ROBERTA, "the <mask> of it", "\u0120river", "the river of it"),
        (ROBERTA, "walk <mask> home", "ing", "walking home"),
    ],
)
def test_the_text_keeps_all_but_the_mask(tokenizer, text, token, filled_text):
    answer = filled(Fill(), text, tokenizer, tokenizer.backend.token_to_id(token))
    assert answer.masks[0][0].sequence == filled_text


def test_each_mask_is_guessed_once_in_the_window_with_most_context():
    text = " ".join(["word"] * 6 + ["[MASK]"] + ["word"] * 6)
    task = Fill(max_length=10, stride=5)
    example = task.example(text)
    windows = task.encode([example], BERT)
    asked = [(window.skipped, window.head_positions.tolist()) for window in windows if len(window.head_positions)]
    assert len(asked) == 1
    ((skipped, _),) = asked
    distances = {}
    for window in windows:
        for at in np.flatnonzero(window.ids == BERT.mask_id):
            distances[window.skipped] = min(at, len(window.ids) - 1 - at)
    assert distances[skipped] == max(distances.values())
    assert len(filled(task, text, BERT, 2000).masks) == 1


def test_targets_are_tokens_as_the_vocabulary_spells_them_or_texts_of_one_token():
    ids = [ROBERTA.backend.token_to_id(one) for one in ("ing", "\u0120river")]
    answer = filled(Fill(targets=("ing", " river", "\u0120river")), "a <mask>", ROBERTA, ids[1])
    assert sorted(guess.token for guess in answer.masks[0]) == sorted(ids)
    for target in ("unaffable", "", "\U0001f642"):
        with pytest.raises(OptionError, match="is not a single token in the vocabulary"):
            filled(Fill(targets=(target,)), "a [MASK]", BERT, 2000)


def test_a_text_without_a_mask_is_an_error_that_names_the_mask():
    assert filled(Fill(), "a [MASK]", ROBERTA, 5).error == "there is no mask in the text (<mask>)"


def test_a_number_that_is_none_is_an_error_of_its_text():
    answer = filled(Fill(), "a [MASK]", BERT, slice(0, None))
    assert answer.error is None
    task = Fill()
    windows = task.encode([task.example("a [MASK]")], BERT)
    part = task.reduce(np.full((1, BERT.vocab_size), np.nan, np.float32), windows[0])
    assert "NaN" in task.decode(task.example("a [MASK]"), [part], windows, BERT).error
