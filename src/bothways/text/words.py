"""The words of a running text, in every alphabet."""

from __future__ import annotations

import re
from unicodedata import category

Places = tuple[tuple[int, int], ...]  # start and end of each word

# Scripts that are written without spaces: each letter, with the marks on it, is a word of its own.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARK = "\u00aa"  # stands for a mark or an invisible character while words are looked for; a letter, so it stays inside
_LETTER = rf"(?:(?![{_UNSPACED}])\w)"
_WORD = (
    rf"[{_UNSPACED}]{_MARK}*"
    r"|(?:[^\W\d_]\.){2,}|\b[A-Z]\.(?=\s+[A-Z])"  # U.S., George W. Bush
    r"|['’][sS]\b"
    rf"|{_LETTER}+(?:(?:[-&+@]|\.(?=[a-z\d])|[,:](?=\d)|['’](?![sS]\b)){_LETTER}+)*"  # half-time, 1.5, 10:30, don't
    rf"|[^\w\s]{_MARK}*"
)
_SPACED = rf"(?![{_UNSPACED}])[^\W_]"


def split_words(text: str) -> Places:
    """The words of a running text, about as CoNLL-2003 divides them: punctuation at their edges is apart.

    >>> text = "Musk's (U.S.) half-time."
    >>> [text[start:end] for start, end in split_words(text)]
    ['Musk', "'s", '(', 'U.S.', ')', 'half-time', '.']
    """
    if not text.isascii():
        text = text.translate(
            {ord(one): _MARK for one in set(text) if category(one)[0] == "M" or category(one) == "Cf"}
        )
    return tuple(match.span() for match in re.finditer(_WORD, text))


def within_word(text: str, place: int) -> bool:
    """Whether a word, of letters, digits and the marks on them, goes on from the character before a place behind it.

    >>> within_word("Paris", 3), within_word("Paris.", 5), within_word("北京", 1)
    (True, False, False)
    """
    around = text[max(place - 1, 0) : place + 1]
    return place > 0 and len(around) == 2 and all(re.match(_SPACED, one) or category(one)[0] == "M" for one in around)
