"""Tag schemes for entities.

word      IO     IOB1   BIO    BIOES
Ann       I-PER  I-PER  B-PER  B-PER
Lee       I-PER  I-PER  I-PER  E-PER
Rome      I-LOC  I-LOC  B-LOC  S-LOC
Paris     I-LOC  B-LOC  B-LOC  S-LOC      in IO one entity with Rome
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

Scheme = Literal["IO", "IOB1", "BIO", "BIOES"]
_PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I"}  # BILOU and BMES prefixes -> BIOES


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into its BIOES prefix and its type; a type without a prefix gets I.

    >>> split_tag("U-PER"), split_tag("PER"), split_tag("O")
    (('S', 'PER'), ('I', 'PER'), ('O', ''))
    """
    if tag == "O":
        return "O", ""
    if tag[1:2] == "-" and tag[0] in _PREFIXES and tag[2:]:
        return _PREFIXES[tag[0]], tag[2:]
    return "I", tag


def tag_runs(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the runs of tags of one sentence in any scheme: type, first word, one past the last word.

    Each entity is a run; consecutive words outside entities are a run of type "O".

    >>> list(tag_runs(["B-PER", "E-PER", "S-LOC", "O", "O"]))
    [('PER', 0, 2), ('LOC', 2, 3), ('O', 3, 5)]
    """
    first, before, open_kind = 0, "", ""
    for place, (prefix, kind) in enumerate(map(split_tag, tags)):
        kind = kind or "O"
        if place and (kind != open_kind or prefix in ("B", "S") or before in ("E", "S")):
            yield open_kind, first, place
            first = place
        before, open_kind = prefix, kind
    if tags:
        yield open_kind, first, len(tags)


def to_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """Convert the tags of one sentence from any scheme to BIO, with the same entities.

    >>> to_bio(["B-PER", "E-PER", "S-LOC", "O"])
    ('B-PER', 'I-PER', 'B-LOC', 'O')
    """
    found = ["O"] * len(tags)
    for kind, first, last in tag_runs(tags):
        if kind != "O":
            found[first:last] = [f"B-{kind}", *[f"I-{kind}"] * (last - first - 1)]
    return tuple(found)


def entity_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the entities of one sentence of BIO tags: type, first word, one past the last word.

    Strict: an I- tag that does not continue an entity of its type does not start one.

    >>> entity_spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 4, 5)]
    """
    return [run for run in tag_runs(tags) if split_tag(tags[run[1]])[0] == "B"]


def may_follow(before: str, after: str, scheme: Scheme) -> bool:
    """Whether tag `after` may follow tag `before`; O also represents the sentence boundaries.

    >>> may_follow("B-PER", "I-LOC", "BIO"), may_follow("B-PER", "I-LOC", "IOB1")
    (False, True)
    """
    (left, kind), (right, next_kind) = split_tag(before), split_tag(after)
    if scheme == "BIO":
        return right != "I" or (left in "BI" and kind == next_kind)
    if scheme == "BIOES":
        inside = left in ("B", "I")
        return (right in ("I", "E") and kind == next_kind) if inside else right in ("O", "B", "S")
    return True
