"""Setting a share of examples aside for dev, and what two sets of examples have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bothways.data.examples import Example, labels_of
from bothways.errors import DataError

_ONCE = object()  # the stratum of the sets of labels that occur once: no gold is equal to it


def set_aside(
    examples: Sequence[Example], share: float, seed: int, *, together: int | None = None
) -> tuple[list[Example], list[Example]]:
    """Set a share of the examples aside, stratified by their gold: (the rest, the share), each in file order.

    Texts (of pairs: both; with `together`, the text of that place) that occur twice stay on one side, so that
    nothing is tested on what it was trained on, and every label stays in the rest. Sets of labels that occur once
    are one stratum. Raises `DataError` where there are too few.
    """
    texts: dict[tuple[str, ...], list[int]] = {}
    for place, example in enumerate(examples):
        texts.setdefault(_compared(example, together), []).append(place)
    strata: dict[Any, list[list[int]]] = {}
    for twins in texts.values():
        gold = examples[twins[0]].gold
        strata.setdefault(gold if labels_of(gold) or gold == () else None, []).append(twins)
    alone = [gold for gold, members in strata.items() if isinstance(gold, tuple) and len(members) == 1]
    strata[_ONCE] = [strata.pop(gold)[0] for gold in alone]
    rng = np.random.default_rng(seed)
    aside: set[int] = set()
    owed = 0.0  # the fractions of a text that small strata add up to
    for stratum in sorted(strata, key=lambda gold: "" if gold is _ONCE else repr(gold)):
        members = strata[stratum]
        owed += share * len(members)
        most = min(int(owed), math.ceil(share * len(members)), len(members) - 1)
        for index in rng.permutation(len(members))[: max(most, 0)]:
            aside.update(members[index])
            owed -= 1
        owed = min(owed, 1.0)
    left = {label for place, example in enumerate(examples) if place not in aside for label in labels_of(example.gold)}
    aside = {place for place in aside if left.issuperset(labels_of(examples[place].gold))}
    if not aside:
        raise DataError(f"{len(examples)} rows are too few to set a tenth aside for dev; give a dev file with --dev")
    kept = [example for place, example in enumerate(examples) if place not in aside]
    return kept, [examples[place] for place in sorted(aside)]


def shared(train: Sequence[Example], dev: Sequence[Example]) -> list[str]:
    """What a user should know of a dev set: texts that are in train too."""
    known = {_compared(example, None) for example in train}
    both = sum(_compared(example, None) in known for example in dev)
    if not both:
        return []
    return [
        f"{both:,} of {len(dev):,} dev texts are also in train, so the dev scores are too high for new texts; "
        "remove them from one of the two"
    ]


def contradictions(examples: Sequence[Example]) -> list[str]:
    """The note that some texts occur with different golds, if any do."""
    found: dict[tuple[str, ...], dict[Any, str]] = {}
    for example in examples:
        found.setdefault(_compared(example, None), {}).setdefault(example.gold, example.where)
    different = [golds for golds in found.values() if len(golds) > 1]
    if not different:
        return []
    (one, where), (other, there), *_ = different[0].items()
    return [f"texts with different labels: {len(different):,}, for example {one!r} at {where} and {other!r} at {there}"]


def _compared(example: Example, together: int | None) -> tuple[str, ...]:
    """The texts by which examples are compared: without differences in case and space."""
    which = example.texts if together is None else (example.texts[together],)
    return tuple(" ".join(text.lower().split()) for text in which)
