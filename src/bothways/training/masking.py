"""Token masking: 15 % of the tokens, replaced by [MASK] (80 %), by a random token (10 %) or left unchanged (10 %).

Devlin et al. 2019, 3.1; dynamic: masks are drawn again each time a sequence is read (Liu et al. 2019, 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.errors import CheckpointError
from bothways.text.tokenizer import Tokenizer

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


@dataclass(frozen=True, slots=True)
class Masking:
    """The masking rules; special tokens are never masked and never replace other tokens."""

    mask_id: int
    special: np.ndarray  # (V,) bool
    begins: np.ndarray  # (V,) bool: whether a token starts a word
    ordinary: np.ndarray  # (V',) ids of possible random replacements
    rate: float = 0.15
    whole_word_mask: bool = False

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, rate: float = 0.15, whole_word_mask: bool = False) -> Masking:
        """Return the rules for a vocabulary; raises `CheckpointError` if it has no mask token."""
        if tokenizer.mask_id is None:
            raise CheckpointError(
                "the vocabulary has no mask token, so nothing can be masked; make one by bothways vocab"
            )
        tokens = tokenizer.convert_ids_to_tokens(range(tokenizer.vocab_size))
        added = tokenizer.backend.get_added_tokens_decoder()
        special = np.array([number in added and added[number].special for number in range(len(tokens))])
        special[[number for _, number in tokenizer.specials.values()]] = True
        marks = ("Ġ", "▁")  # start-of-word prefixes; ## marks continuations
        marked = [sum(token.startswith(mark) for token in tokens) for mark in marks]
        if max(marked) > sum(token.startswith("##") for token in tokens):
            begins = np.array([token.startswith(marks) for token in tokens])
        else:
            begins = np.array([not token.startswith("##") for token in tokens])
        return cls(tokenizer.mask_id, special, begins | special, np.flatnonzero(~special), rate, whole_word_mask)

    def choose(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(T,) ids -> (K,) sorted positions to mask: `rate` of the ordinary tokens, at least one if there are any.

        With `whole_word_mask`, words are masked as a whole, so the number of tokens can differ from `rate`.
        """
        places = np.flatnonzero(~self.special[ids])
        wanted = max(1, round(self.rate * len(places)))
        if not self.whole_word_mask:
            return np.sort(rng.permutation(places)[:wanted])
        broken = np.diff(places, prepend=-2) > 1
        words = np.split(places, np.flatnonzero(self.begins[ids[places]] | broken)[1:]) if len(places) else []
        found: list[np.ndarray] = []
        for word in (words[number] for number in rng.permutation(len(words))):
            if not found or sum(map(len, found)) + len(word) <= wanted:
                found.append(word)
        return np.sort(np.concatenate(found)) if found else places

    def hide(self, ids: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the (T,) ids with the tokens at `places` masked."""
        draw = rng.random(len(places))
        random = rng.choice(self.ordinary, len(places))
        shown = np.where(
            draw < MASK_SHARE, self.mask_id, np.where(draw < MASK_SHARE + RANDOM_SHARE, random, ids[places])
        )
        hidden = ids.copy()
        hidden[places] = shown
        return hidden
