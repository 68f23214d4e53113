"""Setting a share of examples aside for dev, and what two sets of examples have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bothways.data.examples import Example, labels_of
from bothways.errors import DataError

_ONCE = object()  # the stratum of the sets of labels that occur once: no reference is equal to it


def set_aside(
    examples: Sequence[Example], share: float, seed: int, *, split_by: int | None = None
) -> tuple[list[Example], list[Example]]:
    """Set a share of the examples aside, stratified by their reference: (the rest, the share), each in file order.

    Texts (of pairs: both; with `split_by`, the text of that place) that occur twice stay on one side, so that
    nothing is tested on what it was trained on, and every label stays in the rest. Sets of labels that occur once
    are one stratum. Raises `DataError` if there are too few.
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
    aside: set[int] = set()
    owed = 0.0  # the fractions of a text that small strata add up to
    for stratum in sorted(strata, key=lambda reference: "" if reference is _ONCE else repr(reference)):
        members = strata[stratum]
        owed += share * len(members)
        most = min(int(owed), math.ceil(share * len(members)), len(members) - 1)
        for index in rng.permutation(len(members))[: max(most, 0)]:
            aside.update(members[index])
            owed -= 1
        owed = min(owed, 1.0)
    left = {
        label for place, example in enumerate(examples) if place not in aside for label in labels_of(example.reference)
    }
    aside = {place for place in aside if left.issuperset(labels_of(examples[place].reference))}
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
    """The note that some texts occur with different references, if any do."""
    found: dict[tuple[str, ...], dict[Any, str]] = {}
    for example in examples:
        found.setdefault(_compared(example, None), {}).setdefault(example.reference, example.where)
    different = [references for references in found.values() if len(references) > 1]
    if not different:
        return []
    (one, where), (other, there), *_ = different[0].items()
    return [f"texts with different labels: {len(different):,}, for example {one!r} at {where} and {other!r} at {there}"]


def _compared(example: Example, split_by: int | None) -> tuple[str, ...]:
    """The texts by which examples are compared: without differences in case and space."""
    which = example.texts if split_by is None else (example.texts[split_by],)
    return tuple(" ".join(text.lower().split()) for text in which)
