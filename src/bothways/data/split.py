"""Split off a dev set, find texts shared by two sets, and find contradictory labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bothways.data.examples import Example, labels_of
from bothways.errors import DataError

_ONCE = object()  # stratum of all label sets that occur once; not equal to any reference


def set_aside(
    examples: Sequence[Example], share: float, seed: int, *, split_by: int | None = None
) -> tuple[list[Example], list[Example]]:
    """Split off a share of the examples, stratified by reference; return (rest, share), each in file order.

    Examples with the same text (of pairs: both texts; with `split_by`, the text at that index) stay together, in the
    rest if it would lack one of their labels otherwise. Label sets that occur once form one stratum. Raises `DataError`
    if there are too few examples.
    """
    texts: dict[tuple[str, ...], list[int]] = {}
    for place, example in enumerate(examples):
        texts.setdefault(_compared(example, split_by), []).append(place)
    strata: dict[Any, list[list[int]]] = {}
    for twins in texts.values():
        reference = examples[twins[0]].reference
        strata.setdefault(reference if labels_of(reference) or reference == () else None, []).append(twins)
    alone = [reference for reference, members in strata.items() if isinstance(reference, tuple) and len(members) == 1]
    strata[_ONCE] = [strata.pop(reference)[0] for reference in alone]
    rng = np.random.default_rng(seed)
    chosen: list[list[int]] = []
    owed = 0.0  # accumulated fractions of a text from small strata
    for stratum in sorted(strata, key=lambda reference: "" if reference is _ONCE else repr(reference)):
        members = strata[stratum]
        owed += share * len(members)
        most = min(int(owed), math.ceil(share * len(members)), len(members) - 1)
        for index in rng.permutation(len(members))[: max(most, 0)]:
            chosen.append(members[index])
            owed -= 1
        owed = min(owed, 1.0)
    left = set(range(len(examples))).difference(*chosen)
    known = {label for place in left for label in labels_of(examples[place].reference)}
    aside = {
        place
        for twins in chosen
        if all(known.issuperset(labels_of(examples[twin].reference)) for twin in twins)
        for place in twins
    }
    if not aside:
        raise DataError(f"{len(examples)} rows are too few to set a tenth aside for dev; give a dev file with --dev")
    kept = [example for place, example in enumerate(examples) if place not in aside]
    return kept, [examples[place] for place in sorted(aside)]


def shared(train: Sequence[Example], dev: Sequence[Example]) -> list[str]:
    """Return a note on the number of dev texts that are also in train, if there are any."""
    known = {_compared(example, None) for example in train}
    both = sum(_compared(example, None) in known for example in dev)
    if not both:
        return []
    return [
        f"{both:,} of {len(dev):,} dev texts are also in train, so the dev scores are too high for new texts; "
        "remove them from one of the two"
    ]


def contradictions(examples: Sequence[Example]) -> list[str]:
    """Return a note on texts that occur with different references, if there are any."""
    found: dict[tuple[str, ...], dict[Any, str]] = {}
    for example in examples:
        found.setdefault(_compared(example, None), {}).setdefault(example.reference, example.where)
    different = [references for references in found.values() if len(references) > 1]
    if not different:
        return []
    (one, where), (other, there), *_ = different[0].items()
    return [f"texts with different labels: {len(different):,}, for example {one!r} at {where} and {other!r} at {there}"]


def _compared(example: Example, split_by: int | None) -> tuple[str, ...]:
    """Return the texts to compare examples by, in lower case and with normalized space."""
    which = example.texts if split_by is None else (example.texts[split_by],)
    return tuple(" ".join(text.lower().split()) for text in which)
