"""Prefixes of every scheme, and which tag may follow which."""

import pytest

from bothways.data.schemes import may_follow, split_tag


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("O", ("O", "")),
        ("B-tax-percent", ("B", "tax-percent")),
        ("M-PER", ("I", "PER")),
        ("L-PER", ("E", "PER")),
        ("creative-work", ("I", "creative-work")),
        ("B-", ("I", "B-")),
    ],
)
def test_a_tag_is_a_prefix_and_a_type(tag, parts):
    assert split_tag(tag) == parts


@pytest.mark.parametrize(
    ("before", "after", "scheme", "legal"),
    [
        ("O", "I-X", "BIO", False),
        ("B-X", "I-Y", "BIO", False),
        ("I-X", "I-X", "BIO", True),
        ("O", "I-X", "IOB1", True),
        ("B-X", "O", "BIOES", False),
        ("B-X", "E-X", "BIOES", True),
        ("B-X", "E-Y", "BIOES", False),
        ("E-X", "I-X", "BIOES", False),
        ("S-X", "B-X", "BIOES", True),
        ("O", "E-X", "BIOES", False),
    ],
)
def test_which_tag_may_follow_which(before, after, scheme, legal):
    assert may_follow(before, after, scheme) is legal
