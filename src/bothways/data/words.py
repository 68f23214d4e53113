"""Split text into words, in any script."""

from __future__ import annotations

import re
from functools import cache
from unicodedata import category

import numpy as np

Places = tuple[tuple[int, int], ...]  # (start, end) of each word

# Scripts written without spaces: each letter, with its combining marks, is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARK = "\u00aa"  # replaces marks and invisible characters for matching; it is a letter, so words stay whole
_APOSTROPHES = "'’ʼ＇"
# French, Italian and Catalan words that elide their last vowel: l'Italie, dell'Unione, qu'Airbus.
_ELIDED = (
    "c d j l m n s t v qu jusqu lorsqu puisqu quoiqu quelqu presqu entr un all coll dall dell nell sull quell quest "
    "bell sant tutt grand mezz senz anch com dov gl agl dagl degl negl sugl"
)
_SOLID = re.compile(rf"(?![{_UNSPACED}])[^\W_]")


def split_words(text: str) -> Places:
    """Split a text into words; punctuation, hyphens and parts joined by an apostrophe are separate words.

    The names in "Paris-based" and "l'Italie" are therefore words that a tag can mark.

    >>> text = "Musk's (U.S.) Paris-based AT&T, l'Italie."
    >>> [text[start:end] for start, end in split_words(text)]
    ['Musk', "'s", '(', 'U.S.', ')', 'Paris', '-', 'based', 'AT&T', ',', "l'", 'Italie', '.']
    """
    apostrophes, plain = any(one in text for one in _APOSTROPHES), text.isascii()
    if not plain:
        text = text.translate(
            {ord(one): _MARK for one in set(text) if category(one)[0] == "M" or category(one) == "Cf"}
        )
    return tuple(match.span() for match in _pattern(apostrophes, plain).finditer(text))


@cache
def _pattern(apostrophes: bool, plain: bool) -> re.Pattern[str]:
    """Return the word pattern; texts without apostrophes and ASCII texts (`plain`) get faster variants."""
    letter = "[^\\W_]" if plain else rf"(?:(?![{_UNSPACED}_ʼ])\w)"
    mark = f"[{_APOSTROPHES}]"
    joined = (
        rf"|{letter}*?[nN]{mark}[tT]\b"  # don't
        rf"|\b(?i:{_ELIDED.replace(' ', '|')}){mark}(?=[^\W\d_])"
        rf"|{mark}(?i:s|m|d|t|ll|re|ve)\b|(?<=\w){mark}{letter}+"  # Musk's, Ankara'da
        rf"|\b[Oo]{mark}(?=[A-Z]){letter}+"  # O'Brien
    )
    return re.compile(
        ("" if plain else rf"[{_UNSPACED}]{_MARK}*|")
        + r"(?:[^\W\d_]\.){2,}|\b[A-Z]\.(?=\s+[A-Z])"  # U.S., George W. Bush
        + (joined if apostrophes else "")
        + rf"|{letter}+(?:(?:[&+@]|\.(?=[a-z\d])|[,:](?=\d)){letter}+)*"  # AT&T, 1.5, 10:30
        + rf"|(?:[^\w\s]|[_ʼ]){_MARK}*"
    )


def word_edges(text: str) -> np.ndarray:
    """Return the positions in a text, including 0 and its end, that are not inside a word of letters and digits.

    >>> word_edges("a Paris.").tolist(), word_edges("北京").tolist()
    ([0, 1, 2, 7, 8], [0, 1, 2])
    """
    solid = {one for one in set(text) if _SOLID.match(one) or category(one)[0] == "M"}
    inside = np.fromiter((one in solid for one in text), bool, len(text))
    return np.flatnonzero(~np.append(False, inside) | ~np.append(inside, False))
