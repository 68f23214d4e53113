"""Hidden tokens: how many, behind what, never special ones, whole words whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import CheckpointError
from bothways.text.tokenizer import Tokenizer
from bothways.training.masking import Masking

BERT = Tokenizer.packaged("bert-base-uncased")
RULES = Masking.of(BERT)
WORDS = Masking.of(BERT, whole_word_mask=True)


def ordinary(rng: np.random.Generator, count: int) -> np.ndarray:
    """[CLS], tokens, [SEP]."""
    return np.concatenate(([BERT.cls_id], rng.choice(RULES.ordinary, count), [BERT.sep_id])).astype(np.int32)


def test_fifteen_in_a_hundred_are_hidden_eighty_ten_ten():
    rng = np.random.default_rng(0)
    ids = ordinary(rng, 100_000)
    places = RULES.choose(ids, rng)
    assert len(places) == 15_000
    shown = RULES.hide(ids, places, rng)[places]
    masked, kept = shown == BERT.mask_id, shown == ids[places]
    n = len(places)
    for share, expected in ((masked.mean(), 0.8), ((~masked & ~kept).mean(), 0.1), (kept.mean(), 0.1)):
        assert abs(share - expected) < 4 * (expected * (1 - expected) / n) ** 0.5
    assert np.array_equal(np.delete(RULES.hide(ids, places, rng), places), np.delete(ids, places))


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.booleans(), st.sampled_from([0.01, 0.15, 0.5]))
def test_special_tokens_are_never_hidden_nor_stand_in_for_others(seed, count, whole, rate):
    rng = np.random.default_rng(seed)
    rules = Masking.of(BERT, rate=rate, whole_word_mask=whole)
    ids = ordinary(rng, count)
    ids[rng.random(len(ids)) < 0.2] = BERT.sep_id
    places = rules.choose(ids, rng)
    assert len(set(places.tolist())) == len(places)
    assert not rules.special[ids[places]].any()
    able = int((~rules.special[ids]).sum())
    assert len(places) >= min(1, able)
    if not whole:
        assert len(places) == min(able, max(1, round(rate * able)))
    shown = rules.hide(ids, places, rng)[places]
    assert (~rules.special[shown] | (shown == BERT.mask_id)).all()


@pytest.mark.parametrize("name", ["bert-base-uncased", "roberta-base", "albert-base-v2"])
def test_whole_words_are_hidden_or_shown_whole(name):
    tokenizer = Tokenizer.packaged(name)
    rules = Masking.of(tokenizer, rate=0.4, whole_word_mask=True)
    window = tokenizer.encode("Unbelievably knowledgeable antidisestablishmentarians philosophize hyperbolically today")
    several = {word for word in window.word_ids.tolist() if word >= 0 and (window.word_ids == word).sum() > 1}
    assert several
    hidden = 0
    for seed in range(50):
        places = rules.choose(window.ids, np.random.default_rng(seed))
        for word in several:
            whole = set(np.flatnonzero(window.word_ids == word).tolist())
            assert whole <= set(places.tolist()) or not whole & set(places.tolist())
            hidden += whole <= set(places.tolist())
    assert hidden


def test_masks_are_drawn_anew_and_the_same_draw_gives_the_same():
    rng = np.random.default_rng(0)
    ids = ordinary(rng, 100)
    assert not np.array_equal(RULES.choose(ids, rng), RULES.choose(ids, rng))
    first, second = (RULES.choose(ids, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_vocabulary_without_a_mask_is_refused():
    import tokenizers

    tokens = {token: number for number, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"))}
    bare = Tokenizer(tokenizers.Tokenizer(tokenizers.models.WordPiece(tokens, unk_token="[UNK]")))
    with pytest.raises(CheckpointError, match="no mask token"):
        Masking.of(bare)
